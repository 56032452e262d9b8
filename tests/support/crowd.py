"""Many agents in one process: the agent's own link, and behind it a run that is only counted.

    python -m tests.support.crowd FLEET_JSON HOST:PORT RECORD_MS

Says `connected` when all of them are; told `finish`, it makes no more records, waits until all are
acknowledged, and says as JSON what came of it. FLEET_JSON is what `benchmarks.ground` writes.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from agent.domain.attempt import (
    Acknowledgement,
    AttemptKey,
    AttemptReport,
    AttemptState,
    DesiredAttempt,
    Isolation,
    OutputChunk,
)
from agent.domain.gpu import GpuInfo
from agent.domain.host import Hello, HostFacts, Terms
from agent.link.client import Link
from benchmarks.ground import BOOT_ID, MODEL, gpu_uuid
from runtime.channel import client_options
from runtime.clock import SystemClock
from runtime.evidence import GpuUse, UsageRecord, chain_start, make_record

# Else gRPC would let agents share a connection.
_OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
CLOCK = SystemClock()
BEGAN_MS = CLOCK.boot_ms()
ACKNOWLEDGED_MS_MAX = 60_000


@dataclass
class Noticed:
    """What a whole crowd saw."""

    made: int = 0
    acknowledged: int = 0
    connections: int = 0
    # The longest that an agent was told nothing.
    silent_ms_max: int = 0
    # What no job should notice.
    unwanted: list[str] = field(default_factory=list)


class Light:
    """A host with one run, which began long ago."""

    def __init__(self, attempt_id: str, record_ms: int) -> None:
        self.key = AttemptKey(attempt_id=attempt_id, epoch=1)
        self.unacknowledged: list[UsageRecord] = []
        self.acknowledged_number = 0
        self.made = 0
        self.told = asyncio.Event()
        self.unwanted = ""
        self.silent_ms_max = 0
        self._heard_ms = 0
        self._record_ms = record_ms
        self._digest = chain_start(attempt_id, 1)

    def make(self) -> None:
        use = GpuUse(gpu_uuid=gpu_uuid(self.key.attempt_id), utilization_percent=90)
        start_ms = self.made * self._record_ms
        record = make_record(self._digest, self.made + 1, start_ms, start_ms + self._record_ms, [use])
        self._digest, self.made = record.digest, record.number
        self.unacknowledged.append(record)

    async def apply(self, desired: Sequence[DesiredAttempt], *, is_first: bool = False) -> None:
        now_ms = CLOCK.boot_ms()
        if self._heard_ms:
            self.silent_ms_max = max(self.silent_ms_max, now_ms - self._heard_ms)
        self._heard_ms = now_ms
        mine = [wanted for wanted in desired if wanted.order.key == self.key]
        if not mine or mine[0].stop_reason is not None:
            self.unwanted = f"{self.key}: wanted {desired}"
        self.told.set()

    async def acknowledge(self, acknowledged: Acknowledgement) -> None:
        number = acknowledged.usage_number
        if number > self.made:
            self.unwanted = f"{self.key}: record {number} is acknowledged of {self.made}"
        self.acknowledged_number = max(self.acknowledged_number, number)
        self.unacknowledged = [record for record in self.unacknowledged if record.number > number]

    def reports(self) -> tuple[AttemptReport, ...]:
        report = AttemptReport(
            key=self.key,
            state=AttemptState.RUNNING,
            container_id=self.key.attempt_id,
            run_ms=CLOCK.boot_ms() - BEGAN_MS,
            detail="runs",
            ending=None,
        )
        return (report,)

    def keys(self) -> tuple[AttemptKey, ...]:
        return (self.key,)

    def usage_after(self, key: AttemptKey, number: int, count_max: int) -> tuple[UsageRecord, ...]:
        assert key == self.key
        return tuple(record for record in self.unacknowledged if record.number > number)[:count_max]

    def output_from(self, key: AttemptKey, offset: int, bytes_max: int) -> tuple[OutputChunk, ...]:
        return ()

    def acknowledged(self, key: AttemptKey) -> tuple[int, int]:
        assert key == self.key
        return self.acknowledged_number, 0


class Crowd:
    def __init__(self, fleet: dict[str, Any], target: str, record_ms: int) -> None:
        self._record_ms = record_ms
        self._connections = 0
        self._pairs = [self._agent(fleet, target, agent) for agent in fleet["agents"]]

    def _agent(self, fleet: dict[str, Any], target: str, agent: dict[str, Any]) -> tuple[Light, Link]:
        light = Light(agent["attempts"][0], self._record_ms)
        pems = [fleet["authority_pem"], fleet["key_pem"], agent["certificate_pem"]]
        credentials = grpc.ssl_channel_credentials(*(pem.encode() for pem in pems))

        def open_channel() -> grpc.aio.Channel:
            self._connections += 1
            return grpc.aio.secure_channel(target, credentials, options=[*client_options(), _OWN_CONNECTION])

        hello = _hello(light.key.attempt_id)
        return light, Link(open_channel=open_channel, hello=lambda: hello, holder=light, clock=CLOCK)

    async def live(self) -> Noticed:
        loop, finish = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(sys.stdin.fileno(), finish.set)
        links = [asyncio.create_task(link.run()) for _, link in self._pairs]
        for light, _ in self._pairs:
            await light.told.wait()
        for light, _ in self._pairs:
            light.silent_ms_max = 0
        print("connected", flush=True)
        working = [asyncio.create_task(self._work(index, finish)) for index in range(len(self._pairs))]
        await asyncio.gather(*working)
        for link in links:
            link.cancel()
        return Noticed(
            made=sum(light.made for light, _ in self._pairs),
            acknowledged=sum(light.acknowledged_number for light, _ in self._pairs),
            connections=self._connections,
            silent_ms_max=max(light.silent_ms_max for light, _ in self._pairs),
            unwanted=[light.unwanted for light, _ in self._pairs if light.unwanted],
        )

    async def _work(self, index: int, finish: asyncio.Event) -> None:
        """Records at a phase of its own; at the end all must be acknowledged."""
        light, link = self._pairs[index]
        await asyncio.sleep(self._record_ms * index / len(self._pairs) / 1_000)
        while not finish.is_set():
            light.make()
            link.evidence()
            await asyncio.sleep(self._record_ms / 1_000)
        # What is not acknowledged by then is missing in what we say.
        last_ms = CLOCK.boot_ms() + ACKNOWLEDGED_MS_MAX
        while light.acknowledged_number < light.made and CLOCK.boot_ms() < last_ms:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)


def _hello(attempt_id: str) -> Hello:
    uuid = gpu_uuid(attempt_id)
    gpu = GpuInfo(uuid=uuid, model=MODEL, vram_bytes=80 << 30, simulated=True, compute_capability="")
    return Hello(
        agent_version="0.1.0",
        boot_id=BOOT_ID,
        facts=HostFacts(
            hostname="crowd",
            cpu_count=8,
            memory_bytes=1 << 36,
            disk_free_bytes=1 << 40,
            gpus=(gpu,),
            isolation=Isolation.CONTAINER,
            executor="counted",
            driver_version="",
            cuda_version="",
            region="",
            labels={},
        ),
        terms=Terms(gpu_hour_prices_micro={}, run_ms_max=0, trusted_accounts=(), reclaim_notice_ms=0),
    )


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    told = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps(asdict(asyncio.run(Crowd(told, sys.argv[2], int(sys.argv[3])).live()))), flush=True)
