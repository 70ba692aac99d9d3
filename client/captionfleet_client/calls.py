"""Every call of the API, written once as a coroutine; the clients give it a transport."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Unpack
from urllib.parse import quote

from captionfleet_client.connection import NOT_MODIFIED, Connection
from captionfleet_client.errors import InvalidArgument, NotFound, UnexpectedAnswer, WaitTimeout, json_of
from captionfleet_client.multipart import multipart
from captionfleet_client.reading import read
from captionfleet_client.records import Item, ItemStatus, Job, JobStatus, Model, Record
from captionfleet_client.requests import Request, json_body, visible
from captionfleet_client.sources import Direct, Images, JobSettings, Options, Source
from captionfleet_client.uploading import DirectUpload

R = TypeVar("R", bound=Record)
PAGE = 100
WAIT_S = 20
SHORTEST_S = 0.2
Format = Literal["jsonl", "csv", "parquet", "txt.zip"]


class Calls:
    """What a server can be asked."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def submit(self, source: Source, **settings: Unpack[JobSettings]) -> Job:
        """Make a job of a source; safe to repeat, for it carries an Idempotency-Key."""
        key, progress = settings.get("idempotency_key"), settings.get("progress")
        rest = {
            name: value for name, value in settings.items() if name not in ("idempotency_key", "progress")
        }
        job = {name: value for name, value in rest.items() if value}
        if not visible(key or ""):
            raise InvalidArgument("an idempotency key is made of visible ASCII characters")
        if isinstance(source, Direct):
            source.check(job)
            upload = DirectUpload(self._connection, source, progress)
            references = await upload.send()
            made = await self._submit(Images(references).request(job), key or upload.state.key)
            upload.state.forget()
            return made
        request = source.request(job)
        assert request.body is not None, "a source without a body"
        return await self._submit(replace(request, body=request.body.watched(progress)), key)

    async def _submit(self, request: Request, key: str | None) -> Job:
        headers = {"Idempotency-Key": key or secrets.token_urlsafe(24)}
        return read(Job, await self._connection.json(replace(request, headers=headers)))

    async def caption(
        self, image: str | Path | bytes, options: Options | None = None, *, timeout: float | None = None
    ) -> Item:
        """Caption one image: a file here, or its bytes; waits as long as it takes, or ``timeout`` seconds."""
        file = ("image", image) if isinstance(image, bytes) else Path(image)
        body = multipart("options", dict(options or {}), "image", [file])
        headers = {"Idempotency-Key": secrets.token_urlsafe(24)}
        answer = await self._connection.json(Request("POST", "/v1/captions", headers=headers, body=body))
        if not isinstance(answer, dict) or answer.get("object") != "job":
            return read(Item, answer)
        job = await self.wait(read(Job, answer), timeout=timeout)
        return await self.item(job, 0)

    async def job(self, job: Job | str) -> Job:
        """Read a job as it is now."""
        return read(Job, await self.call("GET", _path(job)))

    async def jobs(
        self, status: JobStatus | None = None, *, limit: int | None = None
    ) -> AsyncGenerator[Job, None]:
        """List jobs, newest first, at most ``limit``."""
        async for job in self._pages(Job, "/v1/jobs", limit, {"status": status}):
            yield job

    async def wait(
        self,
        job: Job | str,
        *,
        timeout: float | None = None,
        progress: Callable[[Job], None] | None = None,
    ) -> Job:
        """Return a job when it is over; ``progress`` hears of every change; raise ``WaitTimeout``.

        The server is asked at least once: a record from before a retry may say that the job is over.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        known: Job | None = None
        etag = None
        while known is None or not known.final:
            if known is not None and until <= time.monotonic():
                raise WaitTimeout(f"{_id(job)} is not over after {timeout:g} s")
            news, etag = await self._look(job, etag, until)
            if progress is not None and news is not None:
                progress(news)
            known = news or known
        return known

    async def _look(self, job: Job | str, etag: str | None, until: float) -> tuple[Job | None, str | None]:
        """Return the job and its version when it is no longer ``etag``, ``None`` where it is still that one.

        The first look does not wait: what changed since the caller's own would go unnoticed.
        """
        began = time.monotonic()
        headers = {"If-None-Match": etag} if etag else {}
        params = {"wait": f"{max(0.0, min(WAIT_S, until - began)):.1f}"} if etag else {}
        request = Request("GET", _path(job), params=params, headers=headers)
        response = await self._connection.answer(request, until)
        unchanged = response.status_code == NOT_MODIFIED
        news = None if unchanged else read(Job, json_of(response))
        version = etag if unchanged else response.headers.get("ETag")
        if (etag or not version) and not (news and news.final):
            # A busy server answers at once, whatever it was asked: never ask it faster than this.
            await self._connection.transport.pause(max(0.0, SHORTEST_S - (time.monotonic() - began)))
        return news, version

    async def items(
        self,
        job: Job | str,
        *,
        status: ItemStatus | None = None,
        q: str | None = None,
        sort: Literal["position", "score"] | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[Item, None]:
        """List a job's items page by page, also before its end; ``q`` searches the captions."""
        query = {"status": status, "q": q, "sort": sort}
        async for item in self._pages(Item, f"{_path(job)}/items", limit, query):
            yield item

    async def item(self, job: Job | str, position: int) -> Item:
        """Read one item."""
        return read(Item, await self.call("GET", f"{_path(job)}/items/{position}"))

    async def edit(self, job: Job | str, position: int, caption: str | None) -> Item:
        """Keep a caption of yours beside the model's own, or take it back with ``None``."""
        body = json_body({"caption": caption})
        request = Request("PATCH", f"{_path(job)}/items/{position}", body=body)
        return read(Item, await self._connection.json(request))

    async def results(self, job: Job | str, *, partial: bool = False) -> AsyncGenerator[Item, None]:
        """Stream all items of a finished job, or with ``partial`` what there is so far."""
        rest = b""
        async with aclosing(self.download(job, partial=partial)) as blocks:
            async for block in blocks:
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    yield _item(line)
        if rest:
            yield _item(rest)

    async def download(
        self, job: Job | str, format: Format = "jsonl", *, partial: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Stream the results as a file's bytes."""
        params = {"format": format} | ({"partial": 1} if partial else {})
        request = Request("GET", f"{_path(job)}/results", params=params)
        async with aclosing(self._connection.download(request)) as blocks:
            async for block in blocks:
                yield block

    async def cancel(self, job: Job | str) -> Job:
        """Stop a job; captions made so far stay."""
        return read(Job, await self.call("POST", f"{_path(job)}/cancel", safe=True))

    async def retry(self, job: Job | str) -> Job:
        """Caption the failed and canceled images of a finished job again."""
        return read(Job, await self.call("POST", f"{_path(job)}/retry"))

    async def delete(self, job: Job | str) -> None:
        """Delete a job with its images and captions."""
        try:
            await self.call("DELETE", _path(job))
        except NotFound as error:
            # Gone by the try whose answer was lost.
            if not error.doubtful:
                raise

    async def models(self) -> list[Model]:
        """Return the models that jobs may name."""
        answer = await self.call("GET", "/v1/models")
        return [read(Model, model) for model in _data(answer, "/v1/models")]

    async def call(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        *,
        safe: bool | None = None,
    ) -> Any:
        """Make any other call of the API with JSON in and out; ``safe`` is whether it may be repeated."""
        repeatable = method in ("GET", "PUT", "DELETE") if safe is None else safe
        content = None if body is None else json_body(body)
        return await self._connection.json(Request(method, path, params or {}, body=content, safe=repeatable))

    async def entries(
        self, path: str, limit: int | None = None, **query: Any
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the entries of any list of the API, as JSON; of one that has pages also at most ``limit``."""
        async for entry in self._entries(path, limit, None, query):
            yield entry

    async def _entries(
        self, path: str, limit: int | None, size: int | None, query: dict[str, Any]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the entries by pages of ``size``; lists without pages refuse to be asked for a size."""
        cursor = None
        while limit is None or limit > 0:
            asked = {"limit": size if limit is None else min(limit, PAGE), "cursor": cursor, **query}
            page = await self.call("GET", path, asked)
            data = _data(page, path)
            for entry in data:
                yield entry
            limit = None if limit is None else limit - len(data)
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    async def _pages(
        self, kind: type[R], path: str, limit: int | None, query: dict[str, Any]
    ) -> AsyncGenerator[R, None]:
        async for entry in self._entries(path, limit, PAGE, query):
            yield read(kind, entry)


def _id(job: Job | str) -> str:
    return job if isinstance(job, str) else job.id


def _path(job: Job | str) -> str:
    return f"/v1/jobs/{quote(_id(job), safe='', errors='replace')}"


def _data(answer: Any, path: str) -> list[dict[str, Any]]:
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list):
        raise UnexpectedAnswer(f"the server's answer to {path} is no list")
    return data


def _item(line: bytes) -> Item:
    try:
        return read(Item, json.loads(line))
    except ValueError as error:
        raise UnexpectedAnswer(f"a line of the results is no item: {error}") from error
