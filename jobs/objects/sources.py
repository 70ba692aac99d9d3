"""Fetching an item's bytes, wherever they lie."""

from __future__ import annotations

from jobs.objects import ObjectStore
from jobs.objects.s3 import S3, presigned, split_uri
from jobs.settings import Settings
from jobs.urls import Limits, UrlGuard

WEB = ("http://", "https://")


# What servers call images, or bytes they know nothing of; S3 and its like say the last one.
IMAGE_LIKE = ("image/", "application/octet-stream", "binary/octet-stream")


class Sources:
    """Reads uploads from the object store, S3 objects in place, and URLs through the guard."""

    def __init__(self, objects: ObjectStore, s3: S3, urls: UrlGuard, settings: Settings) -> None:
        self._objects = objects
        self._s3 = s3
        self._urls = urls
        self._limit = settings.max_image_bytes
        self._url_limits = Limits(settings.max_image_bytes, settings.download_limit_s, IMAGE_LIKE)

    def fetch(self, source: str, object_key: str | None) -> bytes:
        """Return an item's bytes; raise ``ItemError`` or ``StorageUnavailable``."""
        if object_key is not None:
            return self._objects.read(object_key, self._limit)
        if source.startswith(WEB):
            return self._urls.fetch(source, self._url_limits).body
        bucket, key = split_uri(source)
        return self._s3.read(bucket, key, self._limit)

    def url(self, source: str, content_type: str) -> str:
        """Return a short-lived URL of an image that lies in S3 already."""
        bucket, key = split_uri(source)
        return presigned(self._s3, bucket, key, content_type)
