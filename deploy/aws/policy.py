"""How many workers a backlog asks for: the rule that the fleet follows and the simulation tries."""

from __future__ import annotations

from dataclasses import dataclass

# Application Auto Scaling takes at most twenty steps.
MOST_STEPS = 18
ANY_WORK_S = 0.001


@dataclass(frozen=True)
class Step:
    """From ``lower`` (inclusive) to ``upper`` seconds of backlog so many workers; ``None`` is no end."""

    lower: float
    upper: float | None
    workers: int


def steps(drain_seconds: float, max_workers: int) -> list[Step]:
    """Return the steps of a fleet in which each worker takes ``drain_seconds`` of backlog.

    The backlog is in seconds of one worker, so that ``n`` workers drain ``n * drain_seconds`` of it in
    ``drain_seconds``. Up to eighteen workers every step is one worker; larger fleets take larger steps.
    """
    if max_workers < 1 or drain_seconds <= 0:
        raise ValueError("a fleet needs at least one worker and a time to drain in")
    count = min(max_workers, MOST_STEPS)
    sizes = sorted({max(1, round(max_workers * number / count)) for number in range(1, count + 1)})
    borders = [ANY_WORK_S, *(size * drain_seconds for size in sizes[:-1])]
    uppers: list[float | None] = [*borders[1:], None]
    work = [Step(lower, upper, size) for lower, upper, size in zip(borders, uppers, sizes, strict=True)]
    return [Step(0, ANY_WORK_S, 0), *work]


def workers_for(backlog_seconds: float, plan: list[Step]) -> int:
    """Return the number of workers that ``plan`` sets for a backlog."""
    for step in plan:
        if step.lower <= backlog_seconds and (step.upper is None or backlog_seconds < step.upper):
            return step.workers
    return 0
