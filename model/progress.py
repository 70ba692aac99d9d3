"""Progress of long model commands: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

_LINE_SECONDS = 15.0


@dataclass(frozen=True)
class Progress:
    """Where a long run is: ``done`` of ``total`` steps of a stage, and a word about it."""

    stage: str
    done: int
    total: int
    text: str = ""


def console_progress() -> Callable[[Progress], None]:
    """Return a reporter for standard error: a bar per stage on a terminal, else a line every 15 seconds."""
    return _bars() if sys.stderr.isatty() else _lines()


def _bars() -> Callable[[Progress], None]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars = Bars(*columns, TextColumn("{task.fields[text]}"), console=Console(stderr=True))
    stages: dict[str, int] = {}

    def report(progress: Progress) -> None:
        if progress.stage == "finished":
            bars.stop()
            return
        bars.start()
        if progress.stage not in stages:
            stages[progress.stage] = bars.add_task(progress.stage, total=progress.total, text="")
        number = stages[progress.stage]
        bars.update(number, completed=progress.done, total=progress.total, text=progress.text)  # type: ignore[arg-type]

    return report


def _lines() -> Callable[[Progress], None]:
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if progress.done == progress.total or now - last >= _LINE_SECONDS:
            last = now
            line = f"{progress.stage}: {progress.done}/{progress.total} {progress.text}"
            sys.stderr.write(line.rstrip() + "\n")
            sys.stderr.flush()

    return report
