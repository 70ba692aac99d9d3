"""What the API counts: by route, over all its processes, and shown to operators alone."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
from pathlib import Path

import pytest

from api.app import create_app
from jobs.logs import JsonLines
from jobs.services import Services
from tests.contract.api import running
from tests.contract.api.running import Running, prepare
from tests.contract.api.support import Client, Deployment, photos, refused
from tests.processes import reserve_port, wait_until
from tests.scrapes import samples, scrape

# Several processes over one SQLite file: only their counting together is looked at.
TOGETHER = """
import functools, jobs.services
jobs.services.open_database = functools.partial(jobs.services.open_database, exclusive=False)
"""


def test_embedded_mode_shows_everything_without_a_key(embedded: Services) -> None:
    client = Client(create_app(embedded), None)
    before = samples(client.get("/metrics").text)
    client.upload(*photos(2))
    client.get("/v1/jobs/job_00000000000000000000000000")
    answer = client.get("/metrics")
    assert answer.content_type.startswith("text/plain")
    after = samples(answer.text)
    count = "captionfleet_http_request_duration_seconds_count"
    made = (count, "POST", "/v1/jobs", "202")
    assert after[made] - before.get(made, 0) == 1
    assert after[count, "GET", "/v1/jobs/{job_id}", "404"] >= 1
    assert after["captionfleet_http_request_bytes_total", "POST", "/v1/jobs"] > 1000
    # This one, and what other tests began to read.
    assert after["captionfleet_http_requests_in_flight",] == before["captionfleet_http_requests_in_flight",]
    assert after["captionfleet_database_up",] == 1
    assert ("captionfleet_backlog_images", "small") in after
    assert ("captionfleet_worker_images_total", "succeeded") in after
    assert "process_cpu_seconds_total" in {name for name, *_ in after}


def test_the_backlog_is_told_by_model(deployment: Deployment) -> None:
    services, client = deployment.services, deployment.client()
    client.upload(*photos(3))
    exposition = create_app(services).extensions["captionfleet"].exposition
    found = samples(exposition.render()[0].decode())
    assert found["captionfleet_backlog_images", "small"] >= 3
    assert found["captionfleet_backlog_seconds", "small"] > 0
    assert found["captionfleet_oldest_job_age_seconds", "small"] > 0
    assert found["captionfleet_webhooks_waiting",] >= 0
    assert found["captionfleet_backlog_images", "large"] == 0


def test_owners_of_keys_do_not_see_what_others_do(client: Client) -> None:
    refused(client.get("/metrics"), "forbidden", "CAPTIONFLEET_METRICS_PORT")


def test_what_no_route_takes_is_counted_under_one_name(embedded: Services) -> None:
    client = Client(create_app(embedded), None)
    client.get("/secret-name-of-a-file.jpg")
    text = client.get("/metrics").text
    assert "secret-name" not in text
    assert samples(text)["captionfleet_http_request_duration_seconds_count", "other", "other", "404"] >= 1


def test_a_request_is_logged_with_its_ids_and_without_secrets(client: Client) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel("DEBUG")
    try:
        made = client.upload(*photos(1)).json["id"]
        client.get(f"/v1/jobs/{made}/items?q=secret-words", X_Request_Id="mine-1")
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    first, second = (line for line in lines if line["logger"] == "captionfleet.requests")
    assert (first["status"], first["job"]) == (202, made)
    assert (second["request"], second["job"], second["path"]) == ("mine-1", made, f"/v1/jobs/{made}/items")
    assert client.key is not None
    for private in (client.key, "secret-words", "JFIF"):
        assert private not in written.getvalue()


def children(server: Running) -> set[int]:
    """The processes that answer."""
    pid = server.process.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def test_processes_count_together_and_a_death_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "SERVER", TOGETHER + running.SERVER)
    port = reserve_port()
    server = prepare(tmp_path, workers=3, CAPTIONFLEET_METRICS_PORT=str(port))
    server.start()
    wait_until(lambda: len(children(server)) == 3)
    for _ in range(30):
        assert server.get("/v1/jobs")[0] == 200
    listed = ("captionfleet_http_request_duration_seconds_count", "GET", "/v1/jobs", "200")
    assert {scrape(port)[listed] for _ in range(6)} == {30}
    before = children(server)
    os.kill(min(before), signal.SIGKILL)
    wait_until(lambda: len(children(server)) == 3 and children(server) != before)
    assert scrape(port)[listed] == 30
    server.get("/v1/jobs")
    assert {scrape(port)[listed] for _ in range(6)} == {31}
    assert server.process.stop() == 0
    assert re.search(r"\bcf_live_\w{8}_", server.process.output) is None
