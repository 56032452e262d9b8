"""Messages to values and back: nothing is lost, and what is out of bounds is refused by its field."""

from dataclasses import replace
from typing import Any

import pytest

from coordinator.api import convert_host, convert_market, validate
from coordinator.domain.account import Account, Balances, Role
from coordinator.domain.event import Event, EventKind, NewEvent
from coordinator.domain.host import HostFacts, Isolation, Network, Terms
from coordinator.domain.hours import SaleWindow
from coordinator.domain.images import ImagePolicy
from coordinator.domain.job import GpuRequest, HostRequest, JobSpec, LogTotals, OnHostLoss, Origin, Policy
from coordinator.domain.metering import Line
from coordinator.domain.pricing import Charge
from coordinator.domain.refusal import Refusal
from coordinator.domain.states import AttemptState, Cause, EndReason, JobState
from coordinator.services.desired import Wanted
from coordinator.services.jobs import JobView
from coordinator.services.offers import Quote
from coordinator.services.synchronize import Report
from runtime.evidence import GpuUse
from tests.support.values import GIB, attempt, gpu, job, meter, record, room, spec
from usance.v1 import host_pb2 as h
from usance.v1 import types_pb2 as t

FULL_SPEC = JobSpec(
    name="train",
    image="python:3.12",
    command=("sh", "-c", "a\nb"),
    gpus=GpuRequest(
        count=3, model="rtx", vram_bytes_min=24 * GIB, compute_capability_min="8.9", simulated=True
    ),
    budget_micro=2**53 - 1,
    env={"A": "1", "B": "\n"},
    isolation_min=Isolation.PROCESS,
    gpu_hour_price_micro_max=5,
    run_ms_max=60_000,
    stop_grace_ms=0,
    retries_max=10,
    queue_ms_max=9,
    memory_bytes=1 << 30,
    cpu_milli=2_500,
    host=HostRequest(
        driver_version_min="550.54",
        cuda_version_min="12.4",
        regions=("eu-north", "eu-west"),
        reliability_ppm_min=990_000,
        labels={"rack": "b7"},
    ),
    policy=Policy.CHEAPEST,
    priority=7,
    on_host_loss=OnHostLoss.REPLACE,
    labels={"team": "vision"},
    note="two\nlines",
    network=Network.ALLOW_LIST,
    network_destinations=("example.org:443", "203.0.113.0/24"),
)


@pytest.mark.parametrize("order", [FULL_SPEC, spec()], ids=["full", "plain"])
def test_an_order_goes_there_and_back(order: JobSpec) -> None:
    assert validate.spec(convert_market.spec_to(order)) == order


def test_every_field_of_an_order_is_carried() -> None:
    set_fields = {field.name for field, _ in convert_market.spec_to(FULL_SPEC).ListFields()}
    assert set_fields == {field.name for field in t.JobSpec.DESCRIPTOR.fields}


USES = (
    GpuUse(gpu_uuid="GPU-1", utilization_percent=0, memory_used_bytes=0, energy_mj=0),
    GpuUse(gpu_uuid="GPU-2"),
)


def test_a_usage_record_keeps_what_is_nothing_apart_from_what_is_not_known() -> None:
    made = record(None, 1_000, gpus=USES)
    assert convert_host.record(convert_market.record_to(made)) == made


FACTS = HostFacts(
    hostname="rig",
    cpu_count=4096,
    memory_bytes=1,
    disk_free_bytes=0,
    isolation=Isolation.PROCESS,
    executor="processes",
    gpus=(gpu("A", simulated=True, compute_capability="8.9"), gpu("B")),
    driver_version="550.54.15",
    region="eu-1",
)


def facts_message(**changes: Any) -> h.HostFacts:
    plain = {
        **vars(FACTS),
        "gpus": [convert_market.gpu_to(one) for one in FACTS.gpus],
        "isolation": t.ISOLATION_PROCESS,
    }
    return h.HostFacts(**{**plain, **changes})


def terms_message(**changes: Any) -> h.Terms:
    plain = {
        "prices": [h.GpuPrice(model="x", gpu_hour_price_micro=10**12)],
        "run_ms_max": 7,
        "trusted_accounts": ["a", "b"],
        "network_max": t.NETWORK_ALLOW_LIST,
        "network_destinations": ["example.org"],
        "hours": [h.SaleWindow(start_minute=10_079, end_minute=10_080)],
        "images_allowed": ["team/*"],
        "images_denied": ["team/bad"],
    }
    return h.Terms(**{**plain, **changes})


def test_what_a_host_is_comes_in_whole() -> None:
    assert convert_host.facts(facts_message()) == FACTS
    terms = Terms(
        prices={"x": 10**12},
        run_ms_max=7,
        trusted_accounts=frozenset({"a", "b"}),
        network_max=Network.ALLOW_LIST,
        network_destinations=("example.org",),
        hours=(SaleWindow(start_minute=10_079, end_minute=10_080),),
        images=ImagePolicy(allowed=("team/*",), denied=("team/bad",)),
    )
    assert convert_host.terms(terms_message()) == terms


def one_gpu(**changes: Any) -> list[t.Gpu]:
    return [t.Gpu(**{"uuid": "A", "model": "x", "vram_bytes": 1, **changes})]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("facts.cpu_count", {"cpu_count": 0}),
        ("facts.cpu_count", {"cpu_count": 4097}),
        ("facts.memory_bytes", {"memory_bytes": -1}),
        ("facts.disk_free_bytes", {"disk_free_bytes": -1}),
        ("facts.hostname", {"hostname": "x" * 257}),
        ("facts.executor", {"executor": "\x1b[0m"}),
        ("facts.region", {"region": "x" * 65}),
        ("facts.region", {"region": "EU 1"}),
        ("facts.isolation", {"isolation": 0}),
        ("facts.isolation", {"isolation": 9}),
        ("facts.gpus", {"gpus": one_gpu() * 2}),
        ("facts.gpus", {"gpus": [one_gpu(uuid=str(n))[0] for n in range(65)]}),
        ("facts.gpus.uuid", {"gpus": one_gpu(uuid="")}),
        ("facts.gpus.model", {"gpus": one_gpu(model="")}),
        ("facts.gpus.vram_bytes", {"gpus": one_gpu(vram_bytes=0)}),
    ],
)
def test_facts_out_of_bounds_are_refused_by_their_field(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        convert_host.facts(facts_message(**changes))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("terms.prices", {"prices": [h.GpuPrice(model=str(n), gpu_hour_price_micro=1) for n in range(65)]}),
        ("terms.prices.gpu_hour_price_micro", {"prices": [h.GpuPrice(model="x")]}),
        (
            "terms.prices.gpu_hour_price_micro",
            {"prices": [h.GpuPrice(model="x", gpu_hour_price_micro=10**12 + 1)]},
        ),
        ("terms.prices.model", {"prices": [h.GpuPrice(gpu_hour_price_micro=1)]}),
        ("terms.run_ms_max", {"run_ms_max": -1}),
        ("terms.trusted_accounts", {"trusted_accounts": [str(n) for n in range(257)]}),
        ("terms.hours", {"hours": [h.SaleWindow()] * 65}),
        ("terms.hours.start_minute", {"hours": [h.SaleWindow(start_minute=10_080)]}),
        ("terms.hours.end_minute", {"hours": [h.SaleWindow(end_minute=10_081)]}),
        ("terms.images_allowed", {"images_allowed": ["a"] * 33}),
        ("terms.images_allowed", {"images_allowed": [""]}),
        ("terms.images_denied", {"images_denied": ["a" * 256]}),
        ("terms.images_denied", {"images_denied": ["a b"]}),
        ("terms.network_max", {"network_max": 9}),
        ("terms.network_destinations", {"network_destinations": ["*"]}),
        ("terms.network_destinations", {"network_max": t.NETWORK_INTERNET}),
    ],
)
def test_terms_out_of_bounds_are_refused_by_their_field(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        convert_host.terms(terms_message(**changes))
    assert caught.value.field == field


def report_message(**changes: Any) -> h.AttemptReport:
    plain = {"attempt_id": "att_1", "epoch": 1, "state": t.ATTEMPT_STATE_RUNNING, "container_id": "c"}
    return h.AttemptReport(**{**plain, **changes})


TOTALS: dict[str, Any] = {
    "stdout_bytes": 1,
    "stderr_bytes": 2,
    "stdout_sha256": bytes(32),
    "stderr_sha256": bytes(32),
}


def test_a_report_comes_in_whole() -> None:
    message = report_message(
        state=t.ATTEMPT_STATE_ENDED,
        run_ms=5,
        exit_code=0,
        end_reason=t.END_REASON_EXITED,
        detail="done",
        usage_number_last=3,
        log_totals=t.LogTotals(**TOTALS),
    )
    assert convert_host.reports(h.Beat(attempts=[message])) == [
        Report(
            attempt_id="att_1",
            epoch=1,
            state=AttemptState.ENDED,
            container_id="c",
            run_ms=5,
            exit_code=0,
            end_reason=EndReason.EXITED,
            detail="done",
            usage_number_last=3,
            log_totals=LogTotals(**TOTALS),
        )
    ]
    (plain,) = convert_host.reports(h.Beat(attempts=[report_message()]))
    assert (plain.exit_code, plain.end_reason, plain.log_totals) == (None, None, None)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("beat.attempts.state", {"state": t.ATTEMPT_STATE_UNSPECIFIED}),
        ("beat.attempts.state", {"state": t.ATTEMPT_STATE_ASSIGNED}),
        ("beat.attempts.state", {"state": 99}),
        ("beat.attempts.container_id", {"container_id": "x" * 129}),
        ("beat.attempts.run_ms", {"run_ms": -1}),
        ("beat.attempts.detail", {"detail": "x" * 1_025}),
        ("beat.attempts.usage_number_last", {"usage_number_last": -1}),
        ("beat.attempts.log_totals.stdout_sha256", {"log_totals": t.LogTotals()}),
    ],
)
def test_a_report_out_of_bounds_is_refused_by_its_field(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        convert_host.reports(h.Beat(attempts=[report_message(**changes)]))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("logs.chunks", [t.LogChunk(stream=t.LOG_STREAM_STDOUT, data=b"x")] * 65),
        ("logs.chunks.stream", [t.LogChunk(data=b"x")]),
        ("logs.chunks.data", [t.LogChunk(stream=t.LOG_STREAM_STDOUT)]),
        ("logs.chunks.data", [t.LogChunk(stream=t.LOG_STREAM_STDOUT, data=b"x" * 65_537)]),
        ("logs.chunks.offset", [t.LogChunk(stream=t.LOG_STREAM_STDOUT, data=b"x", offset=-1)]),
    ],
)
def test_output_out_of_bounds_is_refused_by_its_field(field: str, change: list[t.LogChunk]) -> None:
    with pytest.raises(Refusal) as caught:
        convert_host.chunks(h.LogReport(chunks=change))
    assert caught.value.field == field


def test_more_than_a_message_may_hold_is_refused() -> None:
    for field, convert in (
        ("beat.attempts", lambda: convert_host.reports(h.Beat(attempts=[report_message()] * 257))),
        ("beat.attempts", lambda: convert_host.reports(h.Beat(attempts=[report_message()] * 2))),
        ("usage.records", lambda: convert_host.records(h.UsageReport(records=[t.UsageRecord()] * 257))),
    ):
        with pytest.raises(Refusal) as caught:
            convert()
        assert caught.value.field == field


@pytest.mark.parametrize("reason", EndReason)
def test_an_end_reason_goes_there_and_back(reason: EndReason) -> None:
    assert convert_host.end_reason(convert_market.end_reason_to(reason)) is reason


@pytest.mark.parametrize("number", [0, 99, -1])
def test_a_reason_that_we_do_not_know_is_none(number: int) -> None:
    assert convert_host.end_reason(number) is None


def test_every_state_and_cause_has_its_message() -> None:
    assert len({convert_market.job_state_to(state) for state in JobState}) == len(JobState)
    assert len({convert_market.attempt_state_to(state) for state in AttemptState}) == len(AttemptState)
    assert len({convert_market.cause_to(cause) for cause in (None, *Cause)}) == len(Cause) + 1


def test_what_is_wanted_names_all_that_an_agent_must_know() -> None:
    wanted = attempt(
        meter=meter(usage_number=4), paid_through_ms=9, stop_reason=EndReason.CANCELLED, log_offset=5
    )
    whole = replace(FULL_SPEC, secret_names=("A",))
    origin = Origin(request_id="req_1", traceparent="00-1-2-01")
    message = convert_host.wanted_to(Wanted(attempt=wanted, spec=whole, account_id="a", origin=origin))
    # What is confidential the edge adds itself, where it may: test_confidential.py.
    assert {field.name for field, _ in message.ListFields()} == {
        field.name for field in h.DesiredAttempt.DESCRIPTOR.fields
    } - {"confidential"}
    assert list(message.gpu_uuids) == ["GPU-1"]


def test_a_jobs_attempt_shows_what_was_not_billed() -> None:
    shown = attempt(meter=meter(billed_ms=5_000, usage_end_ms=7_000), run_ms_reported=9_000)
    message = convert_market.job_to(JobView(job=job(), attempts=[shown]))
    (sent,) = message.attempts
    assert (sent.billed_ms, sent.unbilled_ms, sent.charged_micro) == (5_000, 4_000, 5_000)
    assert not message.HasField("exit_code")


def test_an_event_carries_its_bill_line() -> None:
    charge = Charge(charge_micro=0, fee_micro=0, earning_micro=0)
    line = Line(record=record(None, 1), witnessed_ms=0, billed_through_ms=0, charge=charge)
    what = NewEvent(
        kind=EventKind.BILLED,
        job_id="job_1",
        text="x",
        job_state=JobState.RUNNING,
        attempt_id="att_1",
        bill_line_number=1,
    )
    billed = convert_market.event_to(Event(number=5, happened_ms=6, what=what), {("att_1", 1): (line, "")})
    assert billed.bill_line.record.number == 1
    plain = convert_market.event_to(
        Event(number=5, happened_ms=6, what=replace(what, bill_line_number=None)), {}
    )
    assert not plain.HasField("bill_line")


def test_offers_are_one_for_each_model_that_is_sold() -> None:
    host = room("host_1", gpu("A"), gpu("B", model="H100", vram_bytes=80 * GIB), gpu("C", model="unsold"))
    sold = replace(host.host, terms=Terms(prices={gpu().model: 3, "H100": 9}))
    now = replace(host, host=sold, free=(gpu("A"),))
    offers = convert_market.host_to(now.host, now, now_ms=0).offers
    assert [(o.gpu_model, o.gpu_count_free, o.gpu_hour_price_micro) for o in offers] == [
        ("H100", 0, 9),
        (gpu().model, 1, 3),
    ]


def test_a_quote_without_a_host_offers_none() -> None:
    nothing = Quote(
        room=None, gpus=(), gpu_hour_price_micro=0, run_ms_affordable=0, hosts_considered=2, limits=()
    )
    sent = convert_market.quote_to(nothing, FULL_SPEC, 50_000, now_ms=0)
    assert not sent.HasField("offer")
    assert (sent.hold_micro, sent.hosts_considered, sent.fee_ppm) == (2**53 - 1, 2, 50_000)


def test_roles_go_there_and_back_and_unknown_ones_are_dropped() -> None:
    account = Account(id="acct_1", name="a", roles=frozenset(Role))
    sent = convert_market.account_to(account, Balances(wallet_micro=1, held_micro=2, earnings_micro=3))
    assert convert_market.roles_from([*sent.roles, 99, 0]) == frozenset(Role)
    assert (sent.wallet_micro, sent.held_micro, sent.earnings_micro) == (1, 2, 3)
