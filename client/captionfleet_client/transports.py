"""How requests travel: blocking and with asyncio, the only two places that differ.

Every call of this client is written once, as a coroutine over a ``Transport``. The blocking transport's
coroutines never suspend, so that ``run`` takes them to their end in one step, without an event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, Protocol, TypeVar

import httpx

from captionfleet_client.requests import Request

T = TypeVar("T")
Call = Callable[[], Coroutine[Any, Any, T]]


class Transport(Protocol):
    """Sends requests, waits, and does several things at once."""

    async def send(self, request: Request) -> httpx.Response:
        """Return the response, its body read unless the request is ``streamed`` and succeeded."""
        ...

    def blocks(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        """Yield the body of a streamed response, and close it."""
        ...

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        ...

    async def together(self, calls: Sequence[Call[T]], at_once: int) -> list[T]:
        """Make calls, at most ``at_once`` at a time; the first failure ends the rest."""
        ...


class BlockingTransport:
    """Over ``httpx.Client``; several things at once are threads."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    async def send(self, request: Request) -> httpx.Response:
        """Send and wait for the response."""
        content = request.body.blocks() if request.body else None
        response = self._http.send(_built(self._http, request, content), stream=True)
        if not (request.streamed and response.is_success):
            with closing(response):
                response.read()
        return response

    async def blocks(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        """Yield the body of a streamed response, and close it."""
        with closing(response):
            for block in response.iter_bytes():
                yield block

    async def pause(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    async def together(self, calls: Sequence[Call[T]], at_once: int) -> list[T]:
        """Make calls in threads."""
        with ThreadPoolExecutor(at_once, thread_name_prefix="captionfleet") as pool:
            futures = [pool.submit(_made, call) for call in calls]
            try:
                return [future.result() for future in futures]
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


class AsyncTransport:
    """Over ``httpx.AsyncClient``, in an asyncio event loop."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def send(self, request: Request) -> httpx.Response:
        """Send and await the response; files are read in threads."""
        content = _pulled(request.body.blocks()) if request.body else None
        response = await self._http.send(_built(self._http, request, content), stream=True)
        if not (request.streamed and response.is_success):
            try:
                await response.aread()
            finally:
                await response.aclose()
        return response

    async def blocks(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        """Yield the body of a streamed response, and close it."""
        try:
            async for block in response.aiter_bytes():
                yield block
        finally:
            await response.aclose()

    async def pause(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)

    async def together(self, calls: Sequence[Call[T]], at_once: int) -> list[T]:
        """Make calls in the event loop."""
        places = asyncio.Semaphore(at_once)

        async def made(call: Call[T]) -> T:
            async with places:
                return await call()

        running = [asyncio.ensure_future(made(call)) for call in calls]
        try:
            return list(await asyncio.gather(*running))
        finally:
            for future in running:
                future.cancel()
            await asyncio.gather(*running, return_exceptions=True)


def run(call: Coroutine[Any, Any, T]) -> T:
    """Return the value of a coroutine that never suspends: one over a ``BlockingTransport``."""
    try:
        call.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    call.close()
    raise RuntimeError("a blocking call tried to await something")


def _made(call: Call[T]) -> T:
    return run(call())


def each(values: AsyncGenerator[T, None]) -> Iterator[T]:
    """Yield the values of an asynchronous generator that never suspends."""
    try:
        while True:
            try:
                value = run(values.__anext__())
            except StopAsyncIteration:
                return
            yield value
    finally:
        run(values.aclose())


def _built(http: httpx.Client | httpx.AsyncClient, request: Request, content: Any) -> httpx.Request:
    headers = dict(request.headers)
    if request.body is not None:
        headers |= {"Content-Type": request.body.content_type, "Content-Length": str(request.body.length)}
    # An empty query would take away the one that stands in a presigned address.
    params = request.query() or None
    return http.build_request(
        request.method, request.address, params=params, headers=headers, content=content
    )


async def _pulled(blocks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (block := await asyncio.to_thread(next, blocks, None)) is not None:
        yield block
