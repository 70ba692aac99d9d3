"""The route of server-sent events (WHATWG HTML, section 9.2): a job's progress as it happens."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from flask import Response, request

from api.routes import Answer, Call, NoQuery, Route
from api.waiting import Place
from jobs.callers import Scope
from jobs.errors import RequestError, TransientError
from jobs.records import DeletedJob, Job

log = logging.getLogger(__name__)

MEDIA_TYPE = "text/event-stream"
# A connection that is gone shows when something is written to it.
HEARTBEAT_S = 5.0
# Shorter than people notice, longer than recordings follow each other.
PAUSE_S = 0.5
# Then the client comes again by itself: its key is checked anew, and others get a turn.
LONGEST_S = 300.0
RECONNECT_MS = 1000
FULL_RECONNECT_MS = 5000


def read_events(call: Call[NoQuery], job_id: str) -> Response:
    """Follow a job by server-sent events: `job` with the job's JSON at each change, `deleted` if it goes.

    The stream ends when the job is final, and after five minutes; with the last event's id in
    `Last-Event-ID` the next one goes on from there, and 204 says that nothing more will come. Where too many
    clients wait already, it holds the present state only, and asks to come again in five seconds.
    """
    job, version = call.services.store.jobs.get(call.owner, job_id)
    known = request.headers.get("Last-Event-ID") == str(version)
    if known and job.status.final:
        return Response(status=204, headers={"Cache-Control": "no-store"})
    place = call.context.watch.take_place() if not job.status.final else None
    full = place is None and not job.status.final
    first = _lines(f"retry: {FULL_RECONNECT_MS if full else RECONNECT_MS}")
    if not known:
        first += job_event(job, version)
    response = Response([first] if place is None else _Events(call, job_id, version, place).follow(first))
    response.headers["Content-Type"] = MEDIA_TYPE
    response.headers["Cache-Control"] = "no-store"
    # nginx would collect the stream otherwise.
    response.headers["X-Accel-Buffering"] = "no"
    if place is not None:
        response.call_on_close(place.leave)
    return response


def job_event(job: Job, version: int) -> bytes:
    """Return the event that says how a job is now."""
    return _lines(f"id: {version}", "event: job", f"data: {job.model_dump_json()}")


def _lines(*lines: str) -> bytes:
    return ("\n".join(lines) + "\n\n").encode()


class _Events:
    """One client's stream, from a known version of the job on."""

    def __init__(self, call: Call[NoQuery], job_id: str, version: int, place: Place) -> None:
        self._watch = call.context.watch
        self._store = call.services.store.jobs
        self._owner = call.owner
        self._job_id = job_id
        self._version = version
        self._place = place

    def follow(self, first: bytes) -> Iterator[bytes]:
        """Yield events until the job is final or gone, or it is time to come again."""
        until = time.monotonic() + LONGEST_S
        yield first
        going_on = True
        while going_on and time.monotonic() < until:
            changed = self._place.wait(self._job_id, self._version, HEARTBEAT_S)
            if self._watch.stopped:
                return
            if not changed:
                yield _lines(": still there")
                continue
            event, going_on = self._news()
            yield event
            if going_on:
                time.sleep(PAUSE_S)

    def _news(self) -> tuple[bytes, bool]:
        """Return the event for what has changed, and whether there may be more."""
        try:
            job, self._version = self._store.get(self._owner, self._job_id)
        except RequestError:
            return _lines("event: deleted", f"data: {DeletedJob(id=self._job_id).model_dump_json()}"), False
        except TransientError as error:
            log.warning("a stream of events ends early: %s", error)
            return _lines(": please come again"), False
        return job_event(job, self._version), not job.status.final


EVENT_ROUTES = (
    Route(
        "GET",
        "/v1/jobs/{job_id}/events",
        read_events,
        "Follow a job",
        (
            Answer(200, "Events until the job is final.", media_types=(MEDIA_TYPE,)),
            Answer(204, "Nothing more will come: the job is final, and you have its last event."),
        ),
        headers=("Last-Event-ID",),
        refusals=("job_not_found",),
        scope=Scope.READ,
    ),
)
