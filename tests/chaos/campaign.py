"""Injects faults into jobs that are always running, measures each recovery, and draws up the table."""

from __future__ import annotations

import itertools
import random
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from jobs.errors import TransientError
from tests.chaos.cluster import JOB_IMAGES, Account, FaultyCluster
from tests.chaos.faults import Fault
from tests.chaos.links import Missed
from tests.processes import wait_until

LOOK_S = 0.2
# Unfinished images below which the next job is sent.
PLENTY = JOB_IMAGES // 3


@dataclass(eq=False)
class Injection:
    """One fault, once: the jobs it struck, and when all that was announced or in hand then was final."""

    fault: str
    jobs: set[str] = field(default_factory=set)
    over_at: float = 0.0
    unfinished: set[tuple[str, int]] | None = None
    recovery_s: float | None = None


class Campaign:
    """Keeps jobs running and watches over the faults that are injected into them."""

    def __init__(self, cluster: FaultyCluster, seed: int) -> None:
        self._cluster = cluster
        self._seed = seed
        self._open: list[Injection] = []
        self._stop = threading.Event()
        self._errors: list[str] = []
        self.injections: list[Injection] = []
        self.missed: list[Fault] = []

    def one_by_one(self, faults: Sequence[Fault], times: int) -> None:
        """Inject each fault so many times, each after everything has recovered from the one before."""
        with self._watching():
            for turn in range(times):
                for fault in random.Random(f"{self._seed} {turn}").sample(list(faults), len(faults)):
                    self._wait_calm()
                    self._inject(fault, random.Random(f"{self._seed} {turn} {fault.name}"))
            self._wait_calm()

    def at_random(self, faults: Sequence[Fault], count: int, pause_s: float) -> None:
        """Inject so many faults, one every ``pause_s`` seconds on average, whatever still goes on.

        Another one takes the place of each that found no moment, until as many again found none.
        """
        rng = random.Random(self._seed)
        following = _shuffled_for_ever(faults, rng)
        with self._watching():
            self._cluster.a_job()
            while (due := count - len(self.injections)) > 0 and len(self.missed) < count and not self._errors:
                running: list[threading.Thread] = []
                for fault in itertools.islice(following, due):
                    own = random.Random(rng.random())
                    running.append(threading.Thread(target=self._inject, args=(fault, own), daemon=True))
                    running[-1].start()
                    self._stop.wait(rng.uniform(0, 2 * pause_s))
                for thread in running:
                    thread.join(600)
                    assert not thread.is_alive(), "a fault does not end"
            wait_until(lambda: not self._open, 600, "recovery from every fault")

    def settle(self, timeout: float = 900) -> Account:
        """Wait for the end of every job and hold every item against what it should be."""
        self._cluster.finish_all(timeout)
        account = self._cluster.account(set(self._cluster.expected))
        account.wrong += self._errors
        account.wrong += [f"an orphan or a loss: {key}" for key in self._cluster.orphans()]
        return account

    def table(self) -> str:
        """Return the fault table: each row's items are those of the jobs that ran when it was injected."""
        by_fault: defaultdict[str, list[Injection]] = defaultdict(list)
        for injection in self.injections:
            by_fault[injection.fault].append(injection)
        lines = [
            "| Fault | Times | Items | Lost | Double | Recovery p50 | p95 |",
            "|---|--:|--:|--:|--:|--:|--:|",
        ]
        for name, injections in by_fault.items():
            found = self._cluster.account({job for injection in injections for job in injection.jobs})
            waits = sorted(injection.recovery_s or 0.0 for injection in injections)
            p50, p95 = _quantile(waits, 0.5), _quantile(waits, 0.95)
            lines.append(
                f"| {name} | {len(injections)} | {found.items:,} | {found.lost} | {found.double} "
                f"| {p50:.1f} s | {p95:.1f} s |"
            )
        return "\n".join(lines)

    def _inject(self, fault: Fault, rng: random.Random) -> None:
        injection = Injection(fault.name)
        try:
            injection.jobs |= set(self._cluster.active())
            fault.inject(self._cluster, rng)
        except Missed as missed:
            self._say(f"missed  {fault.name}: {missed}")
            self.missed.append(fault)
            return
        except Exception:
            self._errors.append(f"{fault.name}: {traceback.format_exc()}")
            self._say(self._errors[-1])
            return
        injection.over_at = time.monotonic()
        self._say(f"over    {fault.name}")
        self.injections.append(injection)
        self._open.append(injection)

    def _watching(self) -> _Watch:
        return _Watch(self._watch, self._stop)

    def _watch(self) -> None:
        """Keep enough work, notice recoveries, and see that no window is wider than it may be."""
        while not self._stop.wait(LOOK_S):
            try:
                self._look()
            except TransientError as error:
                self._say(f"the database was away for long: {error}")

    def _look(self) -> None:
        opened = list(self._open)
        announced = self._cluster.announced()
        if wide := self._cluster.too_wide():
            self._errors.append(f"windows too wide: {wide}")
        for injection in opened:
            if injection.unfinished is None:
                injection.unfinished = announced
                injection.jobs |= {job_id for job_id, _ in announced}
            injection.unfinished &= announced
            if not injection.unfinished:
                injection.recovery_s = time.monotonic() - injection.over_at
                self._open.remove(injection)
                self._say(f"{injection.recovery_s:5.1f} s {injection.fault}")
        if sum(self._cluster.active().values()) < PLENTY:
            self._cluster.submit_pictures()

    def _wait_calm(self) -> None:
        """Wait until nothing is open, every host works, and a job is in its middle."""
        wait_until(lambda: not self._open, 300, "recovery from the last fault")
        for host in self._cluster.hosts:
            self._cluster.wait_at_work(host)
        self._cluster.a_job()

    def _say(self, words: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)


class _Watch:
    """Runs the watch in a thread for the length of a context."""

    def __init__(self, watch: object, stop: threading.Event) -> None:
        assert callable(watch)
        self._thread = threading.Thread(target=watch, daemon=True)
        self._stop = stop

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(150)


def _shuffled_for_ever(faults: Sequence[Fault], rng: random.Random) -> Iterator[Fault]:
    """Yield every fault once in random order, then again in another."""
    while True:
        yield from rng.sample(list(faults), len(faults))


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
