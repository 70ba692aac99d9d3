"""Embedded mode as a server: API, web page and worker in one process."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from jobs.callers import LOCAL_OWNER, Scope
from jobs.errors import DatabaseUnavailable, StartupError
from jobs.settings import Settings

if TYPE_CHECKING:
    from flask import Flask

    from jobs.services import Services
    from worker.embedded import EmbeddedWorker

log = logging.getLogger(__name__)

LOAD_S = 90.0
_PR_SET_PDEATHSIG = 1


class EmbeddedServer:
    """Makes the application in the process that serves it, and stops what works beside it."""

    def __init__(self, settings: Settings, *, announce: bool = True, first_key: bool = False) -> None:
        self._settings = settings
        self._first_key = first_key
        self._announce = announce
        self._worker: EmbeddedWorker | None = None
        # Of the process that was started; the application lives in a child of it, which it would start again.
        self._process = os.getpid()

    def run(self) -> None:
        """Serve until told to stop; raise ``StartupError`` for whatever keeps it from starting."""
        from api.server import serve

        if not self._settings.embedded:
            message = (
                "REDIS_URL is set, which is distributed mode: start `captionfleet api` and "
                "`captionfleet worker`, or unset REDIS_URL, DATABASE_URL and CAPTIONFLEET_BUCKET"
            )
            raise StartupError("configuration_invalid", message)
        serve(self._make_app, self._settings, workers=1, on_exit=self._stop)

    def _make_app(self) -> Flask:
        from api.app import create_app
        from jobs.tracing import start_tracing
        from worker.embedded import EmbeddedWorker

        _die_with_parent()
        start_tracing(self._settings, "captionfleet")
        services = self._open()
        _require_key(services, make=self._first_key)
        self._worker = EmbeddedWorker(services)
        self._worker.start()
        self._worker.wait_loaded(LOAD_S)
        if self._worker.error is not None:
            raise self._worker.error
        app = create_app(services)
        if self._announce:
            self._say_address()
        return app

    def _open(self) -> Services:
        from jobs.services import build_services
        from jobs.store import schema

        try:
            services = build_services(self._settings)
            services.store.database.held_for(self._process)
            schema.upgrade(services.store.database)
        except (DatabaseUnavailable, OSError) as error:
            reason = str(error) if isinstance(error, DatabaseUnavailable) else error.strerror or str(error)
            message = (
                f"CAPTIONFLEET_DATA_DIR: {self._settings.data_dir} cannot be used: {reason.lower()}; "
                "free some space on its disk, or choose another folder (`serve --data-dir FOLDER`)"
            )
            raise StartupError("configuration_invalid", message) from error
        return services

    def _say_address(self) -> None:
        host, port = self._settings.host, self._settings.port
        address = f"[{host}]" if ":" in host else host
        data = self._settings.data_dir.absolute()
        print(f"Captionfleet: http://{address}:{port}  (data in {data}; Ctrl-C stops)", flush=True)

    def _stop(self) -> None:
        if self._worker is not None:
            log.info("stopping: chunks in hand are finished or handed back, which can take some seconds")
            self._worker.stop()


def _die_with_parent() -> None:
    """End at once when the process that was started by hand is killed: else the data folder stays in use.

    Nothing is lost by it. Where the system cannot do this (macOS), gunicorn notices within seconds instead.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _require_key(services: Services, *, make: bool) -> None:
    settings = services.settings
    if not settings.keys_required or services.store.keys.any_valid():
        return
    if make:
        # The owner that jobs had without keys: they stay visible.
        _, key = services.store.keys.create(LOCAL_OWNER, "first key", scopes=Scope)
        print(f"The first API key, shown this once: {key}", flush=True)
        return
    message = (
        f"calls to CAPTIONFLEET_HOST={settings.host} need an API key and there is none in "
        f"{settings.data_dir}: make one with `captionfleet keys create --owner NAME`, or let "
        "`captionfleet serve --first-key` make it"
    )
    raise StartupError("configuration_invalid", message)
