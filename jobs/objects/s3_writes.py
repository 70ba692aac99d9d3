"""Writing into other people's buckets: whole objects, and small ones that replace nothing of theirs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from jobs.errors import CaptionfleetError, ItemCode, ItemError
from jobs.objects.s3 import S3, translated

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

MARK = "captionfleet-item"
KEEP_EVERY_S = 10.0
_TAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}


def put_whole(
    s3: S3, bucket: str, key: str, file: IO[bytes], content_type: str, keep: Callable[[], None]
) -> None:
    """Store a file of any size as one object that appears at the end; ``keep`` is called now and then.

    Raises ``ItemError`` object_not_found or access_denied for the bucket, and ``StorageUnavailable``.
    """
    kept = time.monotonic()

    def sent(_size: int) -> None:
        nonlocal kept
        if time.monotonic() - kept > KEEP_EVERY_S:
            kept = time.monotonic()
            keep()

    from boto3.exceptions import S3UploadFailedError

    try:
        with translated():
            s3.client.upload_fileobj(
                file, bucket, key, ExtraArgs={"ContentType": content_type}, Callback=sent
            )
    except S3UploadFailedError as error:
        raise ItemError(ItemCode.ACCESS_DENIED, f"S3 refuses the results: {error}"[:500]) from error


def put_beside(s3: S3, bucket: str, key: str, body: bytes, content_type: str, mark: str) -> bool:
    """Store a small object unless there is one that does not bear ``mark``; return whether it was stored.

    Raises ``ItemError`` access_denied and ``StorageUnavailable``.
    """
    from botocore.exceptions import ClientError

    there = _head(s3, bucket, key)
    if there is not None and there["Metadata"].get(MARK) != mark:
        # Not every server keeps marks; what would be written stands there already all the same.
        return there["ContentLength"] == len(body) and s3.read(bucket, key, len(body)) == body
    # Where there was nothing, the server sees to it that nobody else was quicker.
    condition = {} if there else {"IfNoneMatch": "*"}
    try:
        with translated():
            s3.client.put_object(
                Bucket=bucket,
                Key=key,
                Body=body,
                ContentType=content_type,
                Metadata={MARK: mark},
                **condition,  # type: ignore[arg-type]
            )
    except CaptionfleetError as error:
        cause = error.__cause__
        if isinstance(cause, ClientError) and cause.response.get("Error", {}).get("Code") in _TAKEN:
            return False
        raise
    return True


def _head(s3: S3, bucket: str, key: str) -> HeadObjectOutputTypeDef | None:
    """Return what a server says of an object; ``None`` where there is none."""
    try:
        with translated():
            return s3.client.head_object(Bucket=bucket, Key=key)
    except ItemError as error:
        if error.code == ItemCode.OBJECT_NOT_FOUND:
            return None
        raise
