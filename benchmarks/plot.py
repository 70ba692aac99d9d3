"""Where one core's time goes in a saturated worker, as an SVG bar."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

WIDTH, HEIGHT, BAR = 760, 96, 44
COLOURS = ("#2f6f9f", "#4f9d69", "#c98b2b", "#d9d9d9")


def occupancy(path: Path, stages: Mapping[str, float], rate: float) -> None:
    """Draw each stage's share of the core: its milliseconds per image times images per second."""
    shares = {stage: spent * rate / 1000 for stage, spent in stages.items()}
    shares["idle, or other processes"] = max(0.0, 1 - sum(shares.values()))
    parts, left = [], 0.0
    for share, colour in zip(shares.values(), COLOURS, strict=True):
        width = share / max(1.0, sum(shares.values())) * WIDTH
        parts.append(f'<rect x="{left:.1f}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>')
        left += width
    legend = "   ".join(f"{stage} {share:.0%}" for stage, share in shares.items())
    keys = "".join(
        f'<rect x="{190 * at}" y="62" width="10" height="10" fill="{colour}"/>'
        f'<text x="{190 * at + 15}" y="71">{stage} {share:.0%}</text>'
        for at, ((stage, share), colour) in enumerate(zip(shares.items(), COLOURS, strict=True))
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" role="img"'
    style = 'font-family="sans-serif" font-size="12"'
    svg = f'{head} aria-label="{legend}" {style}>{"".join(parts)}{keys}</svg>\n'
    path.write_text(svg, encoding="utf-8")
