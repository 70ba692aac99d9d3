"""The start of an API process: settings become services, services an application."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from jobs.settings import Settings


def make_app(settings: Settings | None = None) -> Flask:
    """Return the application of an API process, its sweep running; raises ``StartupError``.

    The server calls this after it has forked: ``gunicorn 'api.wsgi:make_app()'``, or ``api.server``.
    """
    from api.app import create_app
    from jobs.services import build_services
    from jobs.settings import load_settings
    from jobs.tracing import start_tracing

    settings = settings or load_settings()
    start_tracing(settings, "captionfleet-api")
    services = build_services(settings)
    services.start()
    return create_app(services)
