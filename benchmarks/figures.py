"""What a benchmark module reports: figures with the goal they are held to, as a table and as JSON."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Figure:
    """One measured number."""

    name: str
    value: float
    unit: str = ""
    goal: str = ""
    """Such as ``>= 0.90``; empty where the number only explains others."""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; ``None`` without a goal."""
        if not self.goal:
            return None
        sign, bound = self.goal.split()
        return _COMPARISONS[sign](self.value, float(bound.replace(",", "")))


@dataclass(frozen=True)
class Setting:
    """What all modules of one run measure with."""

    model: str
    photos: Path
    """Folder of distinct photos."""
    images: int
    """How many of them a bulk measurement takes."""
    seconds: float
    """Length of one short measurement."""
    profiles: Path
    """Folder for profiles and plots."""

    def files(self, count: int | None = None) -> list[Path]:
        """Return the first photos, all of ``images`` if not said otherwise."""
        return sorted(self.photos.iterdir())[: count or self.images]


Measure = Callable[[Setting], Iterator[Figure]]
"""Every module of ``benchmarks`` that takes part in ``make bench`` has one of these, named ``figures``."""


def line(figure: Figure) -> str:
    """Write a figure as one line of the table."""
    value = f"{figure.value:,.0f}" if figure.value >= 1000 else f"{figure.value:.3g}"
    mark = {None: "", True: f"goal {figure.goal}: met", False: f"goal {figure.goal}: MISSED"}[figure.met]
    return f"{figure.name:<58}{value:>10} {figure.unit:<12}{mark:<22}{figure.note}".rstrip()


def write_json(path: Path, about: dict[str, Any], figures: Iterable[Figure]) -> None:
    """Write a run for comparison with other versions."""
    found = [asdict(figure) | {"met": figure.met} for figure in figures]
    path.write_text(json.dumps(about | {"figures": found}, indent=1) + "\n", encoding="utf-8")


def compare(path: Path, figures: Iterable[Figure]) -> Iterator[str]:
    """Yield a line for each figure that an earlier run's JSON holds too: then, now, and their ratio."""
    then = {
        entry["name"]: entry["value"] for entry in json.loads(path.read_text(encoding="utf-8"))["figures"]
    }
    for figure in figures:
        if before := then.get(figure.name):
            yield f"{figure.name:<58}{before:>12.4g}{figure.value:>12.4g}{figure.value / before:>8.2f} x"
