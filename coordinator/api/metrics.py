"""What an operator's Prometheus reads: how the RPCs go, how the market stands, and what it stands on.

A label's values are words of ours (states, causes, methods of the contract), never what a buyer or a seller
has chosen: strangers can't make series. Nothing here asks the database when it is read; what only that knows
is looked up now and then (`Survey` in `survey.py`).
"""

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from coordinator.domain.host import HostState
from coordinator.domain.states import JOB_LIVE, JOB_TERMINAL, Cause, EndReason
from ledger.entries import TransferKind

# From a read that is served from memory to one that waited for a whole crowd.
_RPC_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_TRANSACTION_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
# From at once to a day: a job waits for a host, and then for its image.
_WAIT_SECONDS = (0.1, 0.5, 1, 2.5, 5, 15, 30, 60, 120, 300, 900, 3_600, 14_400, 86_400)
# Of the states of a host, those that say how it is heard.
LINKS = (HostState.ONLINE, HostState.SUSPECT, HostState.LOST)


class GpuState(StrEnum):
    """What a GPU that has a price is doing."""

    FREE = "free"
    SOLD = "sold"
    AWAY = "away"


class Metrics:
    """One registry for each program, none for the process: tests make their own."""

    def __init__(self) -> None:
        # Else each counter has a second series: when it began, which Prometheus sees by itself.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._rpc_figures()
        self._market_figures()
        self._money_figures()
        self._database_figures()
        self._ground_figures()
        ProcessCollector(registry=self.registry)

    def page(self) -> str:
        return generate_latest(self.registry).decode()

    def note_aside(self, kind: str) -> None:
        self.set_aside.labels(kind).inc()

    def _rpc_figures(self) -> None:
        self.rpcs = self._counter("rpcs", "RPCs that ended, by how.", ("method", "code"))
        self.rpc_seconds = self._histogram(
            "rpc_duration_seconds",
            "Time from a unary RPC's arrival to its answer.",
            _RPC_SECONDS,
            ("method",),
        )
        self.streams = self._gauge("rpc_streams", "Streams that are open now.", ("method",))

    def _market_figures(self) -> None:
        self.submitted = self._counter("jobs_submitted", "Jobs that were taken in, their money held.")
        self.jobs = self._gauge("jobs", "Jobs that have not ended, by state.", ("state",), JOB_LIVE)
        self.ended = self._counter("jobs_ended", "Jobs that ended, by state and cause.", ("state", "cause"))
        for state in sorted(JOB_TERMINAL):
            for cause in Cause:
                self.ended.labels(state, cause)
        self.attempts_ended = self._counter(
            "attempts_ended", "Tries of jobs that ended, by reason.", ("reason",), EndReason
        )
        self.queue_age = self._gauge("queue_age_seconds", "How long the job has waited that waits longest.")
        self.queue_seconds = self._histogram(
            "job_queue_seconds", "From a job's queueing to a host for it.", _WAIT_SECONDS
        )
        self.start_seconds = self._histogram(
            "job_start_seconds", "From a job's queueing to its command running.", _WAIT_SECONDS
        )
        self.hosts = self._gauge("hosts", "Hosts by what buyers are told of them.", ("state",), HostState)
        self.link_changes = self._counter(
            "host_link_changes",
            "How often a host came to be heard (online), not heard for a while (suspect), given up (lost).",
            ("state",),
            LINKS,
        )
        self.gpus = self._gauge(
            "gpus",
            "GPUs that have a price: free, sold, or away because their host takes no jobs now.",
            ("state",),
            GpuState,
        )
        self.gpu_billed = self._counter("gpu_billed_seconds", "Run time that was charged, times GPUs.")
        self.gpu_unbilled = self._counter(
            "gpu_unbilled_seconds",
            "Run time that ended tries reported and that was not charged, because nobody witnessed or nobody"
            " owed it, times GPUs.",
        )
        self.agents = self._gauge("agents_connected", "Agents that have a stream here now.")

    def _money_figures(self) -> None:
        self.moved = self._counter(
            "credits_moved", "Credits that changed accounts, by kind of transfer.", ("kind",), TransferKind
        )
        self.transfers = self._gauge("ledger_transfers", "Transfers in the ledger.")
        self.unsealed = self._gauge("ledger_unsealed_transfers", "Of these, those that no seal covers yet.")
        self.settlement_lag = self._gauge(
            "settlement_lag_seconds",
            "Of the running try whose usage is furthest behind: run time reported and not settled.",
        )
        self.audited = self._counter("audited_jobs", "Jobs that the running audit has looked at.")
        self.audit_at = self._gauge("audit_timestamp_seconds", "When the running audit last ended a look.")
        self.violations = self._counter(
            "audit_violations",
            "Promises that the running audit found broken: anything but 0 is for a person to look at, now.",
        )
        self.mended = self._counter(
            "mended",
            "What upkeep put right: tries of lost hosts (orphan), money held by ended jobs (leftover).",
            ("kind",),
            ("orphan", "leftover"),
        )
        self.set_aside = self._counter(
            "set_aside",
            "Hosts, jobs and attempts left alone for a while, because what was to be done with them failed.",
            ("kind",),
            ("host", "job", "attempt", "reclaim", "row"),
        )

    def _database_figures(self) -> None:
        self.transaction_seconds = self._histogram(
            "database_transaction_duration_seconds",
            "Time of a transaction, its commit with it; a write's is shared by all who wrote together.",
            _TRANSACTION_SECONDS,
            ("kind",),
        )
        self.writes_waiting = self._gauge("database_writes_waiting", "Writes that wait for the writer.")
        self.connections = self._gauge("database_connections", "Connections that are in use now.")
        self.database_bytes = self._gauge("database_size_bytes", "What the database takes.")
        self.wal_bytes = self._gauge("database_wal_bytes", "SQLite's write-ahead log; 0 with PostgreSQL.")
        self.surveyed_at = self._gauge(
            "survey_timestamp_seconds", "When what only the database knows was last looked up."
        )

    def _ground_figures(self) -> None:
        self.info = self._gauge("coordinator_info", "The coordinator itself.", ("version", "database"))
        self.certificate_ends = self._gauge(
            "certificate_expiry_timestamp_seconds",
            "When a certificate ends: of the authority, and of this run of the server.",
            ("certificate",),
        )
        self.disk = self._gauge("disk_size_bytes", "The disk of the data folder.")
        self.disk_free = self._gauge("disk_free_bytes", "What of it is free.")
        self.backup_at = self._gauge(
            "backup_timestamp_seconds", "When the last backup that is known of was made; 0: none."
        )

    def _counter(
        self, name: str, text: str, labels: Sequence[str] = (), values: Iterable[str] = ()
    ) -> Counter:
        made = Counter(f"usance_{name}", text, labels, registry=self.registry)
        _begin(made.labels, values)
        return made

    def _gauge(self, name: str, text: str, labels: Sequence[str] = (), values: Iterable[str] = ()) -> Gauge:
        made = Gauge(f"usance_{name}", text, labels, registry=self.registry)
        _begin(made.labels, values)
        return made

    def _histogram(
        self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        return Histogram(f"usance_{name}", text, labels, buckets=buckets, registry=self.registry)


def _begin(labels: Callable[[str], object], values: Iterable[str]) -> None:
    """At 0, so that the first of its kind is seen as a rise."""
    for value in sorted(values):
        labels(value)
