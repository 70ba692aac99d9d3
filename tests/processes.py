"""Child processes that never outlive the test run, ports nobody else takes, and polling with a deadline."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Literal, TypeVar

T = TypeVar("T")

# Only a test that fails waits so long, unless the machine is slow or busy.
PATIENCE_S = 60.0

# Below the ephemeral range of Linux (32768) and macOS (49152): no outgoing connection can take a port
# between a server's death and its restart.
PORTS = range(20000, 32000)

# Reads "+pid", "-pid" and "/folder" lines; the pipe closes when the test run ends, however it ends.
_UNDERTAKER = """
import os, shutil, signal, sys
pids, folders = set(), []
for line in sys.stdin:
    line = line.rstrip("\\n")
    if line.startswith("/"):
        folders.append(line)
    else:
        (pids.add if line[0] == "+" else pids.discard)(int(line[1:]))
for pid in pids:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
for folder in folders:
    shutil.rmtree(folder, ignore_errors=True)
"""


def wait_until(
    condition: Callable[[], T | Literal[False] | None],
    timeout: float = PATIENCE_S,
    what: str = "the condition",
) -> T:
    """Poll until ``condition()`` is truthy and return its value; fail after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    pause = 0.005
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout:g} s; last value: {value!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)


@functools.cache
def _undertaker() -> IO[str]:
    """Start the process that kills what is left when this one is gone."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", _UNDERTAKER],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd="/",
    )
    assert process.stdin is not None
    atexit.register(_dismiss, process, os.getpid())
    return process.stdin


def _dismiss(process: subprocess.Popen[str], owner: int) -> None:
    """Let the undertaker finish its work before the run ends; only in the process that started it."""
    if os.getpid() == owner:
        process.communicate()


def _tell_undertaker(line: str) -> None:
    pipe = _undertaker()
    pipe.write(line + "\n")
    pipe.flush()


def scratch_folder(prefix: str) -> Path:
    """Make a folder, readable by other users, that is removed when the test run ends."""
    folder = Path(tempfile.mkdtemp(prefix=f"captionfleet-{prefix}-"))
    folder.chmod(0o755)
    _tell_undertaker(str(folder))
    return folder


_port_locks: list[IO[str]] = []


def reserve_port() -> int:
    """Reserve a free TCP port on 127.0.0.1 for as long as this process lives, against other test runs too."""
    folder = Path(tempfile.gettempdir()) / f"captionfleet-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for port in random.sample(PORTS, len(PORTS)):
        lock = (folder / str(port)).open("w")
        if _lock(lock) and _bindable(port):
            _port_locks.append(lock)
            return port
        lock.close()
    raise RuntimeError(f"no free port in {PORTS}")


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Process:
    """One child process in its own session, its output in ``log``; it can be started again after its end."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        user: int | None = None,
        log: Path | None = None,
    ) -> None:
        """Describe a process; ``environment`` replaces this one's, ``user`` is the uid to run as."""
        self.command = [str(part) for part in command]
        self.environment = None if environment is None else dict(environment)
        self.folder = folder
        self.user = user
        self.log = log or scratch_folder("log") / "output.log"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running child."""
        assert self._child is not None, "not started"
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether the child runs (a paused one does)."""
        return self._child is not None and self._child.poll() is None

    @property
    def output(self) -> str:
        """Everything the child wrote so far, over all its starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def start(self, ready: Callable[[], bool] | None = None, timeout: float = PATIENCE_S) -> None:
        """Start the child and wait until ``ready()``; fail with its output when it dies before."""
        assert not self.alive, "already running"
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.folder,
                user=self.user,
                start_new_session=True,
            )
        _tell_undertaker(f"+{self._child.pid}")
        if ready is not None:
            wait_until(lambda: self._living() and ready(), timeout, f"{self.command[0]} being ready")

    def _living(self) -> bool:
        if not self.alive:
            raise AssertionError(f"{self.command} ended too early:\n{self.output[-4000:]}")
        return True

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the child alone."""
        os.kill(self.pid, number)

    def pause(self) -> None:
        """Stop the whole process group where it is: connections stay open and nothing answers."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process group go on."""
        os.killpg(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill the whole process group with SIGKILL; nothing happens when it is gone."""
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = PATIENCE_S) -> int | None:
        """Ask the child to end, kill its group after ``timeout`` seconds, and return its exit status."""
        if not self.alive:
            return self.wait() if self._child else None
        with contextlib.suppress(ProcessLookupError):
            self.resume()
            self.send(number)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.wait()

    def wait(self, timeout: float | None = PATIENCE_S) -> int:
        """Wait for the child's end, at most ``timeout`` seconds, and return its exit status."""
        assert self._child is not None, "not started"
        status = self._child.wait(timeout)
        _tell_undertaker(f"-{self._child.pid}")
        return status


def ended(pid: int) -> bool:
    """Whether a process has ended, be it that its new parent has not noticed (in a container, none may)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def children(parent: int | None = None) -> set[int]:
    """Process ids of the decoding children of a process."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            above = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            ours = b"worker.decode_child" in (folder / "cmdline").read_bytes()
            if ours and int(above) == (parent or os.getpid()):
                found.add(int(folder.name))
    return found
