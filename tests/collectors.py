"""A collector of OpenTelemetry traces: an HTTP server that reads OTLP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """What an OpenTelemetry collector received: spans by the service that made them."""

    url: str = ""
    received: list[tuple[str, Span]] = field(default_factory=list)

    def of_trace(self, trace_id: str) -> dict[str, list[tuple[str, Span]]]:
        """Return a trace's spans, and who sent them, by name."""
        found: dict[str, list[tuple[str, Span]]] = {}
        for service, span in list(self.received):
            if span.trace_id.hex() == trace_id:
                found.setdefault(span.name, []).append((service, span))
        return found


@contextmanager
def run_collector() -> Iterator[Collector]:
    """Run an HTTP server that reads OTLP."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = ExportTraceServiceRequest()
            sent.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/traces"
            for group in sent.resource_spans:
                names = {entry.key: entry.value.string_value for entry in group.resource.attributes}
                for scope in group.scope_spans:
                    collector.received += [(names["service.name"], span) for span in scope.spans]
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
