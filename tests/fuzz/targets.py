"""What is fuzzed: all that reads bytes of strangers. Each target may refuse in its own words, and no more."""

from __future__ import annotations

import io
import json
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator

from api.body import RequestBody
from api.filenames import disposition
from api.parts import read_parts
from jobs.archives import DETECT_BYTES, detect, read_members
from jobs.errors import RequestError
from jobs.manifests import Lines, read_csv, read_ndjson
from jobs.names import clean_name
from jobs.references import url_name
from jobs.urls import UrlError, UrlGuard
from model.captioner import Preprocessing
from model.errors import ImageError
from model.images import read_image
from tests.unit.images.samples import many, scene
from worker.notifications import read

PREPROCESSING = Preprocessing(width=16, height=16)
MOST_PIXELS = 1_000_000
MOST_MEMBER_BYTES = 100_000
BOUNDARY = b"b0undary"

warnings.simplefilter("ignore")


def decode(data: bytes) -> None:
    """The decode path of a worker's child, without the child: a crash of a C library ends the fuzzer."""
    try:
        image = read_image(data, PREPROCESSING, MOST_PIXELS)
    except ImageError as error:
        _said(str(error))
    else:
        assert image.pixels.shape == (16, 16, 3)


def multipart(data: bytes) -> None:
    """A body, cut into pieces of a length that its first byte says."""
    size, body = 1 + data[0] if data else 1, data[1:]
    stream = io.BytesIO(body)
    environ = {"wsgi.input": _Pieces(stream, size), "CONTENT_LENGTH": str(len(body))}
    parts = read_parts(RequestBody(environ, 1 << 20), f"multipart/form-data; boundary={BOUNDARY.decode()}")
    try:
        for part in parts:
            clean_name(part.filename, "x")
            assert sum(len(block) for block in part.blocks()) <= len(body)
    except RequestError as error:
        _one_of(error, "invalid_request", "upload_incomplete")


def ndjson(data: bytes) -> None:
    """A manifest of JSON lines."""
    _all(read_ndjson(_lines(data)))


def comma_separated(data: bytes) -> None:
    """A manifest as CSV."""
    _all(read_csv(_lines(data)))


def notification(data: bytes) -> None:
    """A message from a queue of bucket events."""
    for created in read(data.decode(errors="surrogateescape")).created:
        assert len(created.digest) == 64
        created.key.encode()


def archive(data: bytes) -> None:
    """A zip or tar file, read to its end."""
    kind = detect(data[:DETECT_BYTES])
    if kind is None:
        return
    try:
        for member in read_members(io.BytesIO(data), kind, len(data), None, MOST_MEMBER_BYTES):
            assert ".." not in member.path.split("/")
            assert len(member.data or b"") <= MOST_MEMBER_BYTES
    except RequestError as error:
        _one_of(error, "invalid_request", "upload_too_large", "too_many_images")


def name(data: bytes) -> None:
    """A part's header and the name that is kept."""
    _, _, filename = disposition(data.decode("latin-1"))
    kept = clean_name(filename, "image")
    assert 0 < len(kept) <= 1024
    assert not set(kept) & set("\0\r\n/\\")


def url(data: bytes) -> None:
    """An address that a client names; no name server is asked."""
    text = data.decode(errors="surrogateescape")
    assert url_name(text)
    try:
        UrlGuard().check(text)
    except UrlError as error:
        _said(error.message)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "decode": decode,
    "multipart": multipart,
    "ndjson": ndjson,
    "csv": comma_separated,
    "notification": notification,
    "archive": archive,
    "name": name,
    "url": url,
}


def everything(data: bytes) -> None:
    """The target that the first byte says."""
    if data:
        list(TARGETS.values())[data[0] % len(TARGETS)](data[1:])


def seeds(target: str) -> Iterator[bytes]:
    """Valid inputs to begin with."""
    if target == "all":
        for number, one in enumerate(TARGETS):
            yield from (bytes([number]) + seed for seed in seeds(one))
    else:
        yield from _SEEDS[target]()


def _images() -> Iterator[bytes]:
    yield from many().values()


def _bodies() -> Iterator[bytes]:
    part = b'--%s\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n\r\nxyz\r\n'
    yield b"\x07" + part % BOUNDARY * 2 + b"--%s--\r\n" % BOUNDARY


def _archives() -> Iterator[bytes]:
    for mode in ("w", "w:gz"):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode=mode) as tar:
            info = tarfile.TarInfo("folder/a.jpg")
            info.size = 3
            tar.addfile(info, io.BytesIO(b"xyz"))
        yield packed.getvalue()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/a.jpg", scene().tobytes()[:500])
    yield packed.getvalue()


_LINES = [
    {"s3_uri": "s3://bucket/a/b.jpg", "custom_id": "x"},
    {"url": "https://example.org/a.jpg?b=c"},
    {"upload_id": "upl_1"},
]
_RECORD = {
    "eventName": "ObjectCreated:Put",
    "s3": {"bucket": {"name": "b"}, "object": {"key": "a+b%20c", "eTag": "e", "sequencer": "1"}},
}
_SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "decode": _images,
    "multipart": _bodies,
    "ndjson": lambda: iter([b"\n".join(json.dumps(line).encode() for line in _LINES)]),
    "csv": lambda: iter(
        [b'url,custom_id\nhttps://example.org/a.jpg,"x ""y"""\n', b"s3_uri\ns3://bucket/a\n"]
    ),
    "notification": lambda: iter(
        [
            json.dumps({"Records": [_RECORD]}).encode(),
            json.dumps(
                {"Type": "Notification", "TopicArn": "t", "Message": json.dumps({"Records": [_RECORD]})}
            ).encode(),
            json.dumps(
                {"detail-type": "Object Created", "source": "aws.s3", "detail": _RECORD["s3"]}
            ).encode(),
        ]
    ),
    "archive": _archives,
    "name": lambda: iter(
        [b'form-data; name="a"; filename="b.jpg"', b"form-data; filename*=utf-8''a%20b.jpg"]
    ),
    "url": lambda: iter([b"https://user@example.org:8080/a.jpg?b#c", b"http://[::1]/a", b"http://127.1/"]),
}


class _Pieces:
    """A connection that hands over a few bytes at a time."""

    def __init__(self, stream: io.BytesIO, size: int) -> None:
        self._stream = stream
        self._size = size

    def read(self, size: int) -> bytes:
        return self._stream.read(min(size, self._size))


def _said(message: str) -> None:
    assert message


def _one_of(error: RequestError, *codes: str) -> None:
    assert error.code in codes, error


def _lines(data: bytes) -> Lines:
    return Lines(io.BytesIO(data).read)


def _all(references: Iterator[object]) -> None:
    try:
        for reference in references:
            assert reference is not None
    except RequestError as error:
        _one_of(error, "invalid_request")
