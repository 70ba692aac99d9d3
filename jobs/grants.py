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
        granted = [grant for grant in keys.grants(owner) if grant.bucket != settings.bucket]
        self._granted = tuple(_uri(grant) for grant in granted)
        self._writable = tuple(_uri(grant) for grant in granted if grant.writable)

    @property
    def writes(self) -> bool:
        """Whether results may be written anywhere."""
        return bool(self._writable)

    def check(self, uri: str) -> None:
        """Raise ``RequestError`` forbidden unless every key that begins like ``uri`` is granted."""
        if not uri.startswith(self._granted):
            raise self._refusal(uri, "is not under a prefix granted to you", "")

    def check_write(self, uri: str) -> None:
        """Raise ``RequestError`` forbidden unless results may be written to every key that begins so."""
        if not uri.startswith(self._writable):
            raise self._refusal(uri, "is not under a prefix where you may write", "--write ")

    def _refusal(self, uri: str, reason: str, option: str) -> RequestError:
        bucket, _ = split_uri(uri)
        if bucket == self._own_bucket:
            message = f"s3://{bucket} is this service's own bucket; no job may name it"
        else:
            command = f"captionfleet keys grant {option}{self._owner} s3://{bucket}/…"
            message = f"{uri} {reason}; an operator grants one with `{command}`"
        return RequestError("forbidden", message)


def _uri(grant: Grant) -> str:
    return f"s3://{grant.bucket}/{grant.prefix}"
