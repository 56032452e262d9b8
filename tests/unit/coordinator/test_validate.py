"""Every bound of the contract: what is just within is taken, what is just outside is refused by its field."""

import pytest

from coordinator.api import validate
from coordinator.domain.host import Isolation
from coordinator.domain.job import BUDGET_MICRO_MAX, GpuRequest, JobSpec
from coordinator.domain.refusal import Refusal, RefusalCode
from usance.v1 import types_pb2 as t

TIB_16 = 16 << 40
DAYS_30 = 2_592_000_000


def message(**changes) -> t.JobSpec:
    gpus = t.GpuRequest(count=1, **changes.pop("gpus", {}))
    plain = {"name": "train", "image": "python:3.12", "command": ["python"], "budget_micro": 1}
    return t.JobSpec(**{**plain, **changes}, gpus=gpus)


def with_count(count: int) -> t.JobSpec:
    made = message()
    made.gpus.count = count
    return made


def refused(made: t.JobSpec) -> Refusal:
    with pytest.raises(Refusal) as caught:
        validate.spec(made)
    assert caught.value.code is RefusalCode.INVALID_FIELD
    assert caught.value.remedy, "it says what would be right"
    return caught.value


def test_what_is_left_out_gets_its_default():
    assert validate.spec(message()) == JobSpec(
        name="train",
        image="python:3.12",
        command=("python",),
        gpus=GpuRequest(count=1),
        budget_micro=1,
        isolation_min=Isolation.CONTAINER,
        run_ms_max=86_400_000,
        stop_grace_ms=10_000,
    )


GOOD = {
    "name": [{"name": "a"}, {"name": "A" * 64}, {"name": "a.b_c-9"}],
    "image": [
        {"image": "registry.example.org:5000/team/image@sha256:" + "0" * 64},
        {"image": "a" * 512},
        {"image": "", "isolation_min": t.ISOLATION_PROCESS},
    ],
    "command": [{"command": ["x"] * 256}, {"command": ["x" * 65_536]}, {"command": ["sh", "", "a\nb"]}],
    "env": [
        {"env": {f"N{n}": "" for n in range(128)}},
        {"env": {"_a1": "x" * 65_533}},
        {"env": {"NVIDIA": "", "MY_NVIDIA_": "line\nline"}},
    ],
    "isolation_min": [{"isolation_min": t.ISOLATION_PROCESS}, {"isolation_min": t.ISOLATION_CONTAINER}],
    "gpu_hour_price_micro_max": [{"gpu_hour_price_micro_max": n} for n in (0, BUDGET_MICRO_MAX)],
    "budget_micro": [{"budget_micro": n} for n in (1, BUDGET_MICRO_MAX)],
    "run_ms_max": [{"run_ms_max": n} for n in (1_000, DAYS_30)],
    "stop_grace_ms": [{"stop_grace_ms": n} for n in (0, 300_000)],
    "retries_max": [{"retries_max": n} for n in (0, 10)],
    "queue_ms_max": [{"queue_ms_max": n} for n in (0, DAYS_30)],
    "memory_bytes": [{"memory_bytes": n} for n in (0, 16 << 20, TIB_16)],
    "cpu_milli": [{"cpu_milli": n} for n in (0, 100, 1_024_000)],
    "gpus.model": [{"gpus": {"model": "x" * 128}}],
    "gpus.vram_bytes_min": [{"gpus": {"vram_bytes_min": n}} for n in (0, TIB_16)],
    "gpus.compute_capability_min": [{"gpus": {"compute_capability_min": v}} for v in ("", "8.9")],
    "host.driver_version_min": [{"host": {"driver_version_min": v}} for v in ("", "550", "550.54.15.1")],
    "host.cuda_version_min": [{"host": {"cuda_version_min": v}} for v in ("", "12.4")],
    "host.regions": [{"host": {"regions": ["x" * 64] * 32}}],
    "host.reliability_ppm_min": [{"host": {"reliability_ppm_min": n}} for n in (0, 1_000_000)],
    "host.labels": [{"host": {"labels": {"a.b_c-9" * 9: "x" * 128}}}],
    "policy": [{"policy": n} for n in t.Policy.values()],
    "priority": [{"priority": n} for n in (0, 1, 100)],
    "on_host_loss": [{"on_host_loss": n} for n in t.OnHostLoss.values()],
    "labels": [{"labels": {f"n{n}": "" for n in range(32)}}],
    "note": [{"note": "x" * 2_048}, {"note": "two\nlines"}],
    "network": [{"network": n} for n in (t.NETWORK_NONE, t.NETWORK_INTERNET)],
    "network_destinations": [
        {"network": t.NETWORK_ALLOW_LIST, "network_destinations": [f"a{n}.org:443" for n in range(64)]}
    ],
}
BAD = {
    "name": [{"name": ""}, {"name": "a" * 65}, {"name": "a b"}, {"name": "ä"}, {"name": "a\n"}],
    "image": [{"image": ""}, {"image": "a" * 513}, {"image": "-x"}, {"image": "a b"}, {"image": "a\n"}],
    "command": [
        {"command": []},
        {"command": [""]},
        {"command": ["x"] * 257},
        {"command": ["x" * 65_537]},
        {"command": ["ä" * 32_769]},
        {"command": ["a\0b"]},
    ],
    "env": [
        {"env": {f"N{n}": "" for n in range(129)}},
        {"env": {"_a1": "x" * 65_534}},
        {"env": {"1A": ""}},
        {"env": {"": ""}},
        {"env": {"A-B": ""}},
        {"env": {"NVIDIA_VISIBLE_DEVICES": "all"}},
        {"env": {"USANCE_X": ""}},
        {"env": {"A": "\0"}},
    ],
    "isolation_min": [{"isolation_min": 9}],
    "gpu_hour_price_micro_max": [{"gpu_hour_price_micro_max": n} for n in (-1, BUDGET_MICRO_MAX + 1)],
    "budget_micro": [{"budget_micro": n} for n in (-1, 0, BUDGET_MICRO_MAX + 1)],
    "run_ms_max": [{"run_ms_max": n} for n in (-1, 999, DAYS_30 + 1)],
    "stop_grace_ms": [{"stop_grace_ms": n} for n in (-1, 300_001)],
    "retries_max": [{"retries_max": n} for n in (-1, 11)],
    "queue_ms_max": [{"queue_ms_max": n} for n in (-1, DAYS_30 + 1)],
    "memory_bytes": [{"memory_bytes": n} for n in (-1, (16 << 20) - 1, TIB_16 + 1)],
    "cpu_milli": [{"cpu_milli": n} for n in (-1, 99, 1_024_001)],
    "gpus.model": [{"gpus": {"model": "x" * 129}}, {"gpus": {"model": "a\tb"}}],
    "gpus.vram_bytes_min": [{"gpus": {"vram_bytes_min": n}} for n in (-1, TIB_16 + 1)],
    "gpus.compute_capability_min": [
        {"gpus": {"compute_capability_min": v}} for v in ("8.", "x", "1.2.3.4.5")
    ],
    "host.driver_version_min": [{"host": {"driver_version_min": v}} for v in ("550.", "new", "5\n")],
    "host.cuda_version_min": [{"host": {"cuda_version_min": v}} for v in (".1", "12-4")],
    "host.regions": [{"host": {"regions": v}} for v in (["x"] * 33, [""], ["x" * 65])],
    "host.reliability_ppm_min": [{"host": {"reliability_ppm_min": n}} for n in (-1, 1_000_001)],
    "host.labels": [{"host": {"labels": v}} for v in ({"A": ""}, {"": ""}, {"a": "x" * 129}, {"a": "\t"})],
    "policy": [{"policy": 9}],
    "priority": [{"priority": n} for n in (-1, 101)],
    "on_host_loss": [{"on_host_loss": 9}],
    "labels": [{"labels": v} for v in ({f"n{n}": "" for n in range(33)}, {"x" * 64: ""})],
    "note": [{"note": "x" * 2_049}, {"note": "\x1b[31m"}],
    "network": [{"network": 9}],
    "network_destinations": [
        {"network": t.NETWORK_ALLOW_LIST},
        {"network": t.NETWORK_ALLOW_LIST, "network_destinations": ["a.org"] * 65},
        {"network": t.NETWORK_ALLOW_LIST, "network_destinations": ["*.org"]},
        {"network": t.NETWORK_INTERNET, "network_destinations": ["a.org"]},
        {"network_destinations": ["a.org"]},
    ],
}


def rows(table):
    return [
        pytest.param(field, case, id=f"{field}-{n}")
        for field, cases in table.items()
        for n, case in enumerate(cases)
    ]


@pytest.mark.parametrize(("field", "changes"), rows(GOOD))
def test_within_its_bounds_a_field_is_taken(field, changes):
    validate.spec(message(**changes))


@pytest.mark.parametrize(("field", "changes"), rows(BAD))
def test_outside_its_bounds_a_field_is_refused_by_name(field, changes):
    assert refused(message(**changes)).field == f"spec.{field}"


@pytest.mark.parametrize("count", [1, 64])
def test_a_job_has_one_to_64_gpus(count):
    assert validate.spec(with_count(count)).gpus.count == count


@pytest.mark.parametrize("count", [-1, 0, 65])
def test_a_job_without_gpus_or_with_too_many_is_refused(count):
    assert refused(with_count(count)).field == "spec.gpus.count"


def test_every_field_of_an_order_has_its_bounds_tried():
    of_gpus = (
        {f"gpus.{field.name}" for field in t.GpuRequest.DESCRIPTOR.fields}
        - {"gpus.count"}
        - {"gpus.simulated"}
    )
    of_host = {f"host.{field.name}" for field in t.HostRequest.DESCRIPTOR.fields}
    every = {field.name for field in t.JobSpec.DESCRIPTOR.fields} - {"gpus", "host"} | of_gpus | of_host
    assert set(GOOD) == set(BAD) == every


@pytest.mark.parametrize(
    ("check", "field", "good", "bad"),
    [
        (
            validate.request_id,
            "request_id",
            ["0191f7a0-1111-7222-8333-444455556666"],
            ["", "1", "x" * 36, "0191f7a0-1111-7222-8333-44445555666g"],
        ),
        (validate.page_token, "page_token", ["", "job_1", "a-b.c", "x" * 256], ["a b", "x" * 257, "ä"]),
        (validate.page_start, "page_token", ["", "0", "500"], ["-1", "job_1", "1e3", "٣", "9" * 10]),
        (validate.page_size, "page_size", [0, 1, 500], [-1, 501]),
    ],
    ids=["request_id", "page_token", "page_start", "page_size"],
)
def test_the_small_fields(check, field, good, bad):
    for value in good:
        check(value)
    for value in bad:
        with pytest.raises(Refusal) as caught:
            check(value)
        assert caught.value.field == field


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (validate.account_name, ["a", "0", "a-b", "x" * 64], ["", "-a", "A", "a_b", "x" * 65, "a\n"]),
        (validate.name, ["a", "job_01k8-x", "x" * 64], ["", "A", "x" * 65, "a\0", "a b"]),
        (validate.amount, [1, BUDGET_MICRO_MAX], [0, -1, BUDGET_MICRO_MAX + 1]),
    ],
    ids=["account_name", "name", "amount"],
)
def test_fields_that_are_named_by_whoever_asks(check, good, bad):
    for value in good:
        assert check("field", value) == value
    for value in bad:
        with pytest.raises(Refusal) as caught:
            check("field", value)
        assert caught.value.field == "field"


def test_a_request_id_has_one_spelling():
    """Else the same request in capitals would be another."""
    assert (
        validate.request_id("0191F7A0-1111-7222-8333-444455556666") == "0191f7a0-1111-7222-8333-444455556666"
    )


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "a\0", "\u202e", "x" * 11, "ä" * 6])
def test_a_line_for_people_is_short_and_has_nothing_hidden_in_it(text):
    with pytest.raises(Refusal):
        validate.line("reason", text, 10)


def test_zero_pages_mean_a_hundred():
    assert (validate.page_size(0), validate.page_size(7)) == (100, 7)
