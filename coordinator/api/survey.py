"""What can't be counted as it happens is looked up now and then: how much there is, and how old it is.

One read of the database by its indexes, a look at the market in memory and a few at the disk; a Prometheus
that reads the figures causes none of them.
"""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

from coordinator.api.edge import Edge
from coordinator.api.metrics import GpuState, Metrics
from coordinator.domain.host import HostState
from coordinator.domain.states import JOB_LIVE
from coordinator.domain.supply import Supply, supply_of
from coordinator.store.ports_books import Vitals

SURVEY_EVERY_MS = 5_000


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Where the coordinator stands."""

    data_dir: Path
    backup_mark: Path


async def survey(edge: Edge, metrics: Metrics, ground: Ground) -> None:
    vitals = await edge.read(lambda tx: tx.vitals())
    supply = await edge.look(lambda index: supply_of(index.machines()))
    total, free, backup_s = await asyncio.to_thread(_look, ground)
    now_ms = edge.clock.wall_ms()
    _show_vitals(metrics, vitals, now_ms)
    _show_supply(metrics, supply)
    metrics.disk.set(total)
    metrics.disk_free.set(free)
    metrics.backup_at.set(backup_s)
    metrics.surveyed_at.set(now_ms / 1_000)


def _look(ground: Ground) -> tuple[int, int, float]:
    disk, mark = shutil.disk_usage(ground.data_dir), ground.backup_mark
    return disk.total, disk.free, mark.stat().st_mtime if mark.exists() else 0


def _show_vitals(metrics: Metrics, vitals: Vitals, now_ms: int) -> None:
    for state in JOB_LIVE:
        metrics.jobs.labels(state).set(vitals.jobs.get(state, 0))
    since_ms = vitals.queued_since_ms
    metrics.queue_age.set(max(0, now_ms - since_ms) / 1_000 if since_ms else 0)
    metrics.settlement_lag.set(vitals.settlement_lag_ms / 1_000)
    metrics.gpus.labels(GpuState.SOLD).set(vitals.gpus_sold)
    metrics.transfers.set(vitals.transfers)
    metrics.unsealed.set(vitals.transfers - vitals.transfers_sealed)
    metrics.database_bytes.set(vitals.database_bytes)
    metrics.wal_bytes.set(vitals.wal_bytes)


def _show_supply(metrics: Metrics, supply: Supply) -> None:
    for state in HostState:
        metrics.hosts.labels(state).set(supply.hosts.get(state, 0))
    metrics.gpus.labels(GpuState.FREE).set(supply.gpus_free)
    metrics.gpus.labels(GpuState.AWAY).set(supply.gpus_away)
