"""Images that come with the request: each streams into the object store, counted, hashed, never decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from api.allowance import Allowance
from api.body import RequestBody
from api.context import Context
from api.fingerprints import Fingerprint
from api.parts import Part, read_parts
from api.submission import Received
from jobs.archive_source import KIND as ARCHIVE
from jobs.archive_source import archive_prefix
from jobs.archives import DETECT_BYTES, detect
from jobs.errors import ItemCode, ItemError, RequestError
from jobs.image_types import HEAD_BYTES, sniff
from jobs.lists import ItemList
from jobs.names import clean_name
from jobs.objects import ObjectWriter, UploadBatch, image_key
from jobs.objects.segments import SegmentWriter
from jobs.records import CaptionOptions, JobSpec
from jobs.store.jobs import UPLOAD
from jobs.store.submit import NewExpansion, NewItem
from jobs.validation import invalid

SMALL_PART_BYTES = 256 * 1024


class ImageSink:
    """One image on its way into the store; without a batch it is only counted and hashed."""

    def __init__(self, batch: UploadBatch | None, key: str, limit: int) -> None:
        self._batch = batch
        self._key = key
        self._limit = limit
        self._digest = hashlib.sha256()
        self._head = b""
        self._writer: ObjectWriter | None = None
        self.size = 0
        self.content_type: str | None = None

    @property
    def too_large(self) -> bool:
        """Whether more bytes came than an image may have."""
        return self.size > self._limit

    @property
    def sha256(self) -> str:
        """Digest of all bytes so far."""
        return self._digest.hexdigest()

    def write(self, block: bytes) -> None:
        """Take the next bytes."""
        self._digest.update(block)
        self.size += len(block)
        if self._batch is None:
            return
        if self.too_large:
            self.discard()
        elif self._writer is not None:
            self._writer.write(block)
        else:
            self._head += block
            if len(self._head) >= HEAD_BYTES:
                self._open()

    def close(self) -> None:
        """End the image."""
        if self._batch is None or self.too_large:
            return
        if self._writer is None:
            self._open()
        assert self._writer is not None
        self._writer.close()
        self._writer = None

    def discard(self) -> None:
        """Forget the bytes."""
        self._head = b""
        if self._writer is not None:
            self._writer.discard()
            self._writer = None

    def _open(self) -> None:
        assert self._batch is not None
        self.content_type = sniff(self._head)
        self._writer = self._batch.open(self._key, self.content_type)
        self._writer.write(self._head)
        self._head = b""


class Images:
    """The images of one request, numbered as they come."""

    def __init__(
        self, context: Context, job_id: str | None, batch: UploadBatch | None, allowed: Allowance
    ) -> None:
        self._settings = context.services.settings
        self._allowed = allowed
        self._job_id = job_id
        self._batch = batch
        self._fingerprint = Fingerprint()
        self._rest: NewExpansion | None = None
        self.items = ItemList()

    def take(self, part: Part) -> None:
        """Store one image; raise ``RequestError`` too_many_images or quota_exceeded."""
        if self._rest is not None:
            raise RequestError("invalid_request", "one `archive` comes alone, without `images`")
        position = len(self.items)
        if self._batch is not None:
            self._allowed.check_images(position + 1)
        name = clean_name(part.filename, f"image-{position}")
        key = image_key(self._job_id or "", position)
        sink = ImageSink(self._batch, key, self._settings.max_image_bytes)
        try:
            for block in part.blocks():
                sink.write(block)
            if part.filename == "" and sink.size == 0:
                return  # What a browser sends for a file field in which nothing was chosen.
            sink.close()
        finally:
            sink.discard()
        self._fingerprint.add(name, sink.size, sink.sha256)
        self.items.add(self._item(name, key, sink))

    def take_archive(self, part: Part) -> None:
        """Store an archive, to be unpacked in the background; raise ``RequestError`` for anything else."""
        if self._rest is not None or len(self.items):
            raise RequestError("invalid_request", "one `archive` comes alone, without `images`")
        prefix = archive_prefix(self._job_id or "")
        writer = SegmentWriter(self._batch, prefix) if self._batch is not None else None
        digest, head, size = hashlib.sha256(), b"", 0
        try:
            for block in part.blocks():
                digest.update(block)
                size += len(block)
                if writer is not None:
                    writer.write(block)
                if len(head) < DETECT_BYTES:
                    head += block[:DETECT_BYTES]
            if writer is not None:
                writer.close()
        finally:
            if writer is not None:
                writer.discard()
        kind = detect(head)
        if kind is None:
            message = "the `archive` is neither a zip nor a tar (plain, or packed by gzip, bzip2 or xz)"
            raise RequestError("invalid_request", message)
        self._fingerprint.add(clean_name(part.filename, "archive"), size, digest.hexdigest())
        self._rest = NewExpansion(ARCHIVE, {"size": size, "kind": kind})

    def received(self, spec: JobSpec) -> Received:
        """Return the request as it was received; raise ``RequestError`` when it had no images."""
        if self._rest is not None:
            return Received(spec, ARCHIVE, self.items, self._fingerprint.of(spec), self._rest)
        if not len(self.items):
            raise RequestError("invalid_request", "the request has no images")
        return Received(spec, UPLOAD, self.items, self._fingerprint.of(spec))

    def _item(self, name: str, key: str, sink: ImageSink) -> NewItem:
        if not sink.too_large:
            return NewItem(name, name, UPLOAD, key, sink.content_type, sink.sha256)
        message = f"the image has more than {self._settings.max_image_bytes} bytes"
        error = ItemError(ItemCode.IMAGE_TOO_LARGE, message)
        return NewItem(name, name, UPLOAD, sha256=sink.sha256, error=error)


@contextmanager
def receiving(context: Context, job_id: str | None, allowed: Allowance) -> Iterator[Images]:
    """Receive images for a job; they are durable when the context ends without an error."""
    if job_id is None:
        images = Images(context, None, None, allowed)
        with _closed_on_error(images.items):
            yield images
        return
    with context.services.objects.batch() as batch:
        images = Images(context, job_id, batch, allowed)
        with _closed_on_error(images.items):
            yield images
            batch.flush()


@contextmanager
def _closed_on_error(items: ItemList) -> Iterator[None]:
    try:
        yield
    except BaseException:
        items.close()
        raise


class JobUpload:
    """A multipart request: first a ``job`` part, which may be left out, then ``images`` or an ``archive``."""

    stores = True

    def __init__(self, context: Context, body: RequestBody, content_type: str, allowed: Allowance) -> None:
        self._context = context
        self._allowed = allowed
        self._parts = read_parts(body, content_type)

    def receive(self, job_id: str | None) -> Received:
        """Read all parts."""
        spec: JobSpec | None = None
        with receiving(self._context, job_id, self._allowed) as images:
            for part in self._parts:
                if part.name == "images":
                    spec = spec or JobSpec()
                    images.take(part)
                elif part.name == "archive":
                    spec = spec or JobSpec()
                    images.take_archive(part)
                elif part.name != "job":
                    message = f"unknown part {part.name!r}: there are `job`, `images` and `archive`"
                    raise RequestError("invalid_request", message)
                elif spec is not None:
                    raise RequestError("invalid_request", "the `job` part is to come once, before the images")
                else:
                    spec = self._spec(part)
            return images.received(spec or JobSpec())

    def _spec(self, part: Part) -> JobSpec:
        try:
            spec = JobSpec.model_validate_json(part.text(SMALL_PART_BYTES))
        except ValidationError as error:
            raise invalid(error, "the job part") from error
        # Refused now, before gigabytes of images come.
        self._context.services.intake.check(spec)
        return spec


class CaptionUpload:
    """A multipart request with one ``image`` and options: a JSON part ``options``, or form fields."""

    stores = True

    def __init__(self, context: Context, body: RequestBody, content_type: str, allowed: Allowance) -> None:
        self._context = context
        self._allowed = allowed
        self._parts = read_parts(body, content_type)
        self._options = CaptionOptions()
        self._fields: dict[str, str] = {}

    def receive(self, job_id: str | None) -> Received:
        """Read all parts."""
        with receiving(self._context, job_id, self._allowed) as images:
            for part in self._parts:
                if part.name != "image":
                    self._take_option(part)
                elif len(images.items):
                    raise RequestError("invalid_request", "this call captions one `image`; see POST /v1/jobs")
                else:
                    images.take(part)
            if not len(images.items):
                raise RequestError("invalid_request", "the request has no part `image`")
            return images.received(JobSpec(options=self._all_options()))

    def _take_option(self, part: Part) -> None:
        if part.name == "options":
            try:
                self._options = CaptionOptions.model_validate_json(part.text(SMALL_PART_BYTES))
            except ValidationError as error:
                raise invalid(error, "the options part") from error
        elif part.name in CaptionOptions.model_fields:
            self._fields[part.name] = part.text(SMALL_PART_BYTES).decode(errors="replace")
        else:
            message = f"unknown part {part.name!r}: there are `image`, `options` and the options by name"
            raise RequestError("invalid_request", message)

    def _all_options(self) -> CaptionOptions:
        given = self._options.model_dump(exclude_unset=True) | self._fields
        try:
            return CaptionOptions.model_validate(given)
        except ValidationError as error:
            raise invalid(error, "the form") from error
