"""What is counted of HTTP: how many requests, how long they took, how large they were, by route."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, request

from api.body import RequestBody
from api.routes import Route
from jobs.logs import forget_ids
from jobs.meters import Counter, Histogram, Level, Meters
from jobs.tracing import Traced, Value, begin, here

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# The label of what no route takes; its addresses are as many as clients invent.
OTHER = ("other", "other")
STATIC = ("GET", "/static")
_STATUSES = tuple(str(status.value) for status in HTTPStatus if status >= HTTPStatus.OK)
_NOTE = "captionfleet.metering"
# What machines ask every few seconds tells nothing of the way of a job.
_UNTRACED = ("/healthz", "/readyz", "/metrics", "/static/")

StartResponse = Callable[..., Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class HttpMeters:
    """The meters of some routes."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.group = Meters()
        self.labels = {route.name: (route.method, route.path) for route in routes} | {"static": STATIC}
        rows = [*self.labels.values(), OTHER]
        labels = ("method", "route")
        self.seconds = Histogram(
            self.group,
            "captionfleet_http_request_duration_seconds",
            "From a request's arrival to the head of its answer, uploads and waits included.",
            BOUNDS_S,
            (*labels, "status"),
            [(*row, status) for row in rows for status in _STATUSES],
        )
        self.received = Counter(
            self.group, "captionfleet_http_request_bytes_total", "Bytes of requests' bodies.", labels, rows
        )
        self.sent = Counter(
            self.group, "captionfleet_http_response_bytes_total", "Bytes of answers' bodies.", labels, rows
        )
        self.in_flight = Level(
            self.group,
            "captionfleet_http_requests_in_flight",
            "Requests being answered, those that wait and stream included.",
        )


def register_metering(app: Flask, meters: HttpMeters) -> None:
    """Count every request of an application."""
    app.before_request(_note_route)
    app.wsgi_app = Metered(app.wsgi_app, meters)  # type: ignore[method-assign]


def note_received(body: RequestBody) -> None:
    """Say how much of the present request's body was read."""
    request.environ.setdefault(_NOTE, {})["received"] = body.received


def _note_route() -> Response | None:
    request.environ.setdefault(_NOTE, {})["route"] = request.endpoint
    return None


class Metered:
    """A WSGI application whose requests are counted."""

    def __init__(self, app: Application, meters: HttpMeters) -> None:
        self._app = app
        self._meters = meters

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        began = time.monotonic()
        note: dict[str, Any] = environ.setdefault(_NOTE, {})
        span = None if environ["PATH_INFO"].startswith(_UNTRACED) else _begin(environ)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            note["status"] = status[:3]
            self._count(note, status[:3], time.monotonic() - began)
            return start_response(status, headers, exc_info)

        self._meters.in_flight.add(1)
        try:
            with here(span):
                body = self._app(environ, start)
        except BaseException:
            self._end(note, 0, span)
            raise
        return _Counted(body, lambda sent: self._end(note, sent, span))

    def _count(self, note: dict[str, Any], status: str, seconds: float) -> None:
        labels = self._labels(note)
        known = status if status in _STATUSES else str(HTTPStatus.INTERNAL_SERVER_ERROR.value)
        self._meters.seconds.observe(seconds, *labels, known)
        self._meters.received.add(note.get("received", 0), *labels)

    def _end(self, note: dict[str, Any], sent: int, span: Traced | None) -> None:
        method, route = self._labels(note)
        self._meters.sent.add(sent, method, route)
        if span is not None:
            status = int(note.get("status", HTTPStatus.INTERNAL_SERVER_ERROR))
            error = str(status) if status >= HTTPStatus.INTERNAL_SERVER_ERROR else None
            attributes: dict[str, Value] = {"http.route": route, "http.response.status_code": status}
            span.end(f"{method} {route}", error, **attributes)
        self._meters.in_flight.add(-1)
        forget_ids()

    def _labels(self, note: dict[str, Any]) -> tuple[str, str]:
        return self._meters.labels.get(note.get("route") or "", OTHER)


def _begin(environ: dict[str, Any]) -> Traced | None:
    method = environ["REQUEST_METHOD"]
    return begin(
        "request", "server", after=environ.get("HTTP_TRACEPARENT"), **{"http.request.method": method}
    )


class _Counted:
    """A body whose bytes are counted while it is sent."""

    def __init__(self, body: Iterable[bytes], on_close: Callable[[int], None]) -> None:
        self._body = body
        self._on_close: Callable[[int], None] | None = on_close
        self._sent = 0

    def __iter__(self) -> Iterator[bytes]:
        for block in self._body:
            self._sent += len(block)
            yield block

    def close(self) -> None:
        """Close the body, and count what was sent of it."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            on_close, self._on_close = self._on_close, None
            if on_close is not None:
                on_close(self._sent)
