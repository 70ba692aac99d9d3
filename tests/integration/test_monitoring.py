"""API and worker observed by what operators run: a trace collector, Prometheus over our rules, Flower."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.collectors import run_collector
from tests.conftest import ROOT
from tests.integration.observed import Observed, run_observed
from tests.pictures import jpeg_bytes
from tests.processes import Process, reserve_port, wait_until
from tests.servers import S3, Postgres, run_redis, unavailable

MONITORING = ROOT / "deploy/monitoring"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
# What only the consumer of bucket events and GPUs have.
ELSEWHERE = ("captionfleet_events_", "captionfleet_worker_gpu_")


@pytest.fixture(scope="module")
def observed(
    postgres: Postgres, s3_service: S3, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Observed]:
    """One deployment for all tests."""
    s3 = dataclasses.replace(s3_service, bucket=s3_service.new_bucket())
    folder = tmp_path_factory.mktemp("observed")
    with (
        run_redis() as redis,
        postgres.database() as url,
        run_collector() as collector,
        run_observed(redis, url, s3, collector, folder) as running,
    ):
        yield running


def test_a_trace_leads_from_the_request_to_the_caption(observed: Observed) -> None:
    given = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    job_id = observed.submit(jpeg_bytes(1), jpeg_bytes(2), b"no image", **given)

    def complete() -> Any:
        found = observed.collector.of_trace(TRACE)
        return found if "record" in found and "POST /v1/jobs" in found and "chunk" in found else None

    spans = wait_until(complete, what="the spans")
    named = {name: [span for _, span in found] for name, found in spans.items()}
    assert {name: len(found) for name, found in named.items()} == {
        **dict.fromkeys(("POST /v1/jobs", "intake", "chunk", "claim", "record"), 1),
        **dict.fromkeys(("fetch", "decode"), 3),
        **dict.fromkeys(("batch", "caption"), 2),
    }
    (request,), (intake,), (chunk,) = named["POST /v1/jobs"], named["intake"], named["chunk"]
    assert request.parent_span_id.hex() == PARENT
    assert intake.parent_span_id == request.span_id
    assert chunk.parent_span_id == intake.span_id
    parts = [
        part for name in ("claim", "fetch", "decode", "batch", "caption", "record") for part in named[name]
    ]
    assert {part.parent_span_id for part in parts} == {chunk.span_id}
    _assert_within(chunk, parts)
    _assert_within(request, [intake])
    assert intake.start_time_unix_nano <= chunk.start_time_unix_nano
    services = {name: {service for service, _ in found} for name, found in spans.items()}
    assert services["intake"] == services["POST /v1/jobs"] == {"captionfleet-api"}
    assert services["chunk"] == services["caption"] == {"captionfleet-worker"}
    _assert_logged(observed, job_id, request, chunk)


def _assert_within(whole: Span, parts: list[Span]) -> None:
    """Times are taken from two clocks, and a busy machine may stop a process between the two."""
    allowed = 100_000_000
    for part in parts:
        assert part.start_time_unix_nano >= whole.start_time_unix_nano - allowed, part.name
        assert part.end_time_unix_nano <= whole.end_time_unix_nano + allowed, part.name


def _assert_logged(observed: Observed, job_id: str, request: Span, chunk: Span) -> None:
    """Lines of the request and of the chunk name the trace, and nothing of a picture's content."""
    for process, span, said in (
        (observed.api, request, "POST /v1/jobs 202"),
        (observed.worker, chunk, f"image 2 of {job_id} failed: unsupported_format"),
    ):
        (line,) = (
            line for line in observed.log_lines(process) if said in line["message"] and line["job"] == job_id
        )
        assert (line["trace_id"], line["span_id"]) == (TRACE, span.span_id.hex())


class Prometheus:
    """A running server, asked over its HTTP API."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/"

    def ask(self, path: str, **query: str) -> Any:
        """Return what a call answers; ``None`` while nobody listens."""
        try:
            url = f"{self._url}{path}?{urllib.parse.urlencode(query)}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
                return None  # It still starts.
            raise AssertionError(f"{path} {query}: {error.read().decode()}") from error
        except OSError:
            return None

    def numbers(self, query: str) -> list[float]:
        """Return what a query finds that is a number."""
        found = self.ask("query", query=query)["result"]
        return [value for sample in found if not math.isnan(value := float(sample["value"][1]))]


@pytest.fixture
def prometheus(observed: Observed, tmp_path: Path) -> Iterator[Prometheus]:
    """Prometheus over our rules, scraping API and worker."""
    program = shutil.which("prometheus")
    if program is None:
        unavailable("prometheus is not installed (Debian package prometheus; .ci/run installs it)")
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(MONITORING / "rules.yml")],
        "scrape_configs": [{"job_name": "captionfleet", "static_configs": [{"targets": observed.targets}]}],
    }
    file = tmp_path / "prometheus.yml"
    file.write_text(json.dumps(configuration))
    port = reserve_port()
    options = [f"--config.file={file}", f"--storage.tsdb.path={tmp_path}/data"]
    server = Process([program, *options, f"--web.listen-address=127.0.0.1:{port}"])
    asked = Prometheus(port)
    try:
        server.start(lambda: asked.ask("query", query="up") is not None)
        yield asked
    finally:
        server.kill()


def test_prometheus_finds_all_that_rules_and_dashboard_ask_for(
    observed: Observed, prometheus: Prometheus
) -> None:
    up = 'sum(up{job="captionfleet"}) == 2'
    wait_until(lambda: prometheus.ask("query", query=up)["result"], what="a scrape of both")

    def evaluated() -> list[Any]:
        rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else []

    rules = wait_until(evaluated, what="every rule's evaluation")
    assert [rule["lastError"] for rule in rules if rule["health"] != "ok"] == []
    dashboard = json.loads((MONITORING / "dashboards/captionfleet.json").read_text())
    panels = {
        target["expr"]: panel["title"] for panel in dashboard["panels"] for target in panel.get("targets", ())
    }
    assert len(panels) > 20
    waiting = {
        query: title for query, title in panels.items() if not any(name in query for name in ELSEWHERE)
    }
    assert len(waiting) > 20

    def answered() -> bool:
        observed.submit(jpeg_bytes(3), jpeg_bytes(3), b"no image")
        for query in list(waiting):
            if prometheus.numbers(query.replace("$__rate_interval", "20s")):
                del waiting[query]
        return not waiting

    try:
        wait_until(answered, 90)
    except AssertionError as error:
        raise AssertionError(f"these panels stay empty: {waiting}") from error
    for query in panels:
        assert prometheus.ask("query", query=query.replace("$__rate_interval", "20s")) is not None


def test_flower_shows_workers_and_their_messages(observed: Observed, tmp_path: Path) -> None:
    """By compose's own command line."""
    found = re.search(r"command: \[(celery, .*, flower)\]", (ROOT / "docker-compose.yml").read_text())
    assert found, "compose starts no Flower"
    words = found[1].replace("redis://redis:6379/0", observed.redis.url).split(", ")
    assert f"--broker={observed.redis.url}" in words
    port = reserve_port()
    options = ["--address=127.0.0.1", f"--port={port}"]
    celery = str(Path(sys.executable).with_name(words[0]))
    own = os.environ | {"FLOWER_UNAUTHENTICATED_API": "1"}
    flower = Process([celery, *words[1:], *options], environment=own, folder=tmp_path)
    url = f"http://127.0.0.1:{port}"

    def get(path: str) -> Any:
        try:
            return httpx.get(url + path, timeout=10).raise_for_status()
        except httpx.TransportError:
            return None

    try:
        flower.start(lambda: get("/healthcheck") is not None)
        # It hears of workers by their heartbeats.
        wait_until(lambda: "small@" in get("/workers").text, what="the worker")
        job_id = observed.submit(jpeg_bytes(4))
        messages = wait_until(lambda: _done(get("/api/tasks").json(), job_id), what="the chunk's message")
    finally:
        flower.kill()
    (message,) = messages
    assert message["name"] == "captionfleet.caption_chunk"
    assert message["worker"].startswith(f"small@{socket.gethostname()}-")


def _done(listed: dict[str, Any], job_id: str) -> list[dict[str, Any]]:
    return [task for task in listed.values() if job_id in task["args"] and task["state"] == "SUCCESS"]
