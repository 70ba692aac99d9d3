"""A request's body, read in blocks straight from the connection: counted, capped, never collected."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, BinaryIO

from flask import Response

from api.deadlines import ENVIRON, Deadlines
from jobs.errors import RequestError

BLOCK_BYTES = 256 * 1024
# What a refused client may still send so that it comes to read the answer.
DRAIN_BYTES = 64 * 1024 * 1024
DRAIN_S = 10.0
# So much the server reads away by itself and keeps the connection.
SMALL_BYTES = 32 * 1024


class RequestBody:
    """The bytes a client sends with one request."""

    def __init__(self, environ: dict[str, Any], limit: int) -> None:
        self._environ = environ
        self._stream: BinaryIO = environ["wsgi.input"]
        self._limit = limit
        self._length = _announced(environ)
        self._received = 0
        self._done = self._length == 0
        self._cap: tuple[int, RequestError] | None = None

    @property
    def announced(self) -> int | None:
        """Bytes that the client says it sends; ``None`` where it does not say."""
        return self._length

    @property
    def received(self) -> int:
        """Bytes read so far."""
        return self._received

    def read(self) -> bytes:
        """Return the next block, empty at the end.

        Raises ``RequestError`` upload_too_large, what ``cap`` says, or upload_incomplete where nothing comes.
        """
        if self._done:
            return b""
        self._refuse_too_large(self._length or 0)
        block = self._next(self._left(BLOCK_BYTES))
        self._received += len(block)
        self._refuse_too_large(self._received)
        if self._received == self._length:
            self._done = True
        elif not block:
            self._end_early()
        return block

    def cap(self, most: int, refusal: RequestError) -> None:
        """Refuse a body of more bytes, as soon as that shows."""
        self._cap = (most, refusal)

    def read_all(self, limit: int, subject: str) -> bytes:
        """Return the whole body of a request that is to be small; raise ``RequestError`` upload_too_large."""
        blocks: list[bytes] = []
        while block := self.read():
            blocks.append(block)
            if self._received > limit:
                raise RequestError("upload_too_large", f"{subject} is larger than {limit} bytes")
        return b"".join(blocks)

    def settle(self, response: Response) -> None:
        """Where much of the body is unread, end the connection after the answer, gently."""
        if self._done or (self._length is not None and self._length - self._received <= SMALL_BYTES):
            return
        response.headers["Connection"] = "close"
        response.call_on_close(self._drain)

    def _left(self, most: int) -> int:
        return most if self._length is None else min(most, self._length - self._received)

    def _next(self, size: int) -> bytes:
        try:
            with self._in_time(size):
                return self._stream.read(size)
        except Exception as error:
            # Whatever the server's reader raises (time-out, reset, bad chunk), there is no body to have.
            self._done = True
            raise RequestError("upload_incomplete", f"the body could not be read: {error}") from error

    def _in_time(self, size: int) -> AbstractContextManager[None]:
        deadlines: Deadlines | None = self._environ.get(ENVIRON)
        if deadlines is None:
            return nullcontext()
        return deadlines.reading(self._environ["gunicorn.socket"], size)

    def _end_early(self) -> None:
        self._done = True
        if self._length is not None:
            message = f"the connection ended after {self._received} of {self._length} bytes"
            raise RequestError("upload_incomplete", message)

    def _refuse_too_large(self, size: int) -> None:
        if self._cap is not None and size > self._cap[0]:
            raise self._cap[1]
        if size > self._limit:
            raise RequestError("upload_too_large", f"a request may have at most {self._limit} bytes")

    def _drain(self) -> None:
        """Read a bounded amount, so that a client that only sends comes to see the answer."""
        connection = self._environ.get("gunicorn.socket")
        if connection is not None:
            connection.settimeout(DRAIN_S / 5)
        until = time.monotonic() + DRAIN_S
        drained = 0
        while not self._done and drained < DRAIN_BYTES and time.monotonic() < until:
            try:
                block = self._next(self._left(SMALL_BYTES))
            except RequestError:
                return
            drained += len(block)
            self._received += len(block)
            self._done = not block or self._received == self._length


def _announced(environ: dict[str, Any]) -> int | None:
    """Return the announced length; ``None`` for a chunked body, which ends when it ends."""
    length = environ.get("CONTENT_LENGTH")
    if length:
        return int(length)
    chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
    return None if chunked else 0
