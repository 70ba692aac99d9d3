"""The pieces that read a request: parts, names, types, listed, fingerprint, cursors, documentation types."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pillow_heif import register_heif_opener

from api.body import RequestBody
from api.cursors import item_cursor, job_cursor, read_item_cursor, read_job_cursor
from api.docs import type_text
from api.filenames import disposition
from api.fingerprints import Fingerprint
from api.parts import read_parts
from jobs.errors import ItemCode, ItemError, RequestError
from jobs.ids import new_id
from jobs.image_types import HEAD_BYTES, sniff
from jobs.lists import ItemList
from jobs.names import clean_name
from jobs.records import CaptionOptions, JobRequest, JobSpec
from jobs.store.submit import NewItem
from tests.pictures import encode, picture

register_heif_opener()


class Pieces(io.RawIOBase):
    """A connection that hands over given pieces, one a read."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__()
        self._pieces = iter(pieces)

    def read(self, size: int = -1) -> bytes:
        return next(self._pieces, b"")


def body(*pieces: bytes, limit: int = 10_000, length: int | None = None) -> RequestBody:
    announced = {} if length is None else {"CONTENT_LENGTH": str(length)}
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked"} if length is None else {}
    return RequestBody({"wsgi.input": Pieces(list(pieces)), **announced, **chunked}, limit)


CONTENT = b"some\r\n--bytes\r\n--b0undar-\r\r\n--b0"
BODY = b"".join(
    b'--b0undary\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name, content)
    for name, content in ((b"first", CONTENT), (b"empty", b""), (b"last", b"\r\n" * 5))
)
BODY += b"--b0undary--\r\nepilogue"


def split(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        if end > start:
            yield data[start:end]


@given(st.lists(st.integers(0, len(BODY)), max_size=20))
def test_parts_are_the_same_however_the_body_is_cut(cuts: list[int]) -> None:
    parts = read_parts(body(*split(BODY, cuts)), "multipart/form-data; boundary=b0undary")
    read = [(part.name, b"".join(part.blocks())) for part in parts]
    assert read == [("first", CONTENT), ("empty", b""), ("last", b"\r\n" * 5)]


def test_what_is_not_read_of_a_part_is_passed_over() -> None:
    parts = read_parts(body(BODY), "multipart/form-data; boundary=b0undary")
    assert [part.name for part in parts] == ["first", "empty", "last"]


@given(st.integers(1, len(BODY) - 13))
def test_a_cut_body_is_never_taken_for_a_whole_one(end: int) -> None:
    parts = read_parts(body(BODY[:end]), "multipart/form-data; boundary=b0undary")
    with pytest.raises(RequestError) as refusal:
        list(parts)
    assert refusal.value.code in ("upload_incomplete", "invalid_request")


def test_a_body_is_counted_and_capped() -> None:
    whole = body(b"abc", b"de", length=5)
    assert (whole.read(), whole.read(), whole.read()) == (b"abc", b"de", b"")
    for request in (body(b"x" * 20, limit=10), body(b"", limit=10, length=11)):
        with pytest.raises(RequestError) as refusal:
            request.read()
        assert refusal.value.code == "upload_too_large"
    with pytest.raises(RequestError) as refusal:
        body(b"x" * 20).read_all(10, "this")
    assert refusal.value.message == "this is larger than 10 bytes"
    short = body(b"abc", length=5)
    with pytest.raises(RequestError, match="after 3 of 5 bytes"):
        short.read_all(10, "this")
    assert RequestBody({"wsgi.input": Pieces([b"not mine"])}, 10).read() == b""


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (b'form-data; name="images"; filename="a.jpg"', "a.jpg"),
        (b"form-data; name=images; filename=a.jpg", "a.jpg"),
        ('form-data; name="images"; filename="日本.jpg"'.encode(), "日本.jpg"),
        (b'form-data; name="images"; filename="caf\xe9.jpg"', "café.jpg"),
        (b"form-data; name=\"images\"; filename*=utf-8'en'a%20%E2%82%AC.jpg", "a €.jpg"),
        (b'form-data; name="images"; filename*=ISO-8859-1\'\'%E9.jpg; filename="x"', "é.jpg"),
        (b"form-data; name=\"images\"; filename*=no-such''%E9.jpg", "é.jpg"),
        (b"form-data; name=\"images\"; filename*=utf-8''%E9.jpg", "é.jpg"),
        (b"form-data; name=\"images\"; filename*=undefined''%E9.jpg", "é.jpg"),
        (b'form-data; name="images"; filename="a%22b.jpg"', 'a"b.jpg'),
        (b'form-data; name="images"', None),
        (b'form-data; name="images"; filename=""', ""),
    ],
)
def test_file_names_are_read_in_every_spelling(header: bytes, name: str | None) -> None:
    assert disposition(header.decode("latin-1")) == ("form-data", "images", name)


@given(st.text())
def test_any_file_name_becomes_plain_text(name: str) -> None:
    clean = clean_name(name, "image-7")
    assert 0 < len(clean) <= 1024
    assert not set(clean) & set("/\\\0\r\n\t\x1b\u202e")
    assert clean not in (".", "..")
    assert clean_name(clean, "image-7") == clean


@pytest.mark.parametrize(
    ("kind", "content_type"),
    [
        ("JPEG", "image/jpeg"),
        ("PNG", "image/png"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        ("BMP", "image/bmp"),
        ("TIFF", "image/tiff"),
        ("AVIF", "image/avif"),
        ("HEIF", "image/heic"),
    ],
)
def test_images_are_told_by_their_first_bytes(kind: str, content_type: str) -> None:
    image: Image.Image = picture(1)
    assert sniff(encode(image, kind)[:HEAD_BYTES]) == content_type


@pytest.mark.parametrize(
    "head", [b"", b"\xff", b"<svg ", b"RIFF\0\0\0\0WAVE", b"\0\0\0\x20ftypisom", b"%PDF-1.7"]
)
def test_anything_else_is_bytes(head: bytes) -> None:
    assert sniff(head) == "application/octet-stream"


def test_a_list_gives_back_what_it_was_given_as_often_as_asked() -> None:
    items = [
        NewItem("ä\n.jpg", "id", "upload", "k/0", "image/png", "0" * 64),
        NewItem("b", "b", "s3://x/y"),
        NewItem("c", "c", "upload", error=ItemError(ItemCode.IMAGE_TOO_LARGE, "too large")),
    ]
    listed = ItemList(items)
    for _ in range(2):
        again = list(listed)
        assert again[:2] == items[:2]
        assert again[2].error is not None
        assert (again[2].error.code, again[2].error.message) == ("image_too_large", "too large")
    assert len(listed) == 3
    listed.close()


def test_a_fingerprint_depends_on_every_image_and_the_job_alone() -> None:
    def of(*images: tuple[str, int], spec: JobSpec | None = None) -> str:
        fingerprint = Fingerprint()
        for image in images:
            fingerprint.add(*image)
        return fingerprint.of(spec or JobSpec())

    different = {
        of(("a", 1)),
        of(("a", 2)),
        of(("a1", 1)),
        of(("a", 1), ("b", 1)),
        of(("b", 1), ("a", 1)),
        of(("a", 1), spec=JobSpec(metadata={"a": 1})),
        of(("a", 1), spec=JobSpec(options=CaptionOptions(num_beams=1))),
    }
    assert len(different) == 7
    request = JobRequest.model_validate({"images": [{"s3_uri": "s3://bucket/x"}]})
    assert of(("a", 1), spec=request) == of(("a", 1))


@given(st.integers(0, 2**31 - 1))
def test_cursors_can_be_handed_back(position: int) -> None:
    cursor = item_cursor(position)
    assert read_item_cursor(cursor) == position
    job_id = new_id("job")
    assert read_job_cursor(job_cursor(job_id)) == job_id
    with pytest.raises(RequestError):
        read_job_cursor(cursor)


@given(st.text())
def test_no_other_text_is_a_cursor(text: str) -> None:
    with pytest.raises(RequestError, match="cursor"):
        read_item_cursor(f"!{text}")


def test_schemas_are_said_in_words() -> None:
    said = {
        "array of Item": {"type": "array", "items": {"$ref": "#/components/schemas/Item"}},
        "integer 1 to 5 or null": {
            "anyOf": [{"type": "integer", "minimum": 1, "maximum": 5}, {"type": "null"}]
        },
        "“a” or “b”": {"enum": ["a", "b"]},
        "string of at most 9 characters": {"type": "string", "maxLength": 9},
        "bytes": {},
        '"job"': {"const": "job"},
    }
    assert {words: type_text(schema) for words, schema in said.items()} == {words: words for words in said}
