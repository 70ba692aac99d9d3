"""Calls over HTTP: when they are repeated, how long they wait, what is said when they fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from cli.console import CommandFailed
from cli.remote import ATTEMPTS, Refused, Remote
from jobs.settings import Settings

Answer = tuple[int, dict[str, str], bytes] | None
PROBLEM = {"Content-Type": "application/problem+json"}


class Script(ThreadingHTTPServer):
    """Answers requests as scripted, ``None`` by hanging up; keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Script
    protocol_version = "HTTP/1.1"

    def handle_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append((f"{self.command} {self.path}", dict(self.headers), body))
        answer = self.server.answers.pop(0)
        if answer is None:
            self.close_connection = True
            return
        status, headers, content = answer
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = handle_one  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def script() -> Iterator[Script]:
    with Script() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long calls would have waited."""
    waited: list[float] = []
    monkeypatch.setattr("cli.remote.time.sleep", waited.append)
    return waited


@pytest.fixture
def remote(script: Script) -> Iterator[Remote]:
    with Remote(Settings(url=script.url, api_key="cf_secret")) as remote:
        yield remote


def _problem(status: int, code: str, **headers: str) -> Answer:
    body = json.dumps({"code": code, "detail": f"it is {code}"}).encode()
    return status, PROBLEM | {name.replace("_", "-"): value for name, value in headers.items()}, body


OK: Answer = (200, {"Content-Type": "application/json"}, b'{"id": "job_1"}')
KEYED = {"Idempotency-Key": "k1"}


def test_a_busy_server_is_given_the_time_it_asks_for(
    script: Script, remote: Remote, pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    script.answers = [
        _problem(503, "database_unavailable", Retry_After="7"),
        _problem(429, "rate_limited", Retry_After="3600"),
        _problem(409, "idempotency_in_progress", Retry_After="5"),
        None,
        OK,
    ]
    bodies = iter([b"one", b"two", b"thr", b"fou", b"fiv"])
    assert remote.post("/v1/jobs", lambda: [next(bodies)], KEYED | {"Content-Length": "3"})["id"] == "job_1"
    assert pauses[:3] == [7, 60, 5]
    assert 0 < pauses[3] <= 15
    assert [body for _, _, body in script.requests] == [b"one", b"two", b"thr", b"fou", b"fiv"]
    assert {headers["Idempotency-Key"] for _, headers, _ in script.requests} == {"k1"}
    assert {headers["Authorization"] for _, headers, _ in script.requests} == {"Bearer cf_secret"}
    assert "it is database_unavailable (database_unavailable); trying again in 7 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "code"), [(400, "invalid_request"), (409, "idempotency_conflict"), (500, "internal_error")]
)
def test_what_is_refused_for_good_is_not_repeated(
    script: Script, remote: Remote, pauses: list[float], status: int, code: str
) -> None:
    script.answers = [_problem(status, code)]
    with pytest.raises(Refused, match=rf"it is {code} \({code}\)"):
        remote.post("/v1/jobs", lambda: [b""], KEYED)
    assert pauses == []


def test_patience_ends(script: Script, remote: Remote, pauses: list[float]) -> None:
    script.answers = [_problem(503, "storage_unavailable", Retry_After="1")] * ATTEMPTS
    with pytest.raises(Refused, match="storage_unavailable"):
        remote.get("/v1/jobs")
    assert pauses == [1] * (ATTEMPTS - 1)


def test_a_turn_that_may_have_happened_is_not_repeated(
    script: Script, remote: Remote, pauses: list[float]
) -> None:
    script.answers = [OK, None]
    remote.get("/v1/jobs")
    with pytest.raises(CommandFailed, match=rf"the connection to {script.url} broke \("):
        remote.post("/v1/jobs/job_1/retry")
    assert pauses == []


def test_a_server_that_was_never_there_is_not_waited_for(pauses: list[float]) -> None:
    with Script() as closed:
        url = closed.url
    with Remote(Settings(url=url)) as remote, pytest.raises(CommandFailed) as caught:
        remote.get("/v1/jobs")
    assert caught.value.message.startswith(f"no Captionfleet server answers at {url} (")
    assert pauses == []


def test_a_server_that_restarts_is_waited_for(script: Script, remote: Remote, pauses: list[float]) -> None:
    script.answers = [OK, None, None, OK]
    remote.get("/v1/jobs/job_1")
    assert remote.get("/v1/jobs/job_1") == {"id": "job_1"}
    assert len(pauses) == 2


@pytest.mark.parametrize("answer", [(200, {}, b"<html>"), (404, {}, b"<html>"), (404, {}, b"[]")])
def test_another_kind_of_server(script: Script, remote: Remote, answer: Answer) -> None:
    script.answers = [answer]
    with pytest.raises(CommandFailed, match=f"{script.url} does not answer like a Captionfleet server"):
        remote.get("/v1/jobs")


def _first(blocks: Iterator[bytes]) -> bytes:
    return next(blocks)


@pytest.mark.parametrize("read", [_first, lambda blocks: b"".join(blocks)])
def test_a_download(script: Script, remote: Remote, read: Callable[[Iterator[bytes]], bytes]) -> None:
    script.answers = [(200, {}, b"line\n"), _problem(409, "job_not_finished")]
    with remote.stream("/v1/jobs/job_1/results", format="jsonl") as blocks:
        assert read(blocks) == b"line\n"
    assert script.requests[0][0] == "GET /v1/jobs/job_1/results?format=jsonl"
    with pytest.raises(Refused, match="it is job_not_finished"), remote.stream("/v1/jobs/job_1/results"):
        raise AssertionError("a refusal was taken for results")


def test_no_proxy_between_this_machine_and_itself(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    script.answers = [OK]
    with Remote(Settings(url=script.url)) as remote:
        assert remote.get("/v1/jobs") == {"id": "job_1"}
    with Remote(Settings(url="http://captions.invalid")) as remote, pytest.raises(CommandFailed):
        remote.get("/v1/jobs")


def test_the_client_timeout_outlasts_a_wait() -> None:
    with Remote(Settings()) as remote:
        timeout = remote._http.timeout
    assert isinstance(timeout, httpx.Timeout)
    assert timeout.read is not None
    assert timeout.read > 30
