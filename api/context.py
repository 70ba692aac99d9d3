"""What the handlers of one API process share."""

from __future__ import annotations

from dataclasses import dataclass

from flask import current_app

from api.auth import KeyRing
from api.heartbeats import Heartbeats
from api.readiness import Readiness
from api.waiting import JobWatch
from jobs.services import Services

EXTENSION = "captionfleet"


@dataclass(frozen=True)
class Context:
    """Services and the few things an API process keeps beside them."""

    services: Services
    keys: KeyRing
    watch: JobWatch
    heartbeats: Heartbeats
    readiness: Readiness

    def close(self) -> None:
        """End waiting requests and let go of everything."""
        self.watch.stop()
        self.heartbeats.stop()
        self.services.close()


def build_context(services: Services) -> Context:
    """Make an API process's context; nothing starts before it is needed."""
    return Context(
        services=services,
        keys=KeyRing(services.store.keys.owner_of),
        watch=JobWatch(services.store.jobs.versions, places=services.settings.api_threads // 2),
        heartbeats=Heartbeats(services.store.submit.heartbeat),
        readiness=Readiness(services),
    )


def current_context() -> Context:
    """Return the running application's context."""
    context = current_app.extensions[EXTENSION]
    assert isinstance(context, Context)
    return context
