"""The two clients: the same calls, blocking or with ``async``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self, Unpack

import httpx

from captionfleet_client.calls import Calls, Format
from captionfleet_client.connection import Connection
from captionfleet_client.errors import InvalidArgument
from captionfleet_client.records import Item, ItemStatus, Job, JobStatus, Model
from captionfleet_client.requests import visible
from captionfleet_client.retries import Retries
from captionfleet_client.sources import JobSettings, Options, Source
from captionfleet_client.transports import AsyncTransport, BlockingTransport, each, run

LOCAL_URL = "http://127.0.0.1:8080"
# Reading takes longer than the longest poll: a wait that is answered late is no failure.
TIMEOUT = httpx.Timeout(120, connect=5)
PATIENT = Retries()


class AsyncClient(Calls):
    """A Captionfleet server, for asyncio; its calls are those of ``Calls``, to be awaited."""

    def __init__(
        self,
        url: str = LOCAL_URL,
        api_key: str | None = None,
        *,
        timeout: httpx.Timeout | float = TIMEOUT,
        retries: Retries = PATIENT,
    ) -> None:
        """Open nothing yet; raise ``InvalidArgument`` for what can be no address or no key.

        ``timeout`` is for silence in the middle of a call, not for waiting for a job.
        """
        self.url = _checked(url, api_key)
        self._http = httpx.AsyncClient(base_url=self.url, timeout=timeout, trust_env=not _local(self.url))
        super().__init__(Connection(AsyncTransport(self._http), self.url, api_key, retries))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


class Client:
    """A Captionfleet server; its calls block. It may be shared by threads."""

    def __init__(
        self,
        url: str = LOCAL_URL,
        api_key: str | None = None,
        *,
        timeout: httpx.Timeout | float = TIMEOUT,
        retries: Retries = PATIENT,
    ) -> None:
        """Open nothing yet; raise ``InvalidArgument`` for what can be no address or no key.

        ``timeout`` is for silence in the middle of a call, not for waiting for a job.
        """
        self.url = _checked(url, api_key)
        self._http = httpx.Client(base_url=self.url, timeout=timeout, trust_env=not _local(self.url))
        self._calls = Calls(Connection(BlockingTransport(self._http), self.url, api_key, retries))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(self, source: Source, **settings: Unpack[JobSettings]) -> Job:
        """Make a job of a source; safe to repeat, for it carries an Idempotency-Key."""
        return run(self._calls.submit(source, **settings))

    def caption(
        self, image: str | Path | bytes, options: Options | None = None, *, timeout: float | None = None
    ) -> Item:
        """Caption one image: a file here, or its bytes; waits as long as it takes, or ``timeout`` seconds."""
        return run(self._calls.caption(image, options, timeout=timeout))

    def job(self, job: Job | str) -> Job:
        """Read a job as it is now."""
        return run(self._calls.job(job))

    def jobs(self, status: JobStatus | None = None, *, limit: int | None = None) -> Iterator[Job]:
        """List jobs, newest first, at most ``limit``."""
        return each(self._calls.jobs(status, limit=limit))

    def wait(
        self,
        job: Job | str,
        *,
        timeout: float | None = None,
        progress: Callable[[Job], None] | None = None,
    ) -> Job:
        """Return a job when it is over; ``progress`` hears of every change; raise ``WaitTimeout``."""
        return run(self._calls.wait(job, timeout=timeout, progress=progress))

    def items(
        self,
        job: Job | str,
        *,
        status: ItemStatus | None = None,
        q: str | None = None,
        sort: Literal["position", "score"] | None = None,
        limit: int | None = None,
    ) -> Iterator[Item]:
        """List a job's items page by page, also before its end; ``q`` searches the captions."""
        return each(self._calls.items(job, status=status, q=q, sort=sort, limit=limit))

    def item(self, job: Job | str, position: int) -> Item:
        """Read one item."""
        return run(self._calls.item(job, position))

    def edit(self, job: Job | str, position: int, caption: str | None) -> Item:
        """Keep a caption of yours beside the model's own, or take it back with ``None``."""
        return run(self._calls.edit(job, position, caption))

    def results(self, job: Job | str, *, partial: bool = False) -> Iterator[Item]:
        """Stream all items of a finished job, or with ``partial`` what there is so far."""
        return each(self._calls.results(job, partial=partial))

    def download(self, job: Job | str, format: Format = "jsonl", *, partial: bool = False) -> Iterator[bytes]:
        """Stream the results as a file's bytes."""
        return each(self._calls.download(job, format, partial=partial))

    def cancel(self, job: Job | str) -> Job:
        """Stop a job; captions made so far stay."""
        return run(self._calls.cancel(job))

    def retry(self, job: Job | str) -> Job:
        """Caption the failed and canceled images of a finished job again."""
        return run(self._calls.retry(job))

    def delete(self, job: Job | str) -> None:
        """Delete a job with its images and captions."""
        run(self._calls.delete(job))

    def models(self) -> list[Model]:
        """Return the models that jobs may name."""
        return run(self._calls.models())

    def entries(self, path: str, limit: int | None = None, **query: Any) -> Iterator[dict[str, Any]]:
        """Yield the entries of any list of the API, as JSON; of one that has pages also at most ``limit``."""
        return each(self._calls.entries(path, limit, **query))

    def call(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        *,
        safe: bool | None = None,
    ) -> Any:
        """Make any other call of the API with JSON in and out; ``safe`` is whether it may be repeated."""
        return run(self._calls.call(method, path, params, body, safe=safe))


def _checked(url: str, api_key: str | None) -> str:
    try:
        known = httpx.URL(url)
        # As it will be looked up: a part of a name has at most 63 characters.
        known.host.encode("idna")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise InvalidArgument(f"{url!r} is no address of a server: {error}") from error
    if known.scheme not in ("http", "https") or not known.host:
        raise InvalidArgument(f"{url!r} is no address of a server: it begins with http:// or https://")
    if not visible(api_key or ""):
        raise InvalidArgument("an API key is made of visible ASCII characters")
    return url.rstrip("/")


def _local(url: str) -> bool:
    """Whether a server is on this machine: a proxy has no business in between."""
    host = httpx.URL(url).host
    return host == "localhost" or host.startswith("127.") or host == "::1"
