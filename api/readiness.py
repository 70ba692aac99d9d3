"""Whether this process could serve a request now: what it depends on, asked at most once a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout

from jobs.errors import CaptionfleetError
from jobs.records import Health
from jobs.services import Services
from jobs.store import schema

PATIENCE_S = 5.0
FRESH_S = 1.0


class Readiness:
    """Checks of every dependency by name, all at once, each within a few seconds.

    Without workers a process can serve all the same: a fleet may have been scaled to zero.
    """

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self._services = services
        self._checks: dict[str, Callable[[], str | None]] = {
            "database": lambda: schema.reach(services.store.database),
            "schema": lambda: schema.check(services.store.database),
            "bucket" if settings.bucket else "folder": services.objects.check,
        }
        if not settings.embedded:
            self._checks["broker"] = services.queue.check
        self._needed = frozenset(self._checks)
        self._checks["workers"] = self._workers
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._last: tuple[float, Health] | None = None

    def check(self) -> Health:
        """Return ``ok``, or ``unavailable``, with the code of what is not."""
        with self._lock:
            if self._last is None or time.monotonic() - self._last[0] > FRESH_S:
                # Asking may take seconds; its answer is fresh from then on, also for those who wait here.
                health = self._ask()
                self._last = (time.monotonic(), health)
            return self._last[1]

    def _ask(self) -> Health:
        self._pool = self._pool or ThreadPoolExecutor(len(self._checks), thread_name_prefix="ready")
        running = {name: self._pool.submit(check) for name, check in self._checks.items()}
        deadline = time.monotonic() + PATIENCE_S
        found = {name: _outcome(future, deadline) for name, future in running.items()}
        ready = all(found[name] == "ok" for name in self._needed)
        return Health(status="ok" if ready else "unavailable", checks=found)

    def _workers(self) -> str | None:
        """Name the models that no worker serves now."""
        served = {worker.model for worker in self._services.store.workers.alive()}
        missing = [name for name in self._services.settings.model_names if name not in served]
        return f"none for {', '.join(missing)}" if missing else None


def _outcome(running: Future[str | None], deadline: float) -> str:
    try:
        return running.result(max(0.0, deadline - time.monotonic())) or "ok"
    except CaptionfleetError as error:
        return error.code
    except FutureTimeout:
        return "timeout"
