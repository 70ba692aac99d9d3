"""A real Prometheus scrapes the metrics, evaluates every rule and answers every query of the dashboard."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from api.app import METERS
from jobs.meters import Exposition
from jobs.metrics import GROUPS
from jobs.ports import open_metrics_listener, show_metrics
from jobs.settings import Settings
from tests.conftest import ROOT
from tests.processes import Process, reserve_port, wait_until
from tests.servers import unavailable

MONITORING = ROOT / "deploy/monitoring"


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


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """Prometheus over our rules, scraping this process's metrics port."""
    program = shutil.which("prometheus")
    if program is None:
        unavailable("prometheus is not installed (Debian package prometheus; .ci/run installs it)")
    listener = open_metrics_listener(Settings(metrics_port=0))
    assert listener is not None
    show_metrics(listener, Exposition([METERS.group, *GROUPS], process=True))
    target = f"127.0.0.1:{listener.getsockname()[1]}"
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(MONITORING / "rules.yml")],
        "scrape_configs": [{"job_name": "captionfleet", "static_configs": [{"targets": [target]}]}],
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


def test_prometheus_reads_the_metrics_and_understands_rules_and_dashboard(prometheus: Prometheus) -> None:
    wait_until(lambda: prometheus.ask("query", query='up{job="captionfleet"} == 1')["result"], 30, "a scrape")
    names = set(prometheus.ask("label/__name__/values"))
    assert {"captionfleet_worker_images_total", "process_cpu_seconds_total"} <= names

    def evaluated() -> list[Any]:
        rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else []

    rules = wait_until(evaluated, 30, "every rule's evaluation")
    assert [rule["lastError"] for rule in rules if rule["health"] != "ok"] == []
    dashboard = json.loads((MONITORING / "dashboards/captionfleet.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(queries) > 20
    for query in queries:
        assert prometheus.ask("query", query=query.replace("$__rate_interval", "5s")) is not None
