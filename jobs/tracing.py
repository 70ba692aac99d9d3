"""Traces of the way from a request to its captions, sent by OpenTelemetry's protocol (OTLP over HTTP).

Off unless ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set: then nothing of OpenTelemetry is imported, ``begin``
returns ``None``, and who has no span makes none. Any thread may add to a span.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from jobs.errors import StartupError
from jobs.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

log = logging.getLogger(__name__)

# What is left to send at a process's end may take so long.
LAST_WORDS_S = 3.0

Value = str | int | float | bool


class _Tracing:
    """What a process traces with; nothing while tracing is off."""

    tracer: Tracer | None = None
    provider: TracerProvider | None = None
    exporter: OTLPSpanExporter | None = None


class Traced:
    """One span that has begun, with the spans that belong to it."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        from opentelemetry.trace import set_span_in_context

        self._tracer = tracer
        self._span = span
        self._context: Context = set_span_in_context(span)

    @property
    def traceparent(self) -> str:
        """Where this span is, in the words of W3C's Trace Context: what comes after it goes on from there."""
        place = self._span.get_span_context()
        return f"00-{place.trace_id:032x}-{place.span_id:016x}-{place.trace_flags:02x}"

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """Make this the span that the present thread's work, and its log lines, belong to."""
        from opentelemetry.context import attach, detach

        token = attach(self._context)
        try:
            yield
        finally:
            detach(token)

    def add(self, name: str, began: float, ended: float | None = None, **attributes: Value) -> None:
        """Add a part that ran from one ``time.monotonic()`` to another, or until now."""
        part = self._tracer.start_span(name, self._context, attributes=attributes, start_time=_clock(began))
        part.end(None if ended is None else _clock(ended))

    def end(self, name: str | None = None, error: str | None = None, **attributes: Value) -> None:
        """End the span, with a better name and the code of what went wrong."""
        if name is not None:
            self._span.update_name(name)
        if error is not None:
            from opentelemetry.trace import StatusCode

            self._span.set_status(StatusCode.ERROR, error)
            self._span.set_attribute("error.type", error)
        self._span.set_attributes(attributes)
        self._span.end()


def start_tracing(settings: Settings, service: str) -> None:
    """Trace from here on, if the settings say where to; ``service`` is what the process is called.

    OpenTelemetry's own variables (``OTEL_SERVICE_NAME``, ``OTEL_TRACES_SAMPLER``, …) are read by its library.
    Raises ``StartupError`` where that is not installed.
    """
    if settings.otlp_endpoint is None or _Tracing.tracer is not None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        message = (
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: "
            "`pip install '.[tracing]'`, or unset it"
        )
        raise StartupError("configuration_invalid", message) from error
    named = Resource({"service.name": service}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=named, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint.rstrip("/") + "/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _Tracing.provider, _Tracing.exporter = provider, exporter
    _Tracing.tracer = provider.get_tracer("captionfleet")
    log.info("sending traces to %s", settings.otlp_endpoint)


def stop_tracing() -> None:
    """Send what is left, for some seconds at most, and trace no more."""
    provider, _Tracing.provider, _Tracing.tracer = _Tracing.provider, None, None
    if provider is None:
        return
    # A collector that is away must not hold up the process's end.
    ending = threading.Thread(target=provider.shutdown, name="last-traces", daemon=True)
    ending.start()
    ending.join(LAST_WORDS_S)
    if ending.is_alive() and _Tracing.exporter is not None:
        _Tracing.exporter.shutdown()  # type: ignore[no-untyped-call]


def begin(
    name: str,
    kind: str = "internal",
    *,
    after: str | None = None,
    linked: bool = False,
    began: float | None = None,
    **attributes: Value,
) -> Traced | None:
    """Begin a span; ``None`` while tracing is off.

    It belongs to the span at ``after`` (a traceparent), else to the thread's own; a ``linked`` one begins a
    trace of its own that points there. ``began`` is an earlier ``time.monotonic()``. Kinds: internal, server,
    consumer.
    """
    tracer = _Tracing.tracer
    if tracer is None:
        return None
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = None
    links = []
    if after is not None:
        context = TraceContextTextMapPropagator().extract({"traceparent": after}, Context())
        if linked:
            links = [Link(get_current_span(context).get_span_context())]
            context = Context()
    start_time = None if began is None else _clock(began)
    span = tracer.start_span(
        name, context, SpanKind[kind.upper()], attributes=attributes, links=links, start_time=start_time
    )
    return Traced(tracer, span)


def here(traced: Traced | None) -> contextlib.AbstractContextManager[None]:
    """Make a span, if there is one, that of the present thread."""
    return _NOWHERE if traced is None else traced.here()


def trace_ids() -> Mapping[str, str]:
    """Return the ids of the thread's trace and span, for its log lines."""
    if _Tracing.tracer is None:
        return _NO_IDS
    from opentelemetry.trace import get_current_span

    place = get_current_span().get_span_context()
    if not place.is_valid:
        return _NO_IDS
    return {"trace_id": f"{place.trace_id:032x}", "span_id": f"{place.span_id:016x}"}


_NOWHERE: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
_NO_IDS: Mapping[str, str] = {}


def _clock(moment: float) -> int:
    """Return the wall clock's nanoseconds at a ``time.monotonic()`` of this process."""
    return time.time_ns() - int((time.monotonic() - moment) * 1e9)
