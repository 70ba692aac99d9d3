"""`captionfleet worker`: a small parent of the process that works, which starts it again when it dies."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from jobs.errors import StartupError
from jobs.settings import Settings
from worker.orders import Orders
from worker.signals import on_signals
from worker.vital import EXIT_STARTUP, EXIT_STUCK

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
# A child that lived this long had started well: the next pause is short again.
HEALTHY_S = 60.0
# What a process that goes wrong is ended by; SIGKILL and SIGTERM come from outside.
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP}


def run_worker(
    settings: Settings, model: str | None = None, device: str | None = None, concurrency: int | None = None
) -> int:
    """Serve one model (default: the first) until a signal; return the exit status.

    Raises ``StartupError`` where the settings do not fit a worker.
    """
    if settings.embedded:
        raise StartupError("configuration_invalid", "REDIS_URL is not set, so there is no broker to work for")
    settings, named = settings.with_model(model)
    model = named or settings.model_names[0]
    if model not in settings.model_names:
        known = ", ".join(settings.model_names)
        raise StartupError("configuration_invalid", f"CAPTIONFLEET_MODELS has no {model!r}; it has: {known}")
    changed = {"device": device or settings.device, "concurrency": concurrency or settings.concurrency}
    settings = settings.model_copy(update=changed)
    return Supervisor([sys.executable, "-m", "worker.child"], Orders(model=model, settings=settings)).run()


class Supervisor:
    """Keeps one child running and passes SIGTERM, SIGINT and SIGQUIT on to it."""

    def __init__(self, command: Sequence[str], orders: Orders) -> None:
        self._command = command
        self._orders = orders
        self._child: subprocess.Popen[bytes] | None = None
        self._signal: int | None = None
        self._stopping = threading.Event()

    def run(self) -> int:
        """Run until a signal, or until the child ends on purpose; return its exit status."""
        on_signals((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT), self._on_signal)
        pause, orders = FIRST_PAUSE_S, self._orders
        while True:
            started = time.monotonic()
            status = self._run_child(orders.line())
            if self._signal is not None:
                # A child that was not yet listening died of the signal itself.
                return 0 if status == -self._signal else status
            if status in (0, EXIT_STARTUP):
                return status
            if time.monotonic() - started > HEALTHY_S:
                pause = FIRST_PAUSE_S
            log.error("the worker process ended with status %d; starting it again in %g s", status, pause)
            if self._stopping.wait(pause):
                return 0
            pause = min(2 * pause, LONGEST_PAUSE_S)
            orders = orders.after(crashed=status == EXIT_STUCK or -status in CRASHES)

    def _run_child(self, orders: bytes) -> int:
        self._child = subprocess.Popen(self._command, stdin=subprocess.PIPE)  # noqa: S603
        if self._signal is not None:
            self._child.send_signal(self._signal)
        # The pipe stays open as long as this process lives: its end tells the child that its parent is gone.
        with self._child as child:
            assert child.stdin is not None
            try:
                child.stdin.write(orders)
                child.stdin.flush()
            except BrokenPipeError:
                log.debug("the child died before it read its orders")
                # What is left in the buffer would be written again when the pipe is closed below.
                with suppress(BrokenPipeError):
                    child.stdin.close()
            return child.wait()

    def _on_signal(self, number: int) -> None:
        self._signal = number
        self._stopping.set()
        if self._child is not None:
            self._child.send_signal(number)
