"""What buyers ask of hosts and sellers of theirs, through the real programs: each test with hosts of its own.

Hosts are told apart by a label, which is also how each test's jobs find theirs.
"""

import asyncio
import json
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cli.client.market import Market
from cli.connection import Connection
from cli.errors import Refused
from cli.model import Bill, Cause, EndReason, EventKind, HostState, Isolation, Job, JobSpec, JobState
from cli.people import Host
from cli.verify import verify_bill
from cli.wishes import GpuRequest, HostRequest, OnHostLoss
from runtime.channel import MESSAGE_BYTES_MAX, SERVER_NAME, open_channel
from runtime.ids import new_uuid
from tests.rig.parts import wait_until
from tests.support.agent_terms import AgentTerms
from tests.support.market import OPERATOR, WholeMarket
from tests.support.running_usance import Running
from usance.v1 import market_pb2, market_pb2_grpc

pytestmark = pytest.mark.slow
HealthStub: Any = health_pb2_grpc.HealthStub
ServerReflectionStub: Any = reflection_pb2_grpc.ServerReflectionStub

PRICE_MICRO = 3_600_000_000
CREDIT = 1_000_000
WINDOW_MS = 6_000


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeMarket]:
    made = WholeMarket(tmp_path_factory.mktemp("market4") / "m", window_ms=WINDOW_MS)
    try:
        made.start()
        made.open_account("buyer", "buyer", deposit="1000")
        made.open_account("seller", "seller")
        yield made
    finally:
        print(made.log("coordinator")[-5_000:])
        made.stop()


@pytest.fixture(autouse=True)
def books_are_in_order(market: WholeMarket) -> Iterator[None]:
    """After each test nothing of the buyer's runs or waits, and every invariant holds."""
    yield
    market.ask("buyer", _cancel_all)
    market.until("buyer", _none_lives, "all jobs have ended", deadline_s=30)
    assert market.ask(OPERATOR, lambda client: client.run_audit()).violations == ()
    assert market.ask("buyer", lambda client: client.get_wallet()).held_micro == 0


async def _live(client: Market) -> list[Job]:
    return [job async for job in client.list_jobs(live_only=True)]


async def _none_lives(client: Market) -> bool:
    return not await _live(client)


async def _cancel_all(client: Market) -> None:
    for job in await _live(client):
        await client.cancel_job(job.job_id, str(new_uuid()))


def add_host(market: WholeMarket, name: str, *, of: str = "", gpus: int = 1) -> str:
    terms = AgentTerms(simulated_gpus=gpus, trusted_accounts=("buyer",), labels={"of": of or name})
    market.add_agent(name, "seller", terms)
    return market.host_id(name)


def wish(of: str, script: str, **changes: object) -> JobSpec:
    plain = JobSpec(
        name="job",
        image="",
        command=("sh", "-c", script),
        env=(),
        gpus=GpuRequest(),
        host=HostRequest(labels=(("of", of),)),
        isolation_min=Isolation.PROCESS,
        gpu_hour_price_micro_max=0,
        budget_micro=60 * CREDIT,
        run_ms_max=60_000,
        stop_grace_ms=500,
        retries_max=0,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def submit(market: WholeMarket, spec: JobSpec) -> str:
    return market.ask("buyer", lambda client: client.submit_job(spec, str(new_uuid()))).job_id


def look(market: WholeMarket, job_id: str) -> Job:
    return market.ask("buyer", lambda client: client.get_job(job_id))


def until(market: WholeMarket, job_id: str, holds: Callable[[Job], bool], what: str) -> Job:
    wait_until(lambda: holds(look(market, job_id)), what, deadline_s=40)
    return look(market, job_id)


def until_running(market: WholeMarket, job_id: str) -> Job:
    return until(market, job_id, lambda job: job.state is JobState.RUNNING, "it runs")


def until_ended(market: WholeMarket, job_id: str) -> Job:
    return until(market, job_id, lambda job: job.ended, "it has ended")


def until_passed(market: WholeMarket) -> None:
    """Return when the queue has been gone through once more, with all that is in it."""
    witness = submit(market, wish("nobody", "true", queue_ms_max=1))
    assert until_ended(market, witness).state is JobState.EXPIRED


def cancel(market: WholeMarket, job_id: str) -> None:
    market.ask("buyer", lambda client: client.cancel_job(job_id, str(new_uuid())))


def host(market: WholeMarket, host_id: str) -> Host:
    hosts = market.ask("seller", lambda client: client.list_hosts())
    return next(found for found in hosts if found.host_id == host_id)


def verified_bill(market: WholeMarket, job_id: str) -> Bill:
    bill = market.ask("buyer", lambda client: client.get_bill(job_id))
    assert bill.final
    assert verify_bill(bill).problems == ()
    return bill


def test_a_paused_host_takes_no_new_job_and_a_resumed_one_does(market):
    host_id = add_host(market, "pause", gpus=2)
    runs = submit(market, wish("pause", "sleep 60"))
    until_running(market, runs)
    assert "paused" in market.usance("seller", "pause", host_id).stdout
    waits = submit(market, wish("pause", "true"))
    until_passed(market)
    assert look(market, waits).state is JobState.QUEUED
    assert look(market, waits).limits
    assert look(market, runs).state is JobState.RUNNING, "what runs goes on"
    assert host(market, host_id).state is HostState.PAUSED
    assert "online" in market.usance("seller", "resume", host_id).stdout
    assert until_ended(market, waits).state is JobState.SUCCEEDED
    cancel(market, runs)
    assert until_ended(market, runs).state is JobState.CANCELLED


def test_a_quarantined_host_is_the_operators_to_let_go(market):
    host_id = add_host(market, "quarantine")
    market.usance(OPERATOR, "admin", "quarantine", host_id, "--reason", "odd usage")
    held = host(market, host_id)
    assert (held.state, held.reason) == (HostState.QUARANTINED, "odd usage")
    waits = submit(market, wish("quarantine", "true"))
    until_passed(market)
    assert look(market, waits).state is JobState.QUEUED
    with pytest.raises(Refused, match="only the operator can lift that"):
        market.ask("seller", lambda client: client.resume_host(host_id, str(new_uuid())))
    market.usance(OPERATOR, "admin", "unquarantine", host_id)
    assert until_ended(market, waits).state is JobState.SUCCEEDED


def test_a_reclaimed_hosts_job_ends_and_its_buyer_gets_the_money_back(market):
    host_id = add_host(market, "reclaim")
    before = market.ask("buyer", lambda client: client.get_wallet())
    job_id = submit(market, wish("reclaim", "sleep 60"))
    until(market, job_id, lambda job: job.charged_micro > 0, "some of it is paid")
    assert "draining" in market.usance("seller", "reclaim", host_id).stdout
    job = until_ended(market, job_id)
    assert (job.state, job.cause) == (JobState.FAILED, Cause.HOST)
    assert job.attempts[-1].end_reason is EndReason.RECLAIMED
    bill = verified_bill(market, job_id)
    assert bill.credited_micro == bill.charged_micro > 0, "it was paid for less than ten minutes"
    assert market.ask("buyer", lambda client: client.get_wallet()) == before
    assert host(market, host_id).state is HostState.DRAINING
    told = market.usance("buyer", "bill", job_id, "--verify").stdout
    assert "because a host was at fault" in told
    assert "verified: " in told


def test_an_extended_job_outlives_its_first_budget_and_time(market):
    add_host(market, "extend")
    # A credit a second: neither the first budget nor the first time limit is enough.
    job_id = submit(market, wish("extend", "sleep 7", budget_micro=5 * CREDIT, run_ms_max=5_000))
    until_running(market, job_id)
    told = market.usance("buyer", "extend", job_id, "--budget", "15", "--time", "15s").stdout
    assert "at most 20.00 credits and 20 s now" in told
    job = until_ended(market, job_id)
    assert job.state is JobState.SUCCEEDED, job.detail
    bill = verified_bill(market, job_id)
    assert bill.held_micro == 20 * CREDIT
    assert bill.charged_micro > 6 * CREDIT
    assert bill.attempts[0].run_ms_max == 20_000


def test_what_is_said_to_help_helps(market):
    add_host(market, "why")
    capped = replace(wish("why", "exit 3"), gpu_hour_price_micro_max=PRICE_MICRO // 2)
    job_id = submit(market, capped)
    told = market.usance("buyer", "why", job_id).stdout
    found = re.search(r"what would help: .*--max-price to ([\d.]+)", told)
    assert found is not None, told
    assert "left out: " in told
    again = Running(
        market,
        "buyer",
        *("run", "-y", "--isolation", "process", "--host-label", "of=why", "--budget", "60"),
        *("--max-price", found.group(1), "--", "sh", "-c", "exit 3"),
    )
    assert again.end() == 3, again.err
    cancel(market, job_id)


def test_the_job_of_a_silent_host_runs_elsewhere_when_its_buyer_will_not_wait(market):
    names = {add_host(market, name, of="replace"): name for name in ("replace-a", "replace-b")}
    spec = wish("replace", "sleep 3; echo done", retries_max=1, on_host_loss=OnHostLoss.REPLACE)
    job_id = submit(market, spec)
    first = until_running(market, job_id).attempts[0].host_id
    market.signal_agent(names[first], signal.SIGSTOP)
    try:
        until(market, job_id, lambda job: len(job.attempts) == 2, "it is placed anew")
        job = until_ended(market, job_id)
    finally:
        market.signal_agent(names[first], signal.SIGCONT)
    assert job.state is JobState.SUCCEEDED, job.detail
    one, two = job.attempts
    assert (one.end_reason, one.cause) == (EndReason.REPLACED, Cause.HOST)
    assert two.host_id != first
    verified_bill(market, job_id)
    wait_until(lambda: host(market, first).state is HostState.ONLINE, "the silent one is back")


def test_a_job_fails_with_its_host_when_its_buyer_wants_no_other(market):
    names = {add_host(market, name, of="fail"): name for name in ("fail-a", "fail-b")}
    spec = wish("fail", "sleep 60", retries_max=3, on_host_loss=OnHostLoss.FAIL)
    job_id = submit(market, spec)
    first = until_running(market, job_id).attempts[0].host_id
    market.kill_agent(names[first])
    job = until_ended(market, job_id)
    assert (job.state, job.cause) == (JobState.FAILED, Cause.HOST)
    assert [attempt.end_reason for attempt in job.attempts] == [EndReason.HOST_LOST]
    verified_bill(market, job_id)


def test_the_higher_priority_goes_first(market):
    add_host(market, "priority")
    blocker = submit(market, wish("priority", "sleep 60"))
    until_running(market, blocker)
    low, high = (submit(market, wish("priority", "true", priority=level)) for level in (10, 90))
    assert look(market, high).queue_place < look(market, low).queue_place
    cancel(market, blocker)
    for job_id in (low, high):
        assert until_ended(market, job_id).state is JobState.SUCCEEDED
    assert assigned_at(market, high) < assigned_at(market, low)


def assigned_at(market: WholeMarket, job_id: str) -> int:
    async def ask(client: Market) -> int:
        async for event in client.watch_job(job_id):
            if event.kind is EventKind.ASSIGNED:
                return event.number
        raise AssertionError("it was never assigned")

    return market.ask("buyer", ask)


def test_watched_offers_are_told_again_when_a_gpu_is_taken(market):
    add_host(market, "watch", gpus=2)
    watching = Running(market, "buyer", "offers", "--watch", "--json", "--host-label", "of=watch")
    try:
        assert free(watching) == [2]
        job_id = submit(market, wish("watch", "sleep 60"))
        assert free(watching) == [1]
        cancel(market, job_id)
        assert free(watching) == [2]
    finally:
        watching.kill()


def free(watching: Running) -> list[int]:
    """In the next answer."""
    return [offer["gpu_count_free"] for offer in json.loads(watching.line())["offers"]]


async def _at_the_edges(connection: Connection) -> tuple[int, set[str], grpc.StatusCode]:
    """Its health, the services that it shows, and what is said to a message that is too long."""
    async with open_channel(connection.target, connection.authority_pem) as channel:
        # Neither package types its stubs for asyncio.
        health, mirror = HealthStub(channel), ServerReflectionStub(channel)
        checked = await health.Check(health_pb2.HealthCheckRequest())
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        call = mirror.ServerReflectionInfo(iter([asked]))
        services = {one.name for one in (await call.read()).list_services_response.service}
        call.cancel()
        metadata = (("authorization", f"Bearer {connection.token}"), ("x-request-id", "asked-by-a-test"))
        await market_pb2_grpc.AccountServiceStub(channel).GetSelf(
            market_pb2.GetSelfRequest(), metadata=metadata, timeout=30
        )
    # The client's own limit is the same: here is one without.
    credentials = grpc.ssl_channel_credentials(connection.authority_pem)
    options = (("grpc.ssl_target_name_override", SERVER_NAME),)
    async with grpc.aio.secure_channel(connection.target, credentials, options=options) as channel:
        request = market_pb2.SubmitJobRequest(request_id="x" * (MESSAGE_BYTES_MAX + 1))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await market_pb2_grpc.MarketServiceStub(channel).SubmitJob(request, metadata=metadata, timeout=30)
    return checked.status, services, refused.value.code()


def test_the_edges_of_a_coordinator(market: WholeMarket) -> None:
    status, services, code = asyncio.run(_at_the_edges(market.connection("buyer")))
    assert status == health_pb2.HealthCheckResponse.SERVING
    assert {"usance.v1.MarketService", "usance.v1.HostService", "grpc.health.v1.Health"} <= services
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    wait_until(lambda: "asked-by-a-test" in market.log("coordinator"), "the caller's name for it is logged")
