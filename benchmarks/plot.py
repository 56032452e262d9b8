"""Two kinds of pictures as SVG: bars around a mark, and curves over time."""

import math
from collections.abc import Mapping, Sequence
from html import escape

_TEXT = 'font-family="sans-serif" font-size="12"'
_ROW, _LABELS, _WIDTH = 20, 460, 980
_GOOD, _BAD, _LINE = "#3a7d44", "#b3402a", "#888"
_COLOURS = ("#3a7d44", "#b3402a", "#2a5fb3", "#8a5a9e", "#b38a2a", "#444")


def bars(title: str, values: Sequence[tuple[str, float]]) -> str:
    """How often each value fits into its mark, on a logarithmic scale: to the right of 1 is better."""
    reach = max([abs(math.log10(value)) for _, value in values] + [0.5]) * 1.1
    middle, scale = (_WIDTH + _LABELS) / 2, (_WIDTH - _LABELS) / 2 / reach
    height = _ROW * (len(values) + 2)
    parts = [_text(8, 15, title, weight="bold")]
    parts.append(f'<line x1="{middle}" y1="{_ROW}" x2="{middle}" y2="{height}" stroke="{_LINE}"/>')
    for number, (name, value) in enumerate(values):
        y = _ROW * (number + 1.5)
        length = math.log10(value) * scale
        x = middle + min(0.0, length)
        colour = _GOOD if value >= 1 else _BAD
        parts.append(_text(8, y + 13, name))
        parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{abs(length):.1f}" height="14" fill="{colour}"/>')
        parts.append(_text(middle + (4 if length < 0 else -40), y + 12, f"{value:.2g}"))
    return _svg(_WIDTH, height, parts)


def curves(title: str, panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]) -> str:
    """One panel for each figure, one curve for each program, over the same minutes."""
    panel = 130
    height = 24 + panel * len(panels)
    parts = [_text(8, 15, title, weight="bold")]
    for number, (name, lines) in enumerate(panels.items()):
        top = 24 + panel * number
        parts += _panel(name, lines, top, panel - 30)
    return _svg(_WIDTH, height, parts)


def _panel(
    name: str, lines: Mapping[str, Sequence[tuple[float, float]]], top: float, height: float
) -> list[str]:
    points = [point for line in lines.values() for point in line]
    last = max([x for x, _ in points] + [1e-9])
    most = max([y for _, y in points] + [1e-9])
    left, right = 170, _WIDTH - 20
    parts = [_text(8, top + 20, name), _text(8, top + 36, f"up to {most:,.4g}")]
    parts.append(
        f'<rect x="{left}" y="{top}" width="{right - left}" height="{height}" fill="none" stroke="{_LINE}"/>'
    )
    for number, (label, line) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        drawn = " ".join(
            f"{left + x / last * (right - left):.1f},{top + height - y / most * height:.1f}" for x, y in line
        )
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}"/>')
        parts.append(_text(8, top + 52 + 14 * number, label, fill=colour))
    return parts


def _text(x: float, y: float, text: str, *, weight: str = "normal", fill: str = "#222") -> str:
    return f'<text x="{x}" y="{y}" {_TEXT} font-weight="{weight}" fill="{fill}">{escape(text)}</text>'


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
    ground = f'<rect width="{width}" height="{height}" fill="white"/>'
    return "\n".join([head, ground, *parts, "</svg>"]) + "\n"
