"""Who is alone is alone, whoever shares or waits."""

from __future__ import annotations

import functools
import random
import threading
import time

from tests.processes import wait_until
from tests.unit.worker.conftest import in_thread
from worker.exclusion import Exclusion


def test_nobody_is_beside_who_is_alone() -> None:
    exclusion = Exclusion()
    inside: set[int] = set()
    alone: list[int] = []
    violations: list[str] = []
    chance = random.Random(7)

    def run(number: int, wants_alone: bool) -> None:
        for _ in range(40):
            with exclusion.alone() if wants_alone else exclusion.shared() as entered:
                assert entered
                inside.add(number)
                if wants_alone:
                    alone.append(number)
                if (alone or wants_alone) and len(inside) > 1:
                    violations.append(f"{inside} while {alone} was alone")
                time.sleep(chance.random() / 2000)
                if wants_alone:
                    alone.remove(number)
                inside.discard(number)

    threads = [in_thread(functools.partial(run, n, n % 4 == 0)) for n in range(12)]
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert not violations


def test_who_waits_to_be_alone_goes_before_newcomers_and_closing_wakes_all() -> None:
    exclusion = Exclusion()
    order: list[str] = []
    leave = threading.Event()

    def share(name: str) -> None:
        with exclusion.shared() as joined:
            order.append(f"{name} {joined}")
            leave.wait()

    def be_alone() -> None:
        with exclusion.alone() as entered:
            order.append(f"alone {entered}")

    threads = [in_thread(lambda: share("first"))]
    wait_until(lambda: order)
    threads.append(in_thread(be_alone))
    wait_until(lambda: exclusion._waiting_alone)
    threads.append(in_thread(lambda: share("second")))
    leave.set()
    for thread in threads:
        thread.join(10)
    assert order == ["first True", "alone True", "second True"]
    leave.clear()
    threads = [in_thread(lambda: share("third"))]
    wait_until(lambda: len(order) == 4)
    threads.append(in_thread(be_alone))
    exclusion.close()
    wait_until(lambda: "alone False" in order)
    leave.set()
    share("late")
    assert order[-1] == "late False"
