"""Traces: where spans belong, and a collector or a library that is not there."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest

from jobs import tracing
from jobs.errors import StartupError
from jobs.settings import Settings
from jobs.tracing import begin, here, start_tracing, stop_tracing, trace_ids
from tests.collectors import run_collector
from tests.processes import reserve_port

TRACE = "0af7651916cd43dd8448eb211c80319c"
GIVEN = f"00-{TRACE}-b7ad6b7169203331-01"
EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    stop_tracing()


def test_a_span_belongs_to_the_one_named_or_to_the_threads_own_or_is_linked_to_it() -> None:
    with run_collector() as collector:
        start_tracing(Settings(otlp_endpoint=collector.url + "/"), "tested")
        outer = begin("outer", after=GIVEN)
        assert outer
        with here(outer):
            assert trace_ids()["trace_id"] == TRACE
            assert outer.traceparent == f"00-{TRACE}-{trace_ids()['span_id']}-01"
            inner = begin("inner")
        linked = begin("linked", "consumer", after=outer.traceparent, linked=True, chunk=16)
        strange = begin("strange", after="00-no-traceparent")
        assert inner
        assert linked
        assert strange
        now = time.monotonic()
        outer.add("part", now - 1.5, now - 1)
        for span, error in ((inner, "not_found"), (linked, None), (strange, None), (outer, None)):
            span.end(error=error)
        stop_tracing()
    spans = {span.name: span for service, span in collector.received if service == "tested"}
    assert {span.trace_id.hex() == TRACE for span in (spans["outer"], spans["inner"], spans["part"])} == {
        True
    }
    assert spans["inner"].parent_span_id == spans["part"].parent_span_id == spans["outer"].span_id
    assert spans["inner"].status.message == "not_found"
    assert 0.4e9 < spans["part"].end_time_unix_nano - spans["part"].start_time_unix_nano < 0.6e9
    (link,) = spans["linked"].links
    assert (link.trace_id.hex(), link.span_id) == (TRACE, spans["outer"].span_id)
    assert not spans["linked"].parent_span_id
    assert len({spans[name].trace_id for name in ("linked", "strange", "outer")}) == 3


def test_a_collector_that_is_away_holds_no_process_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "LAST_WORDS_S", 0.3)
    start_tracing(Settings(otlp_endpoint=f"http://127.0.0.1:{reserve_port()}"), "tested")
    span = begin("lost")
    assert span
    span.end()
    began = time.monotonic()
    stop_tracing()
    assert time.monotonic() - began < 10, "it would try for a minute"
    assert begin("after the end") is None
    for thread in threading.enumerate():
        if thread.name == "last-traces":
            thread.join(10)
            assert not thread.is_alive()


def test_a_collector_without_the_library_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, EXPORTER, None)
    with pytest.raises(
        StartupError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT is set, .*`pip install '\.\[tracing\]'`"
    ):
        start_tracing(Settings(otlp_endpoint="http://127.0.0.1:1"), "tested")
