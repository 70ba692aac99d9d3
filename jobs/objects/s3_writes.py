"""Writing into other people's buckets: whole objects, and small ones that replace nothing of theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from jobs.errors import CaptionfleetError, ItemCode, ItemError, RequestError
from jobs.objects.s3 import S3, refusal, translated

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

MARK = "captionfleet-item"
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
KEY_BYTES = 1024
_TAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}


def put_whole(
    s3: S3, bucket: str, key: str, file: IO[bytes], content_type: str, go_on: Callable[[], None]
) -> None:
    """Store a file of any size as one object that appears at the end.

    ``go_on`` is called now and then; what it raises ends the upload. Raises ``ItemError`` object_not_found or
    access_denied for the bucket, ``RequestError`` for a key that is too long, and ``StorageUnavailable``.
    """
    _check_key(key)
    with translated():
        s3.client.upload_fileobj(
            file, bucket, key, ExtraArgs={"ContentType": content_type}, Callback=lambda _size: go_on()
        )


def put_beside(s3: S3, bucket: str, key: str, body: bytes, content_type: str, mark: str) -> bool:
    """Store a small object unless there is one that does not bear ``mark``; return whether it was stored.

    Raises ``ItemError`` access_denied, ``RequestError`` for too long a key, and ``StorageUnavailable``.
    """
    _check_key(key)
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
        if refusal(error) in _TAKEN:
            return False
        raise
    return True


def _check_key(key: str) -> None:
    """Refuse what a server refuses for ever, in words of its own."""
    if len(key.encode()) > KEY_BYTES:
        raise RequestError("invalid_request", f"a key in S3 has at most {KEY_BYTES} bytes")


def _head(s3: S3, bucket: str, key: str) -> HeadObjectOutputTypeDef | None:
    """Return what a server says of an object; ``None`` where there is none."""
    try:
        with translated():
            return s3.client.head_object(Bucket=bucket, Key=key)
    except ItemError as error:
        if error.code == ItemCode.OBJECT_NOT_FOUND:
            return None
        raise
