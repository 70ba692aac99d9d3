"""One simulated run as an SVG: images that wait above, workers below, over the hours."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH, HEIGHT, LEFT, TOP, GAP = 720, 150, 70, 30, 50
POINTS = 700


def draw(title: str, backlog: Sequence[float], workers: Sequence[int], step_s: float) -> str:
    """Return the SVG of a run sampled every ``step_s`` seconds."""
    hours = len(backlog) * step_s / 3600
    upper = _chart(TOP, "images waiting", backlog, "#2563eb")
    lower = _chart(TOP + HEIGHT + GAP, "workers", workers, "#b45309")
    bottom = TOP + 2 * HEIGHT + GAP
    ticks = "".join(
        f'<text x="{LEFT + WIDTH * number / 6:.0f}" y="{bottom + 18}" text-anchor="middle">'
        f"{hours * number / 6:.1f} h</text>"
        for number in range(7)
    )
    size = f"{LEFT + WIDTH + 20} {bottom + 30}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="{LEFT}" y="18" font-weight="bold">{title}</text>'
        f"{upper}{lower}{ticks}</svg>\n"
    )


def _chart(top: int, label: str, values: Sequence[float], colour: str) -> str:
    most = max(values, default=0) or 1
    # The largest of each group: a short peak must not fall between two points.
    group = max(1, len(values) // POINTS)
    peaks = [max(values[start : start + group]) for start in range(0, len(values), group)]
    across = WIDTH / max(1, len(peaks) - 1)
    points = " ".join(
        f"{LEFT + number * across:.1f},{top + HEIGHT * (1 - value / most):.1f}"
        for number, value in enumerate(peaks)
    )
    return (
        f'<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#cbd5e1"/>'
        f'<text x="{LEFT - 6}" y="{top + 12}" text-anchor="end">{most:,.0f}</text>'
        f'<text x="{LEFT - 6}" y="{top + HEIGHT}" text-anchor="end">0</text>'
        f'<text x="{LEFT + 6}" y="{top + 14}" fill="{colour}">{label}</text>'
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    )
