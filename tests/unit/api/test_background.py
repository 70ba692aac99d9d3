"""The threads of an API process: watching jobs for waiting requests, keeping uploads alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection

import pytest

from api.heartbeats import Heartbeats
from api.waiting import JobWatch
from jobs.errors import DatabaseUnavailable
from tests.processes import wait_until


class Versions:
    """Versions of jobs, as the database would tell them."""

    def __init__(self) -> None:
        self.now = {"a": 1, "b": 1}
        self.asked: list[set[str]] = []
        self.fail: Exception | None = None

    def __call__(self, job_ids: Collection[str]) -> dict[str, int]:
        self.asked.append(set(job_ids))
        if self.fail is not None:
            raise self.fail
        return {job_id: self.now[job_id] for job_id in job_ids if job_id in self.now}


class Waiter(threading.Thread):
    """A request that waits."""

    def __init__(self, watch: JobWatch, job_id: str, seconds: float = 20) -> None:
        super().__init__()
        self.changed: bool | None = None
        self._wait = (watch, job_id, seconds)
        self.start()

    def run(self) -> None:
        watch, job_id, seconds = self._wait
        self.changed = watch.wait(job_id, 1, seconds)


@pytest.fixture
def versions() -> Versions:
    return Versions()


def waiting(versions: Versions, jobs: set[str]) -> None:
    wait_until(lambda: jobs in versions.asked, what=f"{jobs} being watched")


def test_all_watched_jobs_are_read_in_one_query(versions: Versions) -> None:
    watch = JobWatch(versions, places=4)
    waiters = [Waiter(watch, "a"), Waiter(watch, "b"), Waiter(watch, "b")]
    waiting(versions, {"a", "b"})
    versions.now["a"] = 2
    waiters[0].join(10)
    assert waiters[0].changed is True
    assert waiters[1].is_alive()
    del versions.now["b"]
    for waiter in waiters:
        waiter.join(10)
    assert [waiter.changed for waiter in waiters] == [True] * 3
    asked = len(versions.asked)
    time.sleep(0.5)
    assert len(versions.asked) <= asked + 1
    watch.stop()


def test_past_its_places_a_watch_does_not_wait(versions: Versions) -> None:
    watch = JobWatch(versions, places=1)
    first = Waiter(watch, "a")
    waiting(versions, {"a"})
    began = time.monotonic()
    assert watch.wait("b", 1, 20) is False
    assert time.monotonic() - began < 10
    versions.now["a"] = 2
    first.join(10)
    assert watch.wait("b", 1, 0.01) is False
    versions.now["b"] = 2
    assert watch.wait("b", 1, 20) is True
    watch.stop()


def test_waits_end_with_the_process(versions: Versions) -> None:
    watch = JobWatch(versions, places=4)
    waiter = Waiter(watch, "a")
    waiting(versions, {"a"})
    watch.stop()
    waiter.join(10)
    assert waiter.changed is False
    assert watch.wait("a", 0, 20) is False


@pytest.mark.parametrize("error", [DatabaseUnavailable("gone"), RuntimeError("a mistake")])
def test_a_watch_survives_a_failing_database(versions: Versions, error: Exception) -> None:
    watch = JobWatch(versions, places=4)
    versions.fail = error
    waiter = Waiter(watch, "a")
    waiting(versions, {"a"})
    versions.now["a"] = 2
    versions.fail = None
    waiter.join(10)
    assert waiter.changed is True
    watch.stop()


def test_an_upload_is_kept_alive_while_it_is_received() -> None:
    beats: list[str] = []

    def beat(job_id: str) -> None:
        beats.append(job_id)
        if job_id == "bad":
            raise DatabaseUnavailable("gone")
        if job_id == "worse":
            raise RuntimeError("a mistake")

    heartbeats = Heartbeats(beat, period_s=0.01)
    with heartbeats.of("worse"), heartbeats.of("bad"), heartbeats.of("good"):
        wait_until(lambda: beats.count("good") >= 3, what="the upload being kept alive")
    ended = beats.count("good")
    with heartbeats.of("other"):
        wait_until(lambda: "other" in beats, what="the next upload being kept alive")
    assert beats.count("good") <= ended + 1
    heartbeats.stop()
