"""Try the scaling policy on traces of work: `python simulation.py FOLDER` prints a table and draws the runs.

Simulated, not measured: work arrives by a trace, the backlog is published once a minute, the policy sets the
number of workers, instances take minutes to start and spot ones are taken back at random. Every assumption is
a field of ``World``; the policy is the one that is deployed (``policy.py``).
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from drawing import draw
from policy import Step, steps, workers_for

STEP_S = 10
DAY_S = 86_400
HOUR_S = 3_600
COOLDOWN_S = 180
METRIC_S = 60


@dataclass(frozen=True)
class World:
    """What the fleet lives in: rates in images/s, times in seconds, prices in dollars an instance-hour."""

    rate: float = 100.0
    start_s: tuple[float, float] = (150.0, 270.0)
    """Uniform: an instance launched, the image pulled, the model loaded."""
    losses_per_hour: float = 0.2
    """Spot instances taken back, for each instance-hour."""
    price: float = 0.35
    max_workers: int = 8
    drain_s: float = 600.0
    seed: int = 1


@dataclass
class Run:
    """What came of one trace."""

    backlog: list[float] = field(default_factory=list)
    """Images, every ten seconds."""
    workers: list[int] = field(default_factory=list)
    """Instances that are paid, every ten seconds."""
    arrived: list[float] = field(default_factory=list)
    """Images so far, every ten seconds."""
    images: float = 0.0
    busy_s: float = 0.0
    paid_s: float = 0.0
    losses: int = 0

    @property
    def longest_wait_s(self) -> float:
        """The longest time in seconds from an image's arrival to its caption, first come, first served."""
        longest, done = 0, 0
        captioned = [all_ - left for all_, left in zip(self.arrived, self.backlog, strict=True)]
        for number, wanted in enumerate(self.arrived):
            while done < len(captioned) and captioned[done] < wanted - 0.5:
                done += 1
            longest = max(longest, done - number)
        return longest * STEP_S

    @property
    def idle_share(self) -> float:
        """Share of the paid time in which an instance started, or had nothing to do."""
        return 1 - self.busy_s / self.paid_s if self.paid_s else 0.0


Trace = Callable[[float], float]
"""Images that arrive at a time, a second."""


def steady(time_s: float) -> float:
    """A camera fleet: 60 images/s for three hours."""
    return 60.0 if time_s < 3 * HOUR_S else 0.0


def burst(time_s: float) -> float:
    """A million images within a minute, then silence."""
    return 1_000_000 / 60 if time_s < 60 else 0.0


def diurnal(time_s: float) -> float:
    """People: nothing at night, 250 images/s around noon."""
    return max(0.0, 250 * math.sin(math.pi * (time_s / HOUR_S - 6) / 12)) if time_s < DAY_S else 0.0


TRACES: dict[str, tuple[Trace, float]] = {
    "steady": (steady, 4 * HOUR_S),
    "burst": (burst, 3 * HOUR_S),
    "diurnal": (diurnal, DAY_S),
}


def simulate(trace: Trace, until_s: float, world: World, plan: list[Step]) -> Run:
    """Run one trace to ``until_s``."""
    chance = random.Random(world.seed)  # noqa: S311
    run, waiting, moved_at = Run(), 0.0, -COOLDOWN_S
    # When each paid instance begins to work.
    fleet: list[float] = []
    for now in range(0, int(until_s), STEP_S):
        arriving = trace(now) * STEP_S
        waiting += arriving
        run.images += arriving
        if now % METRIC_S == 0 and now - moved_at >= COOLDOWN_S:
            wanted = workers_for(waiting / world.rate, plan)
            if wanted != len(fleet):
                fleet, moved_at = _resized(fleet, wanted, now, world, chance), now
        lost = [begin for begin in fleet if chance.random() < world.losses_per_hour * STEP_S / HOUR_S]
        for begin in lost:
            # Chunks in hand are handed back; the service asks for another instance.
            fleet[fleet.index(begin)] = now + chance.uniform(*world.start_s)
        working = sum(begin <= now for begin in fleet)
        done = min(waiting, working * world.rate * STEP_S)
        waiting = max(0.0, waiting - done)
        run.busy_s += done / world.rate
        run.paid_s += len(fleet) * STEP_S
        run.losses += len(lost)
        run.backlog.append(waiting)
        run.arrived.append(run.images)
        run.workers.append(len(fleet))
    return run


def _resized(fleet: list[float], wanted: int, now: int, world: World, chance: random.Random) -> list[float]:
    if wanted < len(fleet):
        return sorted(fleet)[:wanted]
    return fleet + [now + chance.uniform(*world.start_s) for _ in range(wanted - len(fleet))]


def main(folder: Path) -> None:
    """Simulate every trace under the policy and under a fleet of fixed size, and draw the policy's runs."""
    world = World()
    plans = {
        "by backlog seconds": steps(world.drain_s, world.max_workers),
        f"always {world.max_workers}": [Step(0, None, world.max_workers)],
    }
    print(f"{world}\n")  # noqa: T201
    print("| Trace | Fleet | Images | Longest wait | Instance-hours | Idle share | Cost | Spot losses |")  # noqa: T201
    print("|---|---|---|---|---|---|---|---|")  # noqa: T201
    for name, (trace, until_s) in TRACES.items():
        for label, plan in plans.items():
            run = simulate(trace, until_s, world, plan)
            hours = run.paid_s / HOUR_S
            cells = [
                name,
                label,
                f"{run.images:,.0f}",
                f"{run.longest_wait_s / 60:,.0f} min",
                f"{hours:.1f}",
                f"{run.idle_share:.0%}",
                f"${hours * world.price:.2f}",
                str(run.losses),
            ]
            print(f"| {' | '.join(cells)} |")  # noqa: T201
        run = simulate(trace, until_s, world, plans["by backlog seconds"])
        (folder / f"scaling-{name}.svg").write_text(draw(name, run.backlog, run.workers, STEP_S))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
