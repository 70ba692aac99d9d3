"""Server-sent events: over both deployments, and from the real server with more clients than threads."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from api import event_routes
from jobs.services import Services
from tests.contract.api.running import Running, prepare
from tests.contract.api.support import MULTIPART, Client, Deployment, caption, multipart, photos, refused
from tests.contract.api.test_jobs import once_awaited
from tests.processes import wait_until


def events(text: str) -> list[tuple[str, str, Any]]:
    """Id, kind and data of each event of a stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
    return found


def test_events_follow_a_job_to_its_end(client: Client, services: Services) -> None:
    job = client.job(*photos(3))
    captioning = once_awaited(client, job["id"], lambda: caption(services, job["id"]))
    answer = client.get(job["links"]["events"])
    captioning.join()
    assert answer.mimetype == "text/event-stream"
    assert answer.headers["Cache-Control"] == "no-store"
    seen = events(answer.text)
    assert {kind for _, kind, _ in seen} == {"job"}
    assert [data["status"] for _, _, data in seen][:: len(seen) - 1] == ["queued", "completed"]
    assert seen[-1][2]["counts"]["succeeded"] == 3
    assert [int(version) for version, _, _ in seen] == sorted({int(version) for version, _, _ in seen})
    assert seen[-1][2] == client.get(job["links"]["self"]).json


def test_a_stream_goes_on_from_the_last_event(client: Client, services: Services) -> None:
    job = client.job(*photos(1))
    version = client.get(job["links"]["self"]).headers["ETag"].strip('W/"')
    captioning = once_awaited(client, job["id"], lambda: caption(services, job["id"]))
    seen = events(client.get(job["links"]["events"], Last_Event_ID=version).text)
    captioning.join()
    assert version not in [number for number, _, _ in seen]
    assert seen[-1][2]["status"] == "completed"
    assert client.get(job["links"]["events"], Last_Event_ID=seen[-1][0]).status_code == 204
    late = events(client.get(job["links"]["events"], Last_Event_ID="long ago").text)
    assert [data["status"] for _, _, data in late] == ["completed"]


def test_a_job_deleted_meanwhile_ends_its_stream(client: Client, deployment: Deployment) -> None:
    job = client.job(*photos(1))
    delete, owner = deployment.services.store.jobs.delete, deployment.owner
    deleting = once_awaited(client, job["id"], lambda: delete(owner, job["id"]))
    seen = events(client.get(job["links"]["events"]).text)
    deleting.join()
    assert seen[-1] == ("", "deleted", {"id": job["id"], "object": "job", "deleted": True})
    refused(client.get(job["links"]["events"]), "job_not_found")


def test_a_long_stream_asks_to_come_again(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_routes, "LONGEST_S", 0.3)
    monkeypatch.setattr(event_routes, "HEARTBEAT_S", 0.1)
    text = client.get(client.job(*photos(1))["links"]["events"]).text
    assert text.startswith("retry: 1000\n\nid: ")
    assert text.endswith(": still there\n\n")
    assert [data["status"] for _, _, data in events(text)] == ["queued"]


# The real server: eight threads, of which four may wait.


class Stream:
    """One client's stream; its first line is ``retry: …``."""

    def __init__(self, server: Running, job_id: str) -> None:
        self._connection = server.connect()
        self._connection.request("GET", f"/v1/jobs/{job_id}/events", headers=server.headers)
        self._answer = self._connection.getresponse()
        self.retry, _, first = (self._answer.readline() for _ in range(3))
        assert first.startswith(b"id: ")

    def rest(self) -> bytes:
        """Read to the end."""
        return self._answer.read()

    def hang_up(self) -> None:
        """Close the connection, whatever is still to come."""
        self._answer.close()
        self._connection.close()


def make_job(server: Running) -> str:
    body = multipart(*photos(1))
    job = json.loads(server.send("POST", "/v1/jobs", body, Content_Type=MULTIPART)[2])
    return str(job["id"])


def test_many_streams_leave_room_give_it_back_and_end_with_the_server(tmp_path: Path) -> None:
    server = prepare(tmp_path)
    server.start()
    job_id = make_job(server)
    streams = [Stream(server, job_id) for _ in range(8)]
    retries = sorted(stream.retry for stream in streams)
    assert retries == [b"retry: 1000\n"] * 4 + [b"retry: 5000\n"] * 4
    began = time.monotonic()
    assert server.get("/healthz")[0] == 200
    # Long polls have no room either, and answer at once.
    assert server.get(f"/v1/jobs/{job_id}?wait=30")[0] == 200
    assert time.monotonic() - began < 25
    for stream in streams:
        stream.hang_up()

    def room() -> bool:
        stream = Stream(server, job_id)
        stream.hang_up()
        return stream.retry == b"retry: 1000\n"

    wait_until(room, 40, "a thread that is free again")

    stream = Stream(server, make_job(server))
    began = time.monotonic()
    assert server.process.stop() == 0
    assert time.monotonic() - began < 25
    assert b"data: {" in stream.rest()
    stream.hang_up()
    assert "Traceback" not in server.process.output, server.process.output
