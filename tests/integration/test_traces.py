"""One trace from the client through the coordinator to the agent and back; and none unless asked for."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agent.domain.attempt import Isolation as AgentIsolation
from agent.domain.health import HEALTHY
from agent.domain.host import Hello, HostFacts, Terms
from agent.executor.fake import FakeExecutor, FakeWorld, Script
from agent.gpu.fake import FakeGpus
from agent.gpu.watch import GpuWatch
from agent.link.client import Link
from agent.runner import Runner
from cli.client.market import open_market
from cli.connection import Connection
from cli.errors import Refused
from cli.model import Isolation, JobSpec, JobState
from cli.wishes import GpuRequest
from coordinator.settings import Settings
from runtime.channel import open_channel
from runtime.clock import SystemClock
from runtime.ids import new_uuid
from runtime.otel import Otel
from runtime.tracing import OFF, TracesError, open_tracer, place_in
from tests.support.running_coordinator import Running, copy_of, running

REQUEST_ID = "req_told-by-the-client"
STEPS = ("placed", "start", "running", "settled")


class Gathered:
    """A tracer of one program, and what it has told."""

    def __init__(self, service: str) -> None:
        self._spans = InMemorySpanExporter()
        self.tracer = Otel(service, SimpleSpanProcessor(self._spans))

    def spans(self) -> Sequence[ReadableSpan]:
        return self._spans.get_finished_spans()

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.spans() if span.name == name]
        return span


def ids(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def parent(span: ReadableSpan) -> tuple[int, int]:
    assert span.parent is not None
    return span.parent.trace_id, span.parent.span_id


Agent = tuple[Runner, list[asyncio.Task[None]]]


async def with_agent(market: Running, traces: Otel, folder: Path) -> Agent:
    """A host whose jobs end at once."""
    who, clock = await market.identity(), SystemClock()
    gpus = GpuWatch(FakeGpus("g"), clock)
    await gpus.open()
    # Long enough to be seen running.
    world = FakeWorld(otherwise=Script(run_ms=300))
    runner = Runner(
        folder=folder,
        executor=FakeExecutor(world, clock),
        clock=clock,
        gpus=gpus,
        record_ms=1_000,
        output_waiting_bytes_max=1 << 20,
        traces=traces,
    )
    facts = HostFacts(
        hostname="h",
        cpu_count=1,
        memory_bytes=1 << 30,
        disk_free_bytes=1 << 30,
        gpus=gpus.inventory.gpus,
        gpu_healths={"g": HEALTHY},
        isolation=AgentIsolation.CONTAINER,
        executor="fake",
        driver_version="",
        cuda_version="",
        region="",
        labels={},
    )
    hello = Hello(
        agent_version="0",
        boot_id=clock.boot_id,
        facts=facts,
        terms=Terms(
            gpu_hour_prices_micro={"fake": 1_000_000}, run_ms_max=0, trusted_accounts=(), reclaim_notice_ms=0
        ),
    )
    link = Link(
        open_channel=lambda: open_channel(
            market.settings.hosts, who.authority_pem, who.key_pem, who.certificate_pem
        ),
        hello=lambda: hello,
        holder=runner,
        clock=clock,
        traces=traces,
    )
    runner.tell(link)
    await runner.restore()
    loops = (link.run(), runner.keep_reconciling(), _in_step(market))
    return runner, [asyncio.create_task(loop) for loop in loops]


async def _in_step(market: Running) -> None:
    """The coordinator's clock goes as that of the agent, which is the real one."""
    clock = SystemClock()
    before_ms = clock.boot_ms()
    while True:
        await clock.sleep_ms(10)
        now_ms = clock.boot_ms()
        market.clock.advance(now_ms - before_ms)
        before_ms = now_ms


def wish() -> JobSpec:
    return JobSpec(
        name="job",
        image="tiny:1",
        command=("true",),
        env=(),
        gpus=GpuRequest(),
        isolation_min=Isolation.CONTAINER,
        gpu_hour_price_micro_max=0,
        budget_micro=1_000_000,
        run_ms_max=60_000,
        stop_grace_ms=500,
        retries_max=0,
    )


def test_a_job_is_one_trace_and_one_request(template: Settings, tmp_path, caplog):
    client, coordinator, agent = (Gathered(name) for name in ("client", "coordinator", "agent"))
    caplog.set_level("INFO")

    async def script(market: Running) -> None:
        runner, loops = await with_agent(market, agent.tracer, tmp_path / "attempts")
        place = Connection(
            target=market.settings.market,
            authority_pem=market.authority_pem,
            token=market.buyer.metadata[0][1].removeprefix("Bearer "),
        )
        try:
            with client.tracer.span("usance", {}) as part_of:
                async with open_market(
                    place, request_id=REQUEST_ID, traces=client.tracer, part_of=part_of
                ) as asks:
                    job = await asks.submit_job(wish(), str(new_uuid()))
                    ended = await asks.wait_job(job.job_id)
                    with pytest.raises(Refused) as refused:
                        await asks.get_job("job_that_is_not")
            assert (ended.state, ended.request_id) == (JobState.SUCCEEDED, REQUEST_ID)
            assert refused.value.request_id == REQUEST_ID
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await runner.close()

    async def whole() -> None:
        async with running(copy_of(template, tmp_path / "data"), coordinator.tracer) as market:
            await script(market)

    asyncio.run(whole())
    root = client.named("usance")
    asked = client.named("usance.v1.MarketService/SubmitJob")
    (served,) = [span for span in coordinator.spans() if span.name == asked.name]
    assert parent(asked) == ids(root)
    assert parent(served) == ids(asked)
    # The job's steps, and the host's part of it, hang on the request that it came from.
    steps = [coordinator.named(name) for name in STEPS]
    assert [parent(step) for step in steps] == [ids(served)] * len(STEPS)
    attempt = agent.named("attempt")
    assert parent(attempt) == ids(served)
    told = steps[-1].attributes
    assert told is not None
    assert (told["request_id"], told["state"]) == (REQUEST_ID, "succeeded")
    assert attempt.attributes is not None
    assert attempt.attributes["attempt_id"] == told["attempt_id"]
    # The stream of the agent is served as a part of the agent's own span.
    stream = agent.named("usance.v1.HostService/Synchronize")
    assert parent(coordinator.named("usance.v1.HostService/Synchronize")) == ids(stream)
    # And in the logs of both: the RPC, what became of the job, and what the host did.
    lines = [record.getMessage() for record in caplog.records if REQUEST_ID in record.getMessage()]
    by_whom = {record.name for record in caplog.records if REQUEST_ID in record.getMessage()}
    assert by_whom == {"coordinator.api.gate", "coordinator.api.trail", "agent.runner", "agent.pipeline"}
    assert any("is succeeded" in line for line in lines)


def test_nothing_is_imported_and_nothing_made_where_it_is_off():
    code = (
        "import sys; import runtime.tracing as t; import coordinator.app, agent.app, cli.client.market;"
        "assert t.open_tracer('x', '') is t.OFF;"
        "assert t.OFF.span('a', {}) is t.OFF.span('b', {});"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    with OFF.span("x", {}) as place:
        assert place == ""


def test_without_the_extra_a_person_is_told_what_lacks(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("opentelemetry")] + ["runtime.otel"]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(TracesError, match=r"pip install 'usance\[otel\]'"):
        open_tracer("usance", "http://127.0.0.1:4317")


def test_spans_come_to_who_takes_otlp():
    came: list[ExportTraceServiceRequest] = []

    class Taker(TraceServiceServicer):
        def Export(self, request, context):  # noqa: N802
            came.append(request)
            return ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(1))
    add_TraceServiceServicer_to_server(Taker(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        tracer = open_tracer("usance-test", f"http://127.0.0.1:{port}")
        with tracer.span("a", {"request_id": "req_1"}) as place:
            tracer.past("b", {}, 5, 9, place=place)
        tracer.close()
    finally:
        server.stop(None)
    found = [spans for request in came for spans in request.resource_spans]
    (spans,) = [scope.spans for each in found for scope in each.scope_spans]
    assert [(span.name, span.trace_id.hex() in place) for span in spans] == [("b", True), ("a", True)]
    assert (spans[0].start_time_unix_nano, spans[0].end_time_unix_nano) == (5_000_000, 9_000_000)


def test_a_place_is_believed_only_in_its_own_form():
    good = f"00-{'a' * 32}-{'b' * 16}-01"
    assert place_in([("x", "y"), ("traceparent", good)]) == good
    for bad in ("", good + "\n", good.upper(), "01" + good[2:], good + "0", b"x"):
        assert place_in([("traceparent", bad)]) == ""
    assert place_in(None) == ""
