"""docs/observability.md, the dashboard and the alert rules name metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from api.app import METERS
from jobs.meters import Meter
from jobs.metrics import GROUPS
from tests.servers import unavailable

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "deploy/monitoring"
METERS_BY_NAME = {meter.name: meter for group in (METERS.group, *GROUPS) for meter in group.declared}
LABELS = {
    *("method", "route", "status", "model", "version", "device"),
    *("outcome", "code", "stage", "result", "state"),
}


def _samples(meter: Meter) -> set[str]:
    if meter.kind == "histogram":
        return {f"{meter.name}_{part}" for part in ("bucket", "count", "sum")}
    return {meter.name}


def _named(text: str) -> set[str]:
    return set(re.findall(r"captionfleet_[a-z_]+", text))


def test_the_tables_list_every_metric_as_it_is() -> None:
    text = (ROOT / "docs/observability.md").read_text()
    rows = re.findall(r"^\| `(captionfleet_\w+)` \| (\w+) \| (.*?) ?\| (.*?) \|$", text, re.M)
    documented = {name: (kind, labels.replace("`", ""), said) for name, kind, labels, said in rows}
    declared = {name: (m.kind, ", ".join(m.labels), m.text) for name, m in METERS_BY_NAME.items()}
    assert documented == declared


def test_names_follow_the_conventions_and_labels_say_nothing_of_clients() -> None:
    for name, meter in METERS_BY_NAME.items():
        assert name.endswith("_total") == (meter.kind == "counter"), name
        assert set(meter.labels) <= LABELS, name
        assert not re.search(r"_(ms|minutes|mb|percent)\b", name), name


def test_the_dashboard_and_the_rules_use_metrics_that_there_are() -> None:
    known = set().union(*(_samples(meter) for meter in METERS_BY_NAME.values()))
    dashboard = json.loads((MONITORING / "dashboards/captionfleet.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    rules = (MONITORING / "rules.yml").read_text()
    expressions = "\n".join(line for line in rules.splitlines() if "captionfleet stuck" not in line)
    used = _named("\n".join(queries)) | _named(expressions)
    assert used <= known
    unused = {name for name, meter in METERS_BY_NAME.items() if not _samples(meter) & used}
    assert unused == set()
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.fixture
def promtool() -> str:
    """Prometheus' own checker, of the Debian package ``prometheus``."""
    found = shutil.which("promtool")
    if found is None:
        unavailable("promtool is not installed (Debian package prometheus; .ci/run installs it)")
    return found


def _promtool(*command: str | Path, folder: Path = MONITORING) -> None:
    run = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_prometheus_takes_the_rules_and_the_configuration(promtool: str) -> None:
    _promtool(promtool, "check", "rules", "rules.yml")
    _promtool(promtool, "check", "config", "prometheus.yml")


def test_alerts_fire_when_they_should_and_not_before(promtool: str) -> None:
    _promtool(promtool, "test", "rules", "rules_test.yml", folder=ROOT / "tests/docs")


def test_prometheus_understands_every_query_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    dashboard = json.loads((MONITORING / "dashboards/captionfleet.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    rules = [
        {"record": f"query_{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate(queries)
    ]
    # JSON is YAML.
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    _promtool(promtool, "check", "rules", file)
