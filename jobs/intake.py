"""The one door for new jobs: they are checked, stored, committed and only then announced to workers."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from jobs.errors import BrokerUnavailable, RequestError
from jobs.objects.s3 import split_uri
from jobs.queue import JobQueue, Message
from jobs.records import ImageReference, JobSpec
from jobs.settings import Settings
from jobs.store import Store
from jobs.store.keys import Grant
from jobs.store.submit import NewItem, NewJob

log = logging.getLogger(__name__)

METADATA_BYTES = 16 * 1024


class Intake:
    """Turns checked submissions into jobs."""

    def __init__(self, settings: Settings, store: Store, queue: JobQueue) -> None:
        self._settings = settings
        self._store = store
        self._queue = queue

    def check(self, spec: JobSpec) -> str:
        """Return the model a job will use; raise ``RequestError`` for what no job may ask."""
        self._check_metadata(spec)
        options = spec.options
        if options.num_captions and options.num_beams and options.num_captions > options.num_beams:
            raise RequestError("invalid_request", "options.num_captions is larger than options.num_beams")
        if options.min_length and options.max_length and options.min_length > options.max_length:
            raise RequestError("invalid_request", "options.min_length is larger than options.max_length")
        model = options.model or self._settings.model_names[0]
        if model not in self._settings.model_names:
            known = ", ".join(self._settings.model_names)
            raise RequestError("model_not_available", f"there is no model {model!r}; there is: {known}")
        return model

    def _check_metadata(self, spec: JobSpec) -> None:
        try:
            text = json.dumps(spec.metadata, ensure_ascii=False, allow_nan=False)
        except ValueError as error:
            message = "metadata holds a number that JSON cannot say: NaN or infinity"
            raise RequestError("invalid_request", message) from error
        if len(text.encode()) > METADATA_BYTES:
            raise RequestError("invalid_request", f"metadata is larger than {METADATA_BYTES} bytes")

    def submit(self, job: NewJob, items: Iterable[NewItem]) -> None:
        """Commit a job with its items, then tell the workers; the sweep tells them if the broker is away."""
        messages = self._store.submit.insert_job(job, self._counted(items))
        publish(self._queue, messages)

    def references(self, owner: str, references: Iterable[ImageReference]) -> Iterator[NewItem]:
        """Turn S3 references into items; raise ``RequestError`` forbidden outside the owner's grants."""
        grants = self._store.keys.grants(owner)
        for reference in references:
            bucket, key = split_uri(reference.s3_uri)
            self._check_grant(owner, grants, bucket, key)
            name = PurePosixPath(key).name or key
            yield NewItem(name=name, custom_id=reference.custom_id or name, source=reference.s3_uri)

    def check_source(self, owner: str, s3_uri: str) -> None:
        """Raise ``RequestError`` forbidden where an owner's grants no longer hold an item's source."""
        self._check_grant(owner, self._store.keys.grants(owner), *split_uri(s3_uri))

    def _check_grant(self, owner: str, grants: list[Grant], bucket: str, key: str) -> None:
        if bucket == self._settings.bucket:
            raise RequestError("forbidden", f"s3://{bucket} is this service's own bucket; no job may name it")
        if not any(grant.bucket == bucket and key.startswith(grant.prefix) for grant in grants):
            raise RequestError(
                "forbidden",
                f"s3://{bucket}/{key} is not under a prefix granted to you; an operator grants one with "
                f"`captionfleet keys grant {owner} s3://{bucket}/…`",
            )

    def _counted(self, items: Iterable[NewItem]) -> Iterator[NewItem]:
        for count, item in enumerate(items, start=1):
            if count > self._settings.max_images:
                raise RequestError(
                    "too_many_images", f"a job holds at most {self._settings.max_images} images"
                )
            yield item


def publish(queue: JobQueue, messages: list[Message]) -> bool:
    """Send messages for committed work; a broker that is away costs time, never the work."""
    if not messages:
        return True
    try:
        queue.publish(messages)
    except BrokerUnavailable as error:
        log.warning("the sweep will announce %d chunks later: %s", len(messages), error)
        return False
    return True
