"""Jobs from a prefix: a bucket is listed in the background, from the key after which the last slice ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from jobs.errors import ItemCode, ItemError
from jobs.expansion import Slice
from jobs.filters import Selection
from jobs.grants import Access
from jobs.objects.s3 import S3, split_uri, translated
from jobs.records import ObjectFilter
from jobs.store.bulk import NewItem
from jobs.store.expansions import Expansion

KIND = "s3_prefix"
SLICE_ITEMS = 5000
SLICE_S = 5.0
# As URLs write it.
_SHOWN_NUL = "%00"


@dataclass(frozen=True)
class Listed:
    """One object of a listing."""

    key: str
    size: int
    modified: datetime


class PrefixSource:
    """An ``ExpansionSource``: the objects under a prefix, as they are when they are listed."""

    own = False

    def __init__(self, s3: S3, access: Callable[[str], Access]) -> None:
        self._s3 = s3
        self._access = access

    def slices(self, expansion: Expansion) -> Iterator[Slice]:
        """Yield items in the order of their keys; raises ``RequestError`` forbidden without a grant."""
        uri = expansion.parameters["uri"]
        bucket, prefix = split_uri(uri)
        selection = Selection(ObjectFilter.model_validate(expansion.parameters["filter"]))
        base = len(prefix[: prefix.rfind("/") + 1])
        after: str = expansion.cursor or ""
        while True:
            # A grant that is taken back ends the listing, not only the next job.
            self._access(expansion.owner).check(uri)
            items: list[NewItem] = []
            until = time.monotonic() + SLICE_S
            last = False
            while not last and len(items) < SLICE_ITEMS and time.monotonic() < until:
                page, last = list_after(self._s3, bucket, prefix, after)
                after = page[-1].key if page else after
                items += [
                    listed_item(bucket, found.key, found.key[base:])
                    for found in page
                    if selection.takes(found.key[base:], found.size, found.modified)
                ]
            yield Slice(items, after, last=last)
            if last:
                return


def list_after(s3: S3, bucket: str, prefix: str, after: str) -> tuple[list[Listed], bool]:
    """Return up to a thousand objects behind a key, and whether those are the last.

    Raises ``ItemError`` object_not_found or access_denied for the bucket, and ``StorageUnavailable``.
    """
    try:
        with translated():
            answer = s3.client.list_objects_v2(Bucket=bucket, Prefix=prefix, StartAfter=after)
    except ItemError as error:
        gone = error.code == ItemCode.OBJECT_NOT_FOUND
        message = f"there is no bucket {bucket}" if gone else f"this service may not list s3://{bucket}"
        raise ItemError(ItemCode(error.code), message) from error
    page = [
        Listed(entry["Key"], entry["Size"], entry["LastModified"]) for entry in answer.get("Contents", ())
    ]
    return page, not answer["IsTruncated"]


def listed_item(bucket: str, key: str, path: str) -> NewItem:
    """Return the item of an object, known by its path behind a prefix's last slash.

    Databases keep no NUL, so an object whose key has one becomes an item that says so.
    """
    if "\0" not in key:
        return NewItem(PurePosixPath(key).name or key, path, f"s3://{bucket}/{key}")
    shown = listed_item(bucket, key.replace("\0", _SHOWN_NUL), path.replace("\0", _SHOWN_NUL))
    message = "the object's key has a NUL character: copy the object to another key"
    return shown._replace(error=ItemError(ItemCode.DOWNLOAD_FAILED, message))
