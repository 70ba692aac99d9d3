"""The training curve as a small SVG: losses and dev CIDEr-D over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 640, 200, 56, 34, 64
_COLOURS = {"train_loss": "#888", "dev_loss": "#d55e00", "dev_cider_d": "#0072b2"}
_WITH_LOSS = ("cross_entropy", "fine_tune")
_STYLE = "text { font: 12px system-ui, sans-serif; fill: #555 } .frame { fill: none; stroke: #ccc }"


def training_curve(history: Sequence[dict[str, Any]]) -> str:
    """Draw the rows of a run's log; only some phases have a loss, the others log a negated reward."""
    losses = {
        name: [(row["epoch"], row[name]) for row in history if row["phase"] in _WITH_LOSS]
        for name in ("train_loss", "dev_loss")
    }
    cider = {"dev_cider_d": [(row["epoch"], row["dev_cider_d"]) for row in history]}
    last = max(len(history), 2)
    charts = [_chart(losses, last, _TOP), _chart(cider, last, _TOP + _HEIGHT + _GAP)]
    marks = _phases(history, last)
    size = f'viewBox="0 0 {_WIDTH + _LEFT + 24} {_TOP + 2 * _HEIGHT + _GAP + 40}"'
    style = f"<style>{_STYLE}</style>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{style}{"".join([*marks, *charts])}</svg>\n'


def _x(epoch: float, last: int) -> float:
    return round(_LEFT + (epoch - 1) / (last - 1) * _WIDTH, 1)


def _chart(series: dict[str, list[tuple[int, float]]], last: int, top: float) -> str:
    values = [value for points in series.values() for _, value in points]
    if not values:
        return ""
    low, high = min(values), max(values)
    spread = high - low or 1.0

    def y(value: float) -> float:
        return round(top + (high - value) / spread * _HEIGHT, 1)

    def label(x: float, at: float, text: str, anchor: str) -> str:
        return f'<text x="{x}" y="{round(at, 1)}" text-anchor="{anchor}">{text}</text>'

    parts = [f'<rect class="frame" x="{_LEFT}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}"/>']
    parts += [label(_LEFT - 6, y(value) + 4, f"{value:.3g}", "end") for value in (low, high)]
    parts += [label(_x(epoch, last), top + _HEIGHT + 16, str(epoch), "middle") for epoch in (1, last)]
    for number, (name, points) in enumerate(series.items()):
        parts.append(_line(name, [(_x(epoch, last), y(value)) for epoch, value in points], top, number))
    return "".join(parts)


def _line(name: str, points: list[tuple[float, float]], top: float, number: int) -> str:
    colour = _COLOURS[name]
    path = " ".join(f"{x},{y}" for x, y in points)
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in points)
    place = _LEFT + _WIDTH - 8 - 96 * number
    key = f'<text x="{place}" y="{top + 16}" text-anchor="end" style="fill:{colour}">{name}</text>'
    return f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>{dots}{key}'


def _phases(history: Sequence[dict[str, Any]], last: int) -> list[str]:
    starts = {row["phase"]: row["epoch"] for row in reversed(history)}
    return [
        f'<text x="{_x(epoch, last)}" y="{_TOP - 12}">{escape(phase)}</text>'
        for phase, epoch in starts.items()
    ]
