"""What the handlers of one API process share."""

from __future__ import annotations

from dataclasses import dataclass

from flask import current_app

from api.auth import Doors, Remembered
from api.heartbeats import Heartbeats
from api.limiting import RateLimiter
from api.readiness import Readiness
from api.waiting import JobWatch
from jobs.limits import Limits, usual_limits
from jobs.meters import Exposition, Meters
from jobs.metrics import BACKGROUND, FLEET, WORKER, FleetReadings
from jobs.services import Services

EXTENSION = "captionfleet"


@dataclass(frozen=True)
class Context:
    """Services and the few things an API process keeps beside them."""

    services: Services
    doors: Doors
    limits: Limits
    limiter: RateLimiter
    watch: JobWatch
    heartbeats: Heartbeats
    readiness: Readiness
    exposition: Exposition

    def close(self) -> None:
        """End waiting requests and let go of everything."""
        self.watch.stop()
        self.heartbeats.stop()
        self.limiter.close()
        self.services.close()


def build_context(services: Services, http: Meters) -> Context:
    """Make an API process's context, ``http`` being its own meters; nothing starts before it is needed."""
    return Context(
        services=services,
        doors=Doors(Remembered(services.store.keys.caller), Remembered(services.store.sessions.caller)),
        limits=usual_limits(services.settings),
        limiter=RateLimiter(services.settings),
        watch=JobWatch(services.store.jobs.versions, places=services.settings.api_threads // 2),
        heartbeats=Heartbeats(services.store.submit.heartbeat),
        readiness=Readiness(services),
        exposition=_exposition(services, http),
    )


def _exposition(services: Services, http: Meters) -> Exposition:
    """Return what to show: in embedded mode also of the worker, which is in this process."""
    embedded = services.settings.embedded
    groups = [http, FLEET, BACKGROUND, *([WORKER] if embedded else [])]
    return Exposition(groups, [FleetReadings(services.settings, services.store).refresh], process=embedded)


def current_context() -> Context:
    """Return the running application's context."""
    context = current_app.extensions[EXTENSION]
    assert isinstance(context, Context)
    return context
