"""Objects in an S3 bucket, and images that lie in other buckets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import RawIOBase
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from jobs.errors import CaptionfleetError, ItemCode, ItemError, StorageUnavailable
from jobs.objects.s3_reads import FastReads

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3.client import S3Client

PUT_THREADS = 8
SPOOL_BYTES = 256 * 1024
URL_SECONDS = 900
DELETED_AT_ONCE = 1000
_GONE = {"NoSuchKey", "NoSuchBucket", "404", "NotFound", "NoSuchVersion"}
_NO_CREDENTIALS = "there are no AWS credentials (AWS_ACCESS_KEY_ID, a profile or a role)"
_DENIED = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled"}


class S3:
    """One boto3 client, made when first used; boto3 reads credentials, region and endpoint itself."""

    def __init__(self, public_url: str | None = None) -> None:
        """``public_url``: the server as clients reach it, where that is another address than ours."""
        self._public_url = public_url
        self._lock = threading.Lock()
        self._connected: _Connected | None = None

    @property
    def client(self) -> S3Client:
        """The client; raises ``StorageUnavailable`` where boto3 is not installed."""
        return self._connect().client

    @property
    def signer(self) -> S3Client:
        """The client that signs URLs for clients: the address is part of what is signed."""
        return self._connect().signer

    def read(self, bucket: str, key: str, limit: int) -> bytes:
        """Return an object's bytes; errors as ``ObjectStore.read``."""
        connected = self._connect()
        return connected.reads.read(bucket, key, limit, lambda: _read(connected.client, bucket, key, limit))

    def _connect(self) -> _Connected:
        with self._lock:
            if self._connected is None:
                self._connected = _connect(self._public_url)
            return self._connected


class _Connected(NamedTuple):
    client: S3Client
    signer: S3Client
    reads: FastReads


def _connect(public_url: str | None) -> _Connected:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        message = "reading from S3 needs the `distributed` extra: pip install -e '.[distributed]'"
        raise StorageUnavailable(message) from error
    config = Config(
        connect_timeout=5,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": 4},
        max_pool_connections=64,
        # Presigned URLs would otherwise get the old signature, which newer regions refuse.
        signature_version="s3v4",
        # Other servers than AWS do not know the newer checksums; AWS needs none of them here.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    with translated():
        # Not the session that boto3 shares: that one keeps the first credentials it ever saw.
        session = boto3.Session()
        # A client that was made without credentials would stay without them.
        if session.get_credentials() is None:
            raise StorageUnavailable(f"S3 cannot be asked: {_NO_CREDENTIALS}")
        client = session.client("s3", config=config)
        signer = session.client("s3", config=config, endpoint_url=public_url) if public_url else client
        return _Connected(client, signer, FastReads(session, client))


def missing_access() -> str | None:
    """Say why this process can read nothing in S3 at all; ``None`` where it has credentials."""
    try:
        import boto3
    except ImportError:
        return "the `distributed` extra, which reads S3, is not installed"
    with translated(item=False):
        credentials = boto3.Session().get_credentials()
    return None if credentials else _NO_CREDENTIALS


class S3Objects:
    """An ``ObjectStore`` in a bucket."""

    def __init__(self, s3: S3, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket

    @contextmanager
    def batch(self) -> Iterator[_S3Batch]:
        """Store several objects, a few at a time."""
        with ThreadPoolExecutor(PUT_THREADS, thread_name_prefix="put") as pool:
            yield _S3Batch(self._s3.client, self._bucket, pool)

    def read(self, key: str, limit: int) -> bytes:
        """Return an object's bytes."""
        return self._s3.read(self._bucket, key, limit)

    def open(self, key: str) -> BinaryIO:
        """Open an object for streaming."""
        with translated():
            body = self._s3.client.get_object(Bucket=self._bucket, Key=key)["Body"]
        return cast(BinaryIO, _Body(body))

    def url(self, key: str, content_type: str) -> str | None:
        """Return a presigned URL that serves the object as ``content_type``."""
        return presigned(self._s3, self._bucket, key, content_type)

    def upload_url(self, key: str, content_type: str, size: int, seconds: int) -> str | None:
        """Return a presigned URL; S3 itself refuses another type or length than the signed ones."""
        wanted = {"Bucket": self._bucket, "Key": key, "ContentType": content_type, "ContentLength": size}
        with translated(item=False):
            return self._s3.signer.generate_presigned_url("put_object", Params=wanted, ExpiresIn=seconds)

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the sizes of the objects under a prefix."""
        pages = self._s3.client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        with translated(item=False):
            return {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", ())}

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, a thousand at a time."""
        with translated(item=False):
            for start in range(0, len(keys), DELETED_AT_ONCE):
                self._delete([{"Key": key} for key in keys[start : start + DELETED_AT_ONCE]])

    def _delete(self, keys: list[dict[str, str]]) -> None:
        answer = self._s3.client.delete_objects(Bucket=self._bucket, Delete=cast(Any, {"Objects": keys}))
        if answer.get("Errors"):
            raise StorageUnavailable(f"objects cannot be deleted: {answer['Errors'][0]}")

    def delete_prefix(self, prefix: str, meanwhile: Callable[[], object] | None = None) -> int:
        """Delete all objects under a prefix, a thousand at a time."""
        deleted = 0
        with translated(item=False):
            pages = self._s3.client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix
            )
            for page in pages:
                keys = [{"Key": entry["Key"]} for entry in page.get("Contents", ())]
                if keys:
                    self._delete(keys)
                    deleted += len(keys)
                if meanwhile is not None:
                    meanwhile()
        return deleted

    def create_bucket(self) -> bool:
        """Make the bucket where there is none; return whether there was none."""
        client = self._s3.client
        with translated(item=False):
            if self._bucket in {bucket.get("Name") for bucket in client.list_buckets()["Buckets"]}:
                return False
            region = client.meta.region_name
            # The one region that must not be named.
            elsewhere: Any = {"CreateBucketConfiguration": {"LocationConstraint": region}}
            client.create_bucket(Bucket=self._bucket, **({} if region == "us-east-1" else elsewhere))
        return True

    def check(self) -> None:
        """Ask for the bucket."""
        with translated(item=False):
            self._s3.client.head_bucket(Bucket=self._bucket)


class _Body(RawIOBase):
    """An object on its way; where it breaks off, ``read`` raises ``StorageUnavailable``."""

    def __init__(self, body: StreamingBody) -> None:
        self._body = body

    def read(self, size: int = -1, /) -> bytes:
        """Return so many bytes, fewer only at the end."""
        with translated():
            return self._body.read(None if size < 0 else size)

    def close(self) -> None:
        """Let go of the connection."""
        self._body.close()
        super().close()


def _read(client: S3Client, bucket: str, key: str, limit: int) -> bytes:
    with translated():
        answer = client.get_object(Bucket=bucket, Key=key)
        with answer["Body"] as body:
            if answer["ContentLength"] > limit:
                raise ItemError(ItemCode.IMAGE_TOO_LARGE, f"the image has more than {limit} bytes")
            return body.read()


def presigned(s3: S3, bucket: str, key: str, content_type: str) -> str:
    """Return a URL that serves an object as ``content_type`` for a quarter of an hour."""
    parameters = {"Bucket": bucket, "Key": key, "ResponseContentType": content_type}
    with translated(item=False):
        return s3.signer.generate_presigned_url("get_object", Params=parameters, ExpiresIn=URL_SECONDS)


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an ``s3://bucket/key`` URI; the key is taken as it stands, not decoded."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


class _S3Batch:
    def __init__(self, client: S3Client, bucket: str, pool: ThreadPoolExecutor) -> None:
        self._client = client
        self._bucket = bucket
        self._pool = pool
        self._pending: list[Future[None]] = []

    def open(self, key: str, content_type: str) -> _S3Writer:
        """Begin one object."""
        return _S3Writer(self, key, content_type)

    def end(self, file: IO[bytes], key: str, content_type: str) -> None:
        """Send a written object behind the next one's upload."""
        while len(self._pending) >= PUT_THREADS:
            self._pending.pop(0).result()
        self._pending.append(self._pool.submit(self._put, file, key, content_type))

    def flush(self) -> None:
        """Wait until the bucket has every object."""
        while self._pending:
            self._pending.pop(0).result()

    def _put(self, file: IO[bytes], key: str, content_type: str) -> None:
        with file, translated(item=False):
            file.seek(0)
            self._client.put_object(Bucket=self._bucket, Key=key, Body=file, ContentType=content_type)


class _S3Writer:
    def __init__(self, batch: _S3Batch, key: str, content_type: str) -> None:
        self._batch = batch
        self._key = key
        self._content_type = content_type
        self._file: IO[bytes] = SpooledTemporaryFile(SPOOL_BYTES)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._file.write(data)

    def close(self) -> None:
        """End the object."""
        self._batch.end(self._file, self._key, self._content_type)

    def discard(self) -> None:
        """Forget what was written."""
        self._file.close()


@contextmanager
def translated(*, item: bool = True) -> Iterator[None]:
    """Say boto3's errors in our words; ``item`` where a missing object is the item's own fault."""
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if item and code in _GONE:
            raise ItemError(ItemCode.OBJECT_NOT_FOUND, "there is no such object in S3") from error
        if item and code in _DENIED:
            raise ItemError(ItemCode.ACCESS_DENIED, "S3 does not let this service read the object") from error
        raise StorageUnavailable(f"S3 refuses: {error}") from error
    except (BotoCoreError, HTTPError, OSError) as error:
        raise StorageUnavailable(f"S3 does not answer: {error}") from error


def refusal(error: CaptionfleetError) -> str:
    """Return the code with which S3 itself refused what ``translated`` raised ``error`` for, or nothing."""
    from botocore.exceptions import ClientError

    cause = error.__cause__
    return str(cause.response.get("Error", {}).get("Code", "")) if isinstance(cause, ClientError) else ""
