"""The parts of a multipart body, one at a time, each read as it arrives."""

from __future__ import annotations

from collections.abc import Iterator

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header  # type: ignore[import-untyped]

from api.body import RequestBody
from api.filenames import disposition
from jobs.errors import RequestError

HEADER_BYTES = 8 * 1024


class Part:
    """One part: its field name, its file name if it has one, and its bytes."""

    def __init__(
        self, name: str, filename: str | None, events: Iterator[MultipartSegment | bytes | None]
    ) -> None:
        self.name = name
        self.filename = filename
        self._events = events
        self._ended = False

    def blocks(self) -> Iterator[bytes]:
        """Yield the part's bytes, once."""
        while not self._ended:
            event = next(self._events)
            if event is None:
                self._ended = True
            else:
                assert isinstance(event, bytes)
                yield event

    def text(self, limit: int) -> bytes:
        """Return the bytes of a part that is to be small; raise ``RequestError`` invalid_request."""
        collected = b""
        for block in self.blocks():
            collected += block
            if len(collected) > limit:
                raise RequestError("invalid_request", f"the part {self.name!r} is larger than {limit} bytes")
        return collected


def read_parts(body: RequestBody, content_type: str) -> Iterator[Part]:
    """Yield the parts in order; what a part's reader left unread is passed over.

    Raises ``RequestError`` invalid_request for a malformed body and upload_incomplete for a cut one.
    """
    _, options = parse_options_header(content_type)
    if not options.get("boundary"):
        raise RequestError("invalid_request", "the Content-Type names no multipart boundary")
    events = _events(body, options["boundary"])
    for event in events:
        assert isinstance(event, MultipartSegment)
        _, name, filename = disposition(event.header("Content-Disposition", ""))
        part = Part(name or "", filename, events)
        yield part
        for _ in part.blocks():
            pass


def _events(body: RequestBody, boundary: str) -> Iterator[MultipartSegment | bytes | None]:
    try:
        # Latin-1 reads any header; what it really is shows in the names themselves.
        parser = PushMultipartParser(boundary, max_header_size=HEADER_BYTES, header_charset="latin-1")
        while block := body.read():
            yield from parser.parse(block)
    except MultipartError as error:
        raise RequestError("invalid_request", f"the multipart body is malformed: {error}") from error
    try:
        parser.close()
    except MultipartError as error:
        message = "the multipart body ends before its closing boundary"
        raise RequestError("upload_incomplete", message) from error
