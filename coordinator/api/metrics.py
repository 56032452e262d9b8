"""What an operator's Prometheus reads: how the RPCs go, and how the market stands."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """One registry for each program, none for the process: tests make their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.rpcs = Counter(
            "usance_rpcs_total",
            "RPCs answered, by method and by the status they ended with.",
            ("method", "status"),
            registry=self.registry,
        )
        self.rpc_seconds = Histogram(
            "usance_rpc_seconds",
            "Time from a unary RPC's arrival to its answer.",
            ("method",),
            buckets=_FAST,
            registry=self.registry,
        )
        self.audited = Counter(
            "usance_audited_jobs_total",
            "Jobs that the running audit has looked at.",
            registry=self.registry,
        )
        self.violations = Counter(
            "usance_audit_violations_total",
            "Promises that the running audit found broken: anything but 0 is for a person to look at, now.",
            registry=self.registry,
        )
        self.mended = Counter(
            "usance_mended_total",
            "What upkeep had to put right, by kind: attempts of lost hosts, money held by ended jobs.",
            ("kind",),
            registry=self.registry,
        )
        self.streams = Gauge(
            "usance_rpc_streams",
            "Streams that are open now, by method.",
            ("method",),
            registry=self.registry,
        )
        self.set_aside = Counter(
            "usance_set_aside_total",
            "Hosts, jobs and attempts left alone for a while, because what was to be done with them failed.",
            ("kind",),
            registry=self.registry,
        )

    def note_aside(self, kind: str) -> None:
        self.set_aside.labels(kind).inc()
