"""GPUs of which a script tells. They keep the contract of the real ones."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from agent.domain.gpu import (
    Depth,
    GpuFault,
    GpuInfo,
    GpuReading,
    GpuSample,
    GpuVitals,
    Inventory,
    Look,
    XidSeen,
)


class FakeGpus:
    """GPUs at rest, until a test changes what they tell."""

    restarts = 0

    def __init__(self, *uuids: str) -> None:
        self.infos = [
            GpuInfo(uuid=uuid, model="fake", vram_bytes=24 << 30, simulated=False, compute_capability="8.9")
            for uuid in uuids
        ]
        self.boards: list[GpuInfo] = []
        self.faults: dict[str, GpuFault] = {}
        self.samples: dict[str, GpuSample] = {}
        self.processes: dict[str, tuple[int, ...]] = {}
        self.vitals: dict[str, GpuVitals] = {}
        self.xids: list[XidSeen] = []
        # Nothing comes back of these, as when the process that asks the driver is away.
        self.mute: set[str] = set()
        # Every look that was asked for.
        self.looks: list[dict[str, frozenset[Depth]]] = []

    def divide(self, *slices: str) -> None:
        """Make slices of the first GPU, to be sold in its place."""
        board = self.infos.pop(0)
        self.boards.append(board)
        self.infos = [
            *(replace(board, uuid=uuid, vram_bytes=10 << 30, board_uuid=board.uuid) for uuid in slices),
            *self.infos,
        ]

    async def open(self) -> Inventory:
        return Inventory(
            driver_version="1", cuda_version="2", gpus=tuple(self.infos), boards=tuple(self.boards)
        )

    async def look(self, wanted: Mapping[str, Collection[Depth]]) -> Look:
        self.looks.append({uuid: frozenset(depth) for uuid, depth in wanted.items()})
        known = {info.uuid for info in (*self.infos, *self.boards)} - self.mute
        xids, self.xids = self.xids, []
        readings = tuple(self._read(uuid, depth) for uuid, depth in wanted.items() if uuid in known)
        return Look(readings=readings, xids=tuple(xids))

    async def close(self) -> None:
        """There is nothing to let go of."""

    def _read(self, uuid: str, depth: Collection[Depth]) -> GpuReading:
        if uuid in self.faults:
            return GpuReading(uuid=uuid, fault=self.faults[uuid])
        sample = self.samples.get(uuid, GpuSample(uuid=uuid, utilization_percent=0, memory_used_bytes=0))
        return GpuReading(
            uuid=uuid,
            sample=sample if Depth.SAMPLE in depth else None,
            processes=self.processes.get(uuid, ()) if Depth.PROCESSES in depth else None,
            vitals=self.vitals.get(uuid, GpuVitals()) if Depth.VITALS in depth else None,
        )
