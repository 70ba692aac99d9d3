"""Which S3 objects an owner's jobs may touch: what was granted, never the service's own bucket."""

from __future__ import annotations

from jobs.errors import RequestError
from jobs.objects.s3 import split_uri
from jobs.settings import Settings
from jobs.store.keys import Grant, KeyStore


class Access:
    """What one owner was granted, read once."""

    def __init__(self, settings: Settings, keys: KeyStore, owner: str) -> None:
        self._own_bucket = settings.bucket
        self._owner = owner
        self._grants: list[Grant] = keys.grants(owner)
        granted = (grant for grant in self._grants if grant.bucket != settings.bucket)
        self._granted = tuple(f"s3://{grant.bucket}/{grant.prefix}" for grant in granted)

    def check(self, uri: str) -> None:
        """Raise ``RequestError`` forbidden unless every key that begins like ``uri`` is granted."""
        if uri.startswith(self._granted):
            return
        bucket, key = split_uri(uri)
        if bucket == self._own_bucket:
            raise RequestError("forbidden", f"s3://{bucket} is this service's own bucket; no job may name it")
        raise RequestError(
            "forbidden",
            f"s3://{bucket}/{key} is not under a prefix granted to you; an operator grants one with "
            f"`captionfleet keys grant {self._owner} s3://{bucket}/…`",
        )
