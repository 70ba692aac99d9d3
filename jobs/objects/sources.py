"""Fetching an item's bytes, wherever they lie."""

from __future__ import annotations

from jobs.objects import ObjectStore
from jobs.objects.s3 import S3, presigned, split_uri

WEB = ("http://", "https://")


class Sources:
    """Reads uploads from the object store and S3 objects in place."""

    def __init__(self, objects: ObjectStore, s3: S3, limit: int) -> None:
        self._objects = objects
        self._s3 = s3
        self._limit = limit

    def fetch(self, source: str, object_key: str | None) -> bytes:
        """Return an item's bytes; raise ``ItemError`` or ``StorageUnavailable``."""
        if object_key is not None:
            return self._objects.read(object_key, self._limit)
        bucket, key = split_uri(source)
        return self._s3.read(bucket, key, self._limit)

    def url(self, source: str, content_type: str) -> str:
        """Return a short-lived URL of an image that lies in S3 already."""
        bucket, key = split_uri(source)
        return presigned(self._s3, bucket, key, content_type)
