"""The pictures of docs/dashboards.md: `python -m tests.docs.pictures` (two minutes; `make pictures`).

A real market works, a real Prometheus reads it, and what it answers to the dashboards' own queries is drawn
here, by the few lines below: Grafana itself is not needed, and its looks are not ours to copy.
"""

import math
import tempfile
import time
from collections.abc import Iterable, Sequence
from functools import partial
from html import escape
from pathlib import Path

from cli.client.market import Market
from cli.model import Isolation, JobSpec
from cli.wishes import GpuRequest
from runtime.ids import new_uuid
from tests.docs.dashboards import DASHBOARDS, ROOT, WIDTH_MAX, Dashboard, Panel
from tests.rig.parts import wait_until
from tests.rig.prometheus import Prometheus
from tests.support.market import WholeMarket
from tests.support.watched import watched_market

FOLDER = ROOT / "docs" / "pictures"
# Of a column of the grid, and of a row; a stat is as high as four rows.
COLUMN, ROW, GAP, HEAD = 46, 26, 8, 44
COLOURS = ("#3366cc", "#dc3912", "#109618", "#ff9900", "#990099", "#0099c6", "#dd4477", "#66aa00")
STEP_S = 1
WORK_S, EVERY_S = 90, 3

Point = tuple[float, float]
Line = tuple[str, Sequence[Point]]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        watched_market(Path(folder), gpus=4, every="500ms", hurried=False) as (market, prometheus),
    ):
        began_s = time.time()
        _work(market)
        for dashboard in DASHBOARDS:
            path = FOLDER / f"{dashboard.name}.svg"
            path.write_text(drawn(dashboard, prometheus, began_s, time.time()), encoding="utf-8")


def _work(market: WholeMarket) -> None:
    """Jobs of all kinds, more than fit."""
    end_s, number = time.monotonic() + WORK_S, 0
    while time.monotonic() < end_s:
        seconds, fails = (7, 3, 15, 5)[number % 4], number % 5 == 4
        script = f"for i in $(seq 2000); do echo line $i; done; sleep {seconds}; exit {int(fails)}"
        spec = JobSpec(
            name="picture",
            image="",
            command=("sh", "-c", script),
            env=(),
            gpus=GpuRequest(count=1 + number % 2),
            isolation_min=Isolation.PROCESS,
            gpu_hour_price_micro_max=0,
            budget_micro=60_000_000,
            run_ms_max=60_000,
            stop_grace_ms=500,
            retries_max=0,
        )
        market.ask("buyer", partial(_submit, spec))
        number += 1
        wait_until(partial(_is_past, time.monotonic() + EVERY_S), "it is time for the next")


def _is_past(moment_s: float) -> bool:
    return time.monotonic() >= moment_s


async def _submit(spec: JobSpec, client: Market) -> None:
    await client.submit_job(spec, str(new_uuid()))


def drawn(dashboard: Dashboard, prometheus: Prometheus, start_s: float, end_s: float) -> str:
    parts, x, y, row_height = list[str](), 0, 0, 0
    for panel in dashboard.panels:
        if x + panel.width > WIDTH_MAX:
            x, y, row_height = 0, y + row_height, 0
        lines = list(_asked(panel, prometheus, start_s, end_s))
        place = (x * COLUMN, HEAD + y * ROW, panel.width * COLUMN - GAP, panel.height * ROW - GAP)
        parts.append(_stat(panel, lines, *place) if panel.kind == "stat" else _chart(panel, lines, *place))
        x, row_height = x + panel.width, max(row_height, panel.height)
    return _page(dashboard.title, parts, WIDTH_MAX * COLUMN, HEAD + (y + row_height) * ROW)


def _asked(panel: Panel, prometheus: Prometheus, start_s: float, end_s: float) -> Iterable[Line]:
    for query, legend in panel.queries:
        asked = query.replace("$__rate_interval", "20s").replace("$host", ".*")
        found = prometheus.ask("query_range", query=asked, start=start_s, end=end_s, step=STEP_S)
        for series in found["result"]:
            name = legend
            for label, value in series["metric"].items():
                name = name.replace(f"{{{{{label}}}}}", value)
            points = [(at, float(value)) for at, value in series["values"]]
            yield name, [point for point in points if math.isfinite(point[1])]


def _page(title: str, parts: Iterable[str], width: int, height: int) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="{width}" height="{height}" fill="#f4f5f7"/>\n'
        f'<text x="8" y="28" font-size="18" fill="#222">{escape(title)}</text>\n'
    )
    return head + "".join(f"{part}\n" for part in parts) + "</svg>\n"


def _box(panel: Panel, x: int, y: int, width: int, height: int) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="3" fill="#fff" stroke="#d8d9dd"/>'
        f'<text x="{x + 8}" y="{y + 17}" fill="#333" font-weight="bold">{escape(panel.title)}</text>'
    )


def _stat(panel: Panel, lines: Sequence[Line], x: int, y: int, width: int, height: int) -> str:
    last = next((points[-1][1] for _, points in lines if points), None)
    shown = "no data" if last is None else said(last, panel.unit)
    middle = f'x="{x + width // 2}" y="{y + height // 2 + 22}" text-anchor="middle"'
    return f'{_box(panel, x, y, width, height)}<text {middle} font-size="26" fill="#111">{shown}</text>'


def _chart(panel: Panel, lines: Sequence[Line], x: int, y: int, width: int, height: int) -> str:
    parts, shown = [_box(panel, x, y, width, height)], [line for line in lines if line[1]]
    named = min(len(shown), 4)
    left, top, right, bottom = x + 56, y + 28, x + width - 10, y + height - 10 - 14 * ((named + 1) // 2)
    values = [value for _, points in shown for _, value in points]
    most = max(values, default=0) or 1
    times = [at for _, points in shown for at, _ in points]
    first, span = (min(times), max(max(times) - min(times), 1)) if times else (0.0, 1.0)
    for part in (0, 0.5, 1):
        level = bottom - part * (bottom - top)
        parts.append(f'<path d="M{left} {level:.1f}H{right}" stroke="#e6e7ea"/>')
        parts.append(
            f'<text x="{left - 6}" y="{level + 4:.1f}" text-anchor="end" fill="#666">'
            f"{said(part * most, panel.unit)}</text>"
        )
    most_letters = width // 16
    for number, (name, points) in enumerate(shown):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(
            f"{left + (at - first) / span * (right - left):.1f},{bottom - value / most * (bottom - top):.1f}"
            for at, value in points
        )
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if number < named:
            at_x, at_y = x + 10 + number % 2 * (width // 2), bottom + 16 + 14 * (number // 2)
            label = escape(name if len(name) <= most_letters else name[: most_letters - 1] + "…")
            parts.append(f'<text x="{at_x}" y="{at_y}" fill="{colour}">— {label}</text>')
    if not shown:
        middle = f'x="{x + width // 2}" y="{y + height // 2}" text-anchor="middle"'
        parts.append(f'<text {middle} fill="#888">no data</text>')
    return "".join(parts)


def said(value: float, unit: str) -> str:
    """As short as it may be."""
    if unit == "percentunit":
        return f"{value * 100:.0f} %"
    if unit == "s":
        return _seconds(value)
    if unit == "bytes":
        for name in ("B", "KiB", "MiB", "GiB"):
            if value < 1024 or name == "GiB":
                return f"{value:.3g} {name}"
            value /= 1024
    plain = f"{value:.0f}" if value >= 1_000 else f"{value:.3g}"
    return plain + {"watt": " W", "celsius": " °C", "reqps": "/s"}.get(unit, "")


def _seconds(value: float) -> str:
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value * 1_000:.3g} ms"


if __name__ == "__main__":
    main()
