"""When a worker counts as one that no longer consumes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.errors import BrokerUnavailable
from jobs.queue import Message
from worker.liveness import ConsumptionWatch

ROOT = Path(__file__).parents[3]


class Queue:
    """A queue of a set depth; below zero it does not answer."""

    def __init__(self, depth: int) -> None:
        self.waiting = depth

    def depth(self, queue: str) -> int:
        if self.waiting < 0:
            raise BrokerUnavailable("test")
        return self.waiting

    def publish(self, messages: Sequence[Message]) -> None: ...

    def check(self) -> None: ...

    def close(self) -> None: ...


def silence(watch: ConsumptionWatch) -> float:
    return watch._silent_s("bulk", watch._lanes["bulk"])


@pytest.fixture
def queue() -> Queue:
    return Queue(3)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("worker.liveness.time", clock)
    return clock


@pytest.fixture
def watch(queue: Queue, clock: SimpleNamespace) -> ConsumptionWatch:
    return ConsumptionWatch(queue, {"bulk": 2})


def test_messages_that_wait_while_threads_are_free_are_suspicious(
    watch: ConsumptionWatch, clock: SimpleNamespace
) -> None:
    assert silence(watch) == 0
    clock.now += 15
    assert silence(watch) == 15
    with watch.receiving("bulk"):
        assert silence(watch) == 0, "one has just arrived"
        clock.now += 21
        assert silence(watch) == 21, "the second thread is free all the same"


@pytest.mark.parametrize("case", ["busy", "empty", "away"])
def test_otherwise_the_time_starts_again(
    watch: ConsumptionWatch, queue: Queue, clock: SimpleNamespace, case: str
) -> None:
    silence(watch)
    clock.now += 15
    with watch.receiving("bulk"), watch.receiving("bulk"):
        queue.waiting = {"busy": 3, "empty": 0, "away": -1}[case]
        assert silence(watch) == 0
    clock.now += 1
    queue.waiting = 3
    assert silence(watch) == 0


DEAF = """
import worker.liveness as liveness
from tests.unit.worker.test_liveness import Queue
liveness.SILENCE_S, liveness.PERIOD_S = 0.3, 0.05
watch = liveness.ConsumptionWatch(Queue(1), {"bulk": 1})
watch.start()
watch._thread.join(20)
"""


def test_a_deaf_worker_ends() -> None:
    run = subprocess.run([sys.executable, "-c", DEAF], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert run.returncode == 70
    assert "messages wait in bulk and none has arrived" in run.stderr
