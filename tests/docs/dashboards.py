"""The dashboards of packaging/grafana/, from the tables below: `make docs` writes them.

A test beside this file fails when what is committed is not what this would write; another puts each query to
a real Prometheus.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "packaging" / "grafana" / "dashboards"
# Grafana's rows are 24 wide.
WIDTH_MAX = 24
STAT_HEIGHT, CHART_HEIGHT = 4, 8


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture: `queries` are PromQL, and how each line is named."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    text: str = ""
    width: int = 8
    kind: str = "timeseries"

    @property
    def height(self) -> int:
        return STAT_HEIGHT if self.kind == "stat" else CHART_HEIGHT


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """For whom, and what they see."""

    name: str
    title: str
    text: str
    panels: Sequence[Panel]
    # Of the agents alone: chosen above the pictures.
    by_host: bool = False


def stat(title: str, query: str, unit: str = "short", text: str = "") -> Panel:
    return Panel(title=title, queries=((query, ""),), unit=unit, text=text, width=4, kind="stat")


def quantiles(name: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"histogram_quantile({part}, sum by (le) (rate({name}_bucket[$__rate_interval])))", label)
        for part, label in (("0.5", "half of them"), ("0.9", "9 of 10"), ("0.99", "99 of 100"))
    )


def every(query: str, legend: str) -> tuple[tuple[str, str]]:
    return ((query, legend),)


_ALERTS = Panel(
    title="Alerts that fire",
    queries=every('sum by (alertname) (ALERTS{alertstate="firing"})', "{{alertname}}"),
    text="docs/alerts.md says what to do about each.",
)
_WAITS = Panel(
    title="Time to start",
    queries=quantiles("usance_job_start_seconds"),
    unit="s",
    text="From queueing to the command running: waiting for a host, and its getting the image.",
)
_SOLD = 'sum(usance_gpus{state="sold"}) / sum(usance_gpus{state=~"sold|free"})'

OPERATOR = Dashboard(
    name="operator",
    title="Usance: the market",
    text="Everything that the coordinator tells.",
    panels=(
        stat("Broken promises", "sum(usance_audit_violations_total)", text="Anything but 0: look now."),
        stat("Hosts online", 'sum(usance_hosts{state="online"})'),
        stat("GPUs sold", _SOLD, "percentunit"),
        stat("Jobs waiting", 'sum(usance_jobs{state="queued"})'),
        stat("Longest wait", "max(usance_queue_age_seconds)", "s"),
        stat("Settling is behind by", "max(usance_settlement_lag_seconds)", "s"),
        Panel(title="Jobs", queries=every("sum by (state) (usance_jobs)", "{{state}}")),
        Panel(
            title="Jobs that ended, an hour",
            queries=every(
                "sum by (state, cause) (rate(usance_jobs_ended_total[$__rate_interval])) * 3600",
                "{{state}}, {{cause}}",
            ),
        ),
        _WAITS,
        Panel(title="Hosts", queries=every("sum by (state) (usance_hosts)", "{{state}}")),
        Panel(title="GPUs", queries=every("sum by (state) (usance_gpus)", "{{state}}")),
        Panel(
            title="Credits moved, an hour",
            queries=every(
                "sum by (kind) (rate(usance_credits_moved_total[$__rate_interval])) * 3600", "{{kind}}"
            ),
        ),
        Panel(
            title="GPU time, GPUs' worth",
            queries=(
                ("sum(rate(usance_gpu_billed_seconds_total[$__rate_interval]))", "billed"),
                ("sum(rate(usance_gpu_unbilled_seconds_total[$__rate_interval]))", "not billed"),
            ),
        ),
        Panel(
            title="RPCs a second",
            queries=every("sum by (code) (rate(usance_rpcs_total[$__rate_interval]))", "{{code}}"),
            unit="reqps",
        ),
        Panel(title="RPCs: time to answer", queries=quantiles("usance_rpc_duration_seconds"), unit="s"),
        Panel(
            title="Transactions: 99 of 100 within",
            queries=every(
                "histogram_quantile(0.99, sum by (le, kind)"
                " (rate(usance_database_transaction_duration_seconds_bucket[$__rate_interval])))",
                "{{kind}}",
            ),
            unit="s",
        ),
        Panel(
            title="Database",
            queries=(
                ("usance_database_size_bytes", "database"),
                ("usance_database_wal_bytes", "write-ahead log"),
                ("usance_disk_free_bytes", "free on its disk"),
            ),
            unit="bytes",
        ),
        Panel(
            title="Writes that wait",
            queries=(
                ("usance_database_writes_waiting", "writes"),
                ("usance_database_connections", "connections in use"),
            ),
        ),
        Panel(
            title="Memory and processor",
            queries=(
                ('process_resident_memory_bytes{job="usance-coordinator"} / 2^30', "memory, GiB"),
                (
                    'rate(process_cpu_seconds_total{job="usance-coordinator"}[$__rate_interval])',
                    "processors in use",
                ),
            ),
        ),
        Panel(
            title="Days until a certificate ends",
            queries=every(
                "(usance_certificate_expiry_timestamp_seconds - time()) / 86400", "{{certificate}}"
            ),
        ),
        _ALERTS,
    ),
)

_OF_HOST = '{host=~"$host"}'
SELLER = Dashboard(
    name="seller",
    title="Usance: my machines",
    text="What the agents of a seller tell.",
    by_host=True,
    panels=(
        stat("Connected", f"min(usance_agent_connected{_OF_HOST})"),
        stat("GPUs sold", 'sum(usance_agent_gpus{host=~"$host", state="sold"})'),
        stat("GPUs free", 'sum(usance_agent_gpus{host=~"$host", state="free"})'),
        stat("GPUs unfit", 'sum(usance_agent_gpus{host=~"$host", state="unfit"})'),
        stat("Records that wait", f"sum(usance_agent_unacknowledged_records{_OF_HOST})"),
        stat(
            "Certificate ends in",
            f"min(usance_agent_certificate_expiry_timestamp_seconds{_OF_HOST} - time())",
            "s",
        ),
        Panel(
            title="GPU utilisation",
            queries=every(f"usance_gpu_utilization_ratio{_OF_HOST}", "{{gpu}}"),
            unit="percentunit",
        ),
        Panel(
            title="GPU memory in use",
            queries=every(f"usance_gpu_memory_used_bytes{_OF_HOST}", "{{gpu}}"),
            unit="bytes",
        ),
        Panel(title="GPU power", queries=every(f"usance_gpu_power_watts{_OF_HOST}", "{{gpu}}"), unit="watt"),
        Panel(
            title="GPU temperature",
            queries=every(f"usance_gpu_temperature_celsius{_OF_HOST}", "{{gpu}}"),
            unit="celsius",
        ),
        Panel(
            title="Jobs: how long they have run",
            queries=every(f"usance_job_run_seconds{_OF_HOST}", "{{exported_job}}"),
            unit="s",
        ),
        Panel(
            title="Errors of GPUs, an hour",
            queries=every(f"increase(usance_gpu_xids_total{_OF_HOST}[1h])", "{{gpu}}, number {{xid}}"),
        ),
        Panel(
            title="What waits for the coordinator",
            queries=(
                (f"usance_agent_journal_bytes{_OF_HOST}", "usage records"),
                (f"usance_agent_spool_bytes{_OF_HOST}", "output of jobs"),
            ),
            unit="bytes",
        ),
        Panel(
            title="Meter and link",
            queries=(
                (f"usance_agent_meter_lag_seconds{_OF_HOST}", "the meter is behind, s"),
                (f"increase(usance_agent_connections_total{_OF_HOST}[1h])", "connections in an hour"),
            ),
        ),
        Panel(
            title="The machine",
            queries=(
                (f"usance_host_load1{_OF_HOST}", "load"),
                (f"usance_host_memory_available_bytes{_OF_HOST} / 2^30", "memory to be had, GiB"),
                (f"usance_host_disk_free_bytes{_OF_HOST} / 2^30", "disk free, GiB"),
            ),
        ),
    ),
)

BUYER = Dashboard(
    name="buyer",
    title="Usance: what buyers meet",
    text="How the market does, for buyers to see. It knows nobody's jobs: for your own, `usance top`.",
    panels=(
        stat("GPUs free", 'sum(usance_gpus{state="free"})'),
        stat("GPUs sold", _SOLD, "percentunit"),
        stat("Jobs waiting", 'sum(usance_jobs{state="queued"})'),
        stat("Longest wait", "max(usance_queue_age_seconds)", "s"),
        stat("Jobs running", 'sum(usance_jobs{state="running"})'),
        stat("Hosts online", 'sum(usance_hosts{state="online"})'),
        Panel(title="Wait for a host", queries=quantiles("usance_job_queue_seconds"), unit="s", width=12),
        Panel(title=_WAITS.title, queries=_WAITS.queries, unit="s", text=_WAITS.text, width=12),
        Panel(title="GPUs", queries=every("sum by (state) (usance_gpus)", "{{state}}")),
        Panel(
            title="Who ended jobs, an hour",
            queries=every(
                "sum by (cause) (rate(usance_jobs_ended_total[$__rate_interval])) * 3600", "{{cause}}"
            ),
            text="The buyer, the host, the market itself, or nobody knows: the cause decides who pays.",
        ),
        Panel(
            title="Tries that hosts lost, an hour",
            queries=every(
                'sum by (reason) (rate(usance_attempts_ended_total{reason=~"host_.*|gpu_lost|reclaimed"}'
                "[$__rate_interval])) * 3600",
                "{{reason}}",
            ),
        ),
    ),
)

DASHBOARDS = (OPERATOR, SELLER, BUYER)


def files() -> dict[Path, str]:
    return {
        FOLDER / f"{dashboard.name}.json": json.dumps(_json(dashboard), indent=1) + "\n"
        for dashboard in DASHBOARDS
    }


def _json(dashboard: Dashboard) -> dict[str, Any]:
    return {
        "uid": f"usance-{dashboard.name}",
        "title": dashboard.title,
        "description": dashboard.text,
        "tags": ["usance"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables(dashboard)},
        "panels": _panels(dashboard.panels),
    }


def _variables(dashboard: Dashboard) -> list[dict[str, Any]]:
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    host = {
        "name": "host",
        "type": "query",
        "label": "Host",
        "datasource": _SOURCE,
        "query": "label_values(usance_agent_info, host)",
        "includeAll": True,
        "multi": True,
        "refresh": 2,
    }
    return [source, host] if dashboard.by_host else [source]


_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def _panels(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    made, x, y, row_height = list[dict[str, Any]](), 0, 0, 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > WIDTH_MAX:
            x, y, row_height = 0, y + row_height, 0
        place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
        made.append(_panel(panel, number, place))
        x, row_height = x + panel.width, max(row_height, panel.height)
    return made


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }
