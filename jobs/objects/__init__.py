"""Where image bytes lie: a folder or an S3 bucket behind one protocol, and images read in place from S3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol


class ObjectWriter(Protocol):
    """One object being stored."""

    def write(self, data: bytes) -> None:
        """Append bytes."""
        ...

    def close(self) -> None:
        """End the object; it is durable after the batch's ``flush``."""
        ...

    def discard(self) -> None:
        """Forget what was written."""
        ...


class UploadBatch(Protocol):
    """Objects stored together; leaving the context without ``flush`` promises nothing about them."""

    def open(self, key: str, content_type: str) -> ObjectWriter:
        """Begin one object; one at a time."""
        ...

    def flush(self) -> None:
        """Return when every closed object is durable; raise ``StorageUnavailable``."""
        ...


class ObjectStore(Protocol):
    """Bytes under keys such as ``jobs/<job id>/0/17``."""

    def batch(self) -> AbstractContextManager[UploadBatch]:
        """Store several objects."""
        ...

    def read(self, key: str, limit: int) -> bytes:
        """Return an object's bytes.

        Raises ``ItemError`` (object_not_found, access_denied, image_too_large past ``limit`` bytes) or
        ``StorageUnavailable``.
        """
        ...

    def open(self, key: str) -> BinaryIO:
        """Open an object for streaming; errors as ``read``."""
        ...

    def url(self, key: str, content_type: str) -> str | None:
        """Return a short-lived URL a browser can fetch, or ``None`` where the API must serve the bytes."""
        ...

    def upload_url(self, key: str, content_type: str, size: int, seconds: int) -> str | None:
        """Return a URL that takes one PUT of exactly this type and size, or ``None`` where the API must."""
        ...

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the sizes of the objects directly under ``prefix`` (ends with ``/``), by key."""
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; one that is not there is no error."""
        ...

    def delete_prefix(self, prefix: str, meanwhile: Callable[[], object] | None = None) -> int:
        """Delete every object whose key starts with ``prefix`` (ends with ``/``); return how many.

        ``meanwhile`` is called after each thousand or so; what it raises ends the deletion.
        """
        ...

    def check(self) -> None:
        """Raise ``StorageUnavailable`` unless the store answers."""
        ...


_JOBS = "jobs/"


def job_prefix(job_id: str) -> str:
    """Prefix of all objects of a job."""
    return f"{_JOBS}{job_id}/"


def is_immutable(key: str | None) -> bool:
    """Whether what lies under a key never changes; a direct upload can, while its URL is valid."""
    return key is not None and key.startswith(_JOBS)


def image_key(job_id: str, position: int) -> str:
    """Key of an uploaded image; a folder never holds more than a thousand of them."""
    return f"{job_prefix(job_id)}{position // 1000}/{position}"


def source_prefix(job_id: str) -> str:
    """Prefix of what a job is prepared from, such as the rest of a long list; gone when it is prepared."""
    return f"{job_prefix(job_id)}source/"
