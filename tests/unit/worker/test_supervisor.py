"""The parent of the working process: what it starts again, what it passes on, what it returns."""

from __future__ import annotations

import ast
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.errors import StartupError
from jobs.settings import Settings
from tests.processes import Process, wait_until
from worker.main import run_worker

ROOT = Path(__file__).parents[3]

PARENT = """
import logging, sys
from jobs.settings import Settings
from worker.main import Supervisor
from worker.orders import Orders
logging.basicConfig()
sys.exit(Supervisor(sys.argv[2:], Orders(model=sys.argv[1], settings=Settings())).run())
"""
INTERRUPTED = """
import signal, sys, threading
from jobs.settings import Settings
from worker.main import Supervisor
from worker.orders import Orders

class Interrupted(threading.Event):
    def wait(self, timeout=None):
        with self._cond:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
        return super().wait(timeout)

supervisor = Supervisor(["false"], Orders(model="small", settings=Settings()))
supervisor._stopping = Interrupted()
sys.exit(supervisor.run())
"""
UNREAD = """
import logging, os
from worker import vital
logging.basicConfig()
vital.LAST_WORDS_S = 0.2
os.set_blocking(2, False)
try:
    while True:
        os.write(2, bytes(4096))
except BlockingIOError:
    os.set_blocking(2, True)
vital.end_process("test")
"""
READ = "import sys, json; o = json.loads(sys.stdin.readline()); print('got', o['model'], flush=True)\n"
TELL = "print('am', o['worker_id'], 'after', [tuple(w.values()) for w in o['before']], flush=True)\n"


def parent_of(*command: str, orders: str = "orders") -> Process:
    process = Process([sys.executable, "-c", PARENT, orders, *command], folder=ROOT)
    process.start()
    return process


def parent_of_python(child: str) -> Process:
    return parent_of(sys.executable, "-c", READ + child)


def test_a_dead_child_is_started_again_after_growing_pauses() -> None:
    parent = parent_of_python("import os; os.abort()")
    wait_until(lambda: "starting it again in 2 s" in parent.output)
    assert "status -6; starting it again in 0.5 s" in parent.output
    assert "status -6; starting it again in 1 s" in parent.output
    assert parent.output.count("got orders") == 3
    assert parent.stop() == 0, "it ends while it waits"


@pytest.mark.parametrize(
    ("death", "crashed"),
    [
        ("os.abort()", True),
        ("sys.exit(71)", True),
        ("os.kill(os.getpid(), 9)", False),
        ("sys.exit(70)", False),
    ],
)
def test_a_child_hears_who_died_before_it_and_of_what(death: str, crashed: bool) -> None:
    parent = parent_of_python(f"{TELL}import os; {death}")
    wait_until(lambda: parent.output.count("am ") == 3)
    lives = re.findall("am (.+) after (.+)", parent.output)
    assert parent.stop() == 0
    names = [name for name, _ in lives]
    assert len(set(names)) == 3
    # Each hears of all: one that died early did not come to free what those before it had.
    befores = [[(name, crashed) for name in names[:count]] for count in range(3)]
    assert [ast.literal_eval(before) for _, before in lives] == befores


def test_a_child_that_dies_before_it_reads_is_started_again() -> None:
    parent = parent_of("false", orders="x" * 100_000)
    wait_until(lambda: "starting it again in 1 s" in parent.output)
    assert parent.stop() == 0


@pytest.mark.parametrize("status", [0, 2])
def test_a_child_that_ends_on_purpose_ends_its_parent(status: int) -> None:
    parent = parent_of_python(f"sys.exit({status})")
    assert parent.wait() == status
    assert parent.output.count("got orders") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_signals_are_passed_on(number: signal.Signals) -> None:
    listening = (
        "import signal, time\n"
        f"signal.signal({number.value}, lambda *_: sys.exit(7))\n"
        "print('listening', flush=True)\n"
        "time.sleep(60)"
    )
    parent = parent_of_python(listening)
    wait_until(lambda: "listening" in parent.output)
    assert parent.stop(number) == 7, "what the child made of it counts"


def test_a_child_that_was_not_listening_yet_counts_as_stopped() -> None:
    parent = parent_of_python("import time; time.sleep(60)")
    wait_until(lambda: "got orders" in parent.output)
    assert parent.stop(signal.SIGTERM) == 0


def test_a_signal_may_come_while_the_main_thread_has_the_lock_it_waits_with() -> None:
    assert subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=ROOT, timeout=30).returncode == 0


def test_a_process_ends_itself_though_nobody_reads_its_last_words() -> None:
    with subprocess.Popen([sys.executable, "-c", UNREAD], cwd=ROOT, stderr=subprocess.PIPE) as process:
        try:
            assert process.wait(20) == 70
        finally:
            process.kill()


def test_settings_that_do_not_fit_a_worker_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="REDIS_URL is not set"):
        run_worker(Settings(data_dir=tmp_path))
    distributed = Settings(redis_url="redis://h", database_url="postgresql://h/d", bucket="b")
    with pytest.raises(StartupError, match="has no 'large'; it has: small"):
        run_worker(distributed, "large")
