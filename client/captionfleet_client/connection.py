"""One server: requests go out with the key, are repeated while that may help, and fail with typed errors."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import httpx

from captionfleet_client.errors import (
    ApiError,
    CaptionfleetError,
    ConnectionFailed,
    WaitTimeout,
    json_of,
    origin,
    refusal,
)
from captionfleet_client.requests import Request
from captionfleet_client.retries import Retries, may_have_acted
from captionfleet_client.transports import Transport

NOT_MODIFIED = 304


class Connection:
    """A server's address, the key for it, and how patient to be."""

    def __init__(self, transport: Transport, url: str, api_key: str | None, retries: Retries) -> None:
        self.transport = transport
        self.url = url
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._retries = retries
        self._met: set[str] = set()

    async def json(self, request: Request) -> Any:
        """Return the JSON of the answer."""
        return json_of(await self.answer(request))

    async def answer(self, request: Request, until: float = math.inf) -> httpx.Response:
        """Return the answer, repeating the request while that may help; raise ``CaptionfleetError``.

        What would be repeated only after ``until``, by the monotonic clock, is a ``WaitTimeout`` then.
        """
        doubtful = False
        for attempt in itertools.count(1):
            try:
                return await self._once(request)
            except CaptionfleetError as error:
                pause = self._retries.after(error, attempt, safe=request.safe)
                if pause is None:
                    if isinstance(error, ApiError):
                        error.doubtful = doubtful
                    raise
                doubtful = doubtful or may_have_acted(error)
                if pause >= (left := until - time.monotonic()):
                    await self.transport.pause(max(0.0, left))
                    raise WaitTimeout(f"the time to wait ended without an answer: {error}") from error
            await self.transport.pause(pause)
        raise AssertionError("counting ended")

    async def download(self, request: Request) -> AsyncGenerator[bytes, None]:
        """Yield the body of an answer that is too large for memory."""
        response = await self.answer(replace(request, streamed=True))
        try:
            async with aclosing(self.transport.blocks(response)) as blocks:
                async for block in blocks:
                    yield block
        except httpx.HTTPError as error:
            raise self._failed(error, request) from error

    async def _once(self, request: Request) -> httpx.Response:
        if request.keyed:
            request = replace(request, headers={**self._headers, **request.headers})
        try:
            response = await self.transport.send(request)
        except httpx.HTTPError as error:
            raise self._failed(error, request) from error
        self._met.add(self._base(request))
        if response.is_success or response.status_code == NOT_MODIFIED:
            return response
        raise refusal(response, store=self._elsewhere(request))

    def _failed(self, error: httpx.HTTPError, request: Request) -> ConnectionFailed:
        base = self._base(request)
        reason = str(error).rpartition("] ")[2].strip().lower() or type(error).__name__
        unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        store = self._elsewhere(request)
        return ConnectionFailed(base, reason, met=base in self._met, unsent=unsent, store=store)

    def _elsewhere(self, request: Request) -> bool:
        return self._base(request) != self.url

    def _base(self, request: Request) -> str:
        if request.address.startswith("/"):
            return self.url
        base = origin(httpx.URL(request.address))
        return self.url if base == origin(httpx.URL(self.url)) else base
