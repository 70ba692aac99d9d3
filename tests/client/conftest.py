"""Both clients behind one face, a server that answers as scripted, and a real one."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from captionfleet_client import AsyncClient, Client, Retries
from captionfleet_client.transports import AsyncTransport, BlockingTransport
from tests.e2e.cli.commands import Server
from tests.web import Came, Web, answer, serving

Said = tuple[int, dict[str, str], bytes]
Answer = Said | Callable[[], Said] | None


@dataclass
class Script:
    """Answers as scripted, or as the test then says, ``None`` by hanging up; ``came`` is what was sent."""

    web: Web
    answers: list[Answer] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.web.url("")

    @property
    def came(self) -> list[Came]:
        return self.web.came


@contextmanager
def scripted_server() -> Iterator[Script]:
    """Run a server that answers as scripted."""

    def answering(handler: BaseHTTPRequestHandler, _: Came) -> None:
        given = served.answers.pop(0)
        if given is None:
            handler.close_connection = True
        else:
            status, headers, body = given() if callable(given) else given
            # Whoever promises more than comes hangs up.
            handler.close_connection = int(headers.get("Content_Length", len(body))) != len(body)
            answer(handler, status, body, **headers)

    with serving(answering) as web:
        served = Script(web)
        yield served


@pytest.fixture
def script() -> Iterator[Script]:
    with scripted_server() as script:
        yield script


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long calls would have waited."""
    waited: list[float] = []

    async def pause(_: object, seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(BlockingTransport, "pause", pause)
    monkeypatch.setattr(AsyncTransport, "pause", pause)
    return waited


class Either:
    """The blocking or the async client: ``either.job("x")`` is the value, of lists all entries."""

    def __init__(self, kind: str, url: str, **settings: Any) -> None:
        self._runner = asyncio.Runner() if kind == "async" else None
        # In a thread of its own: a browser that other tests drive keeps a loop running in the main one.
        self._thread = ThreadPoolExecutor(1)
        self._client = AsyncClient(url, **settings) if self._runner else Client(url, **settings)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*words: Any, **settings: Any) -> Any:
            value = getattr(self._client, name)(*words, **settings)
            if self._runner is not None:
                return self._thread.submit(self._runner.run, _awaited(value)).result()
            return list(value) if isinstance(value, Iterator) else value

        return call

    def end(self) -> None:
        if self._runner is None:
            self.close()
        else:
            self.aclose()
            self._thread.submit(self._runner.close).result()
        self._thread.shutdown()


async def _awaited(value: Any) -> Any:
    return [entry async for entry in value] if inspect.isasyncgen(value) else await value


Connect = Callable[..., Either]


@pytest.fixture(params=["blocking", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Connect a client of either kind."""
    made: list[Either] = []

    def connect(url: str, **settings: Any) -> Either:
        made.append(Either(request.param, url, **settings))
        return made[-1]

    yield connect
    for either in made:
        either.end()


@pytest.fixture
def scripted(script: Script, connect: Connect) -> Either:
    """A client of either kind of the scripted server."""
    return connect(script.url, api_key="cf_secret", retries=Retries())


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """A running server that the tests of this package share."""
    server = Server()
    server.start()
    yield server
    server.process.stop()


def problem(status: int, code: str, **headers: str) -> Said:
    """Answer with a problem."""
    body = json.dumps({"code": code, "detail": f"it is {code}", "request_id": "req_1"}).encode()
    return status, {"Content_Type": "application/problem+json", **headers}, body


def ok(value: Any, **headers: str) -> Said:
    """Answer with JSON."""
    return 200, {"Content_Type": "application/json", **headers}, json.dumps(value).encode()


def job_json(**changed: Any) -> dict[str, Any]:
    """A job as the server sends it."""
    counts = dict.fromkeys(("total", "queued", "running", "succeeded", "failed", "canceled"), 0)
    job: dict[str, Any] = {
        "id": "job_1",
        "object": "job",
        "status": "running",
        "counts": counts,
        "progress": 0.0,
        "model": "small",
        "options": {},
        "metadata": {},
        "priority": "normal",
        "source": "upload",
        "created_at": "2026-11-23T03:16:16.701173Z",
        "something_new": 1,
    }
    return job | changed
