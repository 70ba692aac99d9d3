"""Whether this process could serve a request now: what it depends on, asked at most once a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout

from jobs.errors import CaptionfleetError
from jobs.records import Health
from jobs.services import Services
from jobs.store import schema

PATIENCE_S = 5.0
FRESH_S = 1.0


class Readiness:
    """Checks of database, schema, objects and queue, all at once, each within a few seconds."""

    def __init__(self, services: Services) -> None:
        self._checks: Mapping[str, Callable[[], None]] = {
            "database": lambda: schema.check(services.store.database),
            "objects": services.objects.check,
            "queue": services.queue.check,
        }
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._last: tuple[float, Health] | None = None

    def check(self) -> Health:
        """Return ``ok``, or ``unavailable`` with the code of what is not."""
        with self._lock:
            if self._last is None or time.monotonic() - self._last[0] > FRESH_S:
                self._last = (time.monotonic(), self._ask())
            return self._last[1]

    def _ask(self) -> Health:
        self._pool = self._pool or ThreadPoolExecutor(len(self._checks), thread_name_prefix="ready")
        running = {name: self._pool.submit(check) for name, check in self._checks.items()}
        deadline = time.monotonic() + PATIENCE_S
        found = {name: _outcome(future, deadline) for name, future in running.items()}
        ready = all(outcome == "ok" for outcome in found.values())
        return Health(status="ok" if ready else "unavailable", checks=found)


def _outcome(running: Future[None], deadline: float) -> str:
    try:
        running.result(max(0.0, deadline - time.monotonic()))
    except CaptionfleetError as error:
        return error.code
    except FutureTimeout:
        return "timeout"
    return "ok"
