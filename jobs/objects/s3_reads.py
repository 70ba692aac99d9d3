"""Reading many small objects from S3 with little processor time: obstore for the bytes, boto3 for the rest.

obstore takes a fifth of boto3's processor time per object (docs/performance.md). boto3 stays the authority:
it names endpoint and credentials, and reads again what did not arrive, so errors and retries are its own.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jobs.errors import ItemCode, ItemError

if TYPE_CHECKING:
    from boto3 import Session
    from mypy_boto3_s3.client import S3Client
    from obstore.store import S3Store

log = logging.getLogger(__name__)

# Where boto3 succeeded so many times in a row at what failed here, it reads the bucket alone for a while.
PATIENCE = 5
ALONE_S = 300.0
# obstore writes other keys in its own way (empty and dotted parts, percent signs): boto3 reads those.
_PLAIN_KEY = re.compile(r"(?!\.{1,2}(/|$))[\w.=@-][\w.=@ -]*(/(?!\.{1,2}(/|$))[\w.=@-][\w.=@ -]*)*", re.ASCII)
# boto3 renews passing credentials at the latest 10 minutes before they end.
_CREDENTIALS_KEPT = timedelta(minutes=5)
_OPTIONS = {"connect_timeout": "5s", "timeout": "60s", "pool_max_idle_per_host": "64"}


class FastReads:
    """Whole objects by way of obstore, as long as that works; usable from any number of threads."""

    def __init__(self, session: Session, client: S3Client) -> None:
        self._session = session
        self._client = client
        self._lock = threading.Lock()
        self._stores: dict[str, S3Store | None] = {}
        self._missed: Counter[str] = Counter()
        self._alone_until: dict[str, float] = {}

    def read(self, bucket: str, key: str, limit: int, otherwise: Callable[[], bytes]) -> bytes:
        """Return an object's bytes, by ``otherwise`` where this way fails.

        Raises ``ItemError`` image_too_large past ``limit`` bytes, and what ``otherwise`` raises.
        """
        store = self._store(bucket) if _PLAIN_KEY.fullmatch(key) else None
        if store is None:
            return otherwise()
        try:
            data = _read(store, key, limit)
        except ItemError:
            raise
        except Exception as error:
            # obstore's errors have no common type worth telling apart: boto3 finds out what is wrong.
            data = otherwise()
            self._miss(bucket, error)
        else:
            self._missed.pop(bucket, None)
        return data

    def _store(self, bucket: str) -> S3Store | None:
        with self._lock:
            if time.monotonic() < self._alone_until.get(bucket, 0.0):
                return None
            if bucket not in self._stores:
                self._stores[bucket] = _connect(self._session, self._client, bucket)
            return self._stores[bucket]

    def _miss(self, bucket: str, error: Exception) -> None:
        with self._lock:
            self._missed[bucket] += 1
            if self._missed[bucket] >= PATIENCE:
                # It may have been a throttle that passes; where it was not, one miss more says so.
                log.info("boto3 alone reads bucket %s for a while: %s", bucket, str(error)[:300])
                self._alone_until[bucket] = time.monotonic() + ALONE_S


def _read(store: S3Store, key: str, limit: int) -> bytes:
    import obstore

    answer = obstore.get(store, key)
    if answer.meta["size"] > limit:
        raise ItemError(ItemCode.IMAGE_TOO_LARGE, f"the image has more than {limit} bytes")
    return bytes(answer.bytes())


def _connect(session: Session, client: S3Client, bucket: str) -> S3Store | None:
    """Make a store with boto3's endpoint and credentials; ``None`` where obstore is not there or refuses."""
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
        from obstore.store import S3Store

        options: Any = {**_OPTIONS, "allow_http": client.meta.endpoint_url.startswith("http:")}
        return S3Store(
            bucket,
            region=client.meta.region_name,
            credential_provider=Boto3CredentialProvider(session, ttl=_CREDENTIALS_KEPT),
            client_options=options,
            retry_config={"max_retries": 0},
            **_address(client.meta.endpoint_url, bucket),
        )
    except Exception as error:
        # No credentials, an unknown option, no obstore: all of it only costs speed.
        log.info("boto3 alone reads bucket %s: %s", bucket, str(error)[:300])
        return None


def _address(endpoint: str, bucket: str) -> dict[str, Any]:
    """Name the bucket in the host on AWS, in the path elsewhere and where TLS could not match its dots."""
    parts = urlsplit(endpoint)
    if (parts.hostname or "").endswith(".amazonaws.com") and "." not in bucket:
        return {"endpoint": f"{parts.scheme}://{bucket}.{parts.netloc}", "virtual_hosted_style_request": True}
    return {"endpoint": endpoint, "virtual_hosted_style_request": False}
