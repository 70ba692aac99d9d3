"""The one door for new jobs: they are checked, stored, committed and only then announced to workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

from jobs.errors import RequestError
from jobs.grants import Access
from jobs.limits import images_per_job
from jobs.lists import KIND as LIST
from jobs.lists import ItemList
from jobs.objects import ObjectStore
from jobs.objects.s3 import missing_access
from jobs.options import check_options, check_prompt
from jobs.outputs import output_uri
from jobs.queue import JobQueue, publish
from jobs.records import JobSpec, OutputFormat, Reference
from jobs.references import References
from jobs.results import NO_PARQUET, can_write_parquet
from jobs.settings import Settings
from jobs.store import Store
from jobs.store.submit import NewExpansion, NewItem, NewJob
from jobs.tracing import begin, here
from jobs.urls import UrlError, UrlGuard

METADATA_BYTES = 16 * 1024


class Intake:
    """Turns checked submissions into jobs."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        queue: JobQueue,
        objects: ObjectStore,
        wake_expander: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._wake_expander = wake_expander
        self._objects = objects
        self._store = store
        self._queue = queue
        self._urls = UrlGuard(settings.trusted_hosts)
        self._reads_s3 = False

    def check(self, spec: JobSpec) -> str:
        """Return the model a job will use; raise ``RequestError`` for what no job may ask."""
        self._check_metadata(spec)
        options = spec.options
        check_options(options)
        self._check_webhook(spec.webhook_url)
        model = options.model or self._settings.model_names[0]
        if model not in self._settings.model_names:
            known = ", ".join(self._settings.model_names)
            raise RequestError("model_not_available", f"there is no model {model!r}; there is: {known}")
        if options.prompt:
            check_prompt(model, self._store.workers.alive())
        return model

    def check_output(self, job_id: str, owner: str, spec: JobSpec) -> None:
        """Raise ``RequestError`` forbidden where an owner may not write what a job is to write.

        Parquet without pyarrow is not_acceptable.
        """
        if spec.output and spec.output.form is OutputFormat.PARQUET and not can_write_parquet():
            raise RequestError("not_acceptable", NO_PARQUET)
        uri = output_uri(spec.output, job_id) if spec.output else None
        access = self.access(owner) if spec.output else None
        if access is not None and uri is not None:
            access.check_write(uri)
        elif access is not None and not access.writes:
            message = "you may not write sidecars anywhere; an operator allows it with `keys grant --write`"
            raise RequestError("forbidden", message)

    def _check_webhook(self, url: str | None) -> None:
        try:
            if url is not None:
                self._urls.check(url)
        except UrlError as error:
            raise RequestError("invalid_request", f"webhook_url: {error.message}") from error

    def _check_metadata(self, spec: JobSpec) -> None:
        try:
            text = json.dumps(spec.metadata, ensure_ascii=False, allow_nan=False)
        except ValueError as error:
            message = "metadata holds a number that JSON cannot say: NaN or infinity"
            raise RequestError("invalid_request", message) from error
        if len(text.encode()) > METADATA_BYTES:
            raise RequestError("invalid_request", f"metadata is larger than {METADATA_BYTES} bytes")

    def submit(self, job: NewJob, items: Iterable[NewItem]) -> None:
        """Commit a job with its items, then tell the workers; the sweep tells them if the broker is away.

        Of a long list the first items are written at once and the others in the background.
        """
        with _traced(job) as traced:
            self._submit(traced, items)

    def _submit(self, job: NewJob, items: Iterable[NewItem]) -> None:
        most = images_per_job(self._settings.max_images, job.limits)
        with items if isinstance(items, ItemList) else ItemList(islice(items, most + 1)) as listed:
            if len(listed) > most:
                raise RequestError("too_many_images", f"a job holds at most {most} images")
            first = listed.first()
            if len(first) == len(listed):
                publish(self._queue, self._store.submit.insert_job(job, first))
                return
            self._store.usage.of(job.owner).check(job.limits, images=len(listed))
            # Known before it is stored, so that the sweep finds it if this process dies.
            self._store.submit.begin_upload(job.owner, job.id)
            listed.store_rest(self._objects, job.id)
            rest = NewExpansion(LIST, images=len(listed) - len(first))
            self._insert(job, first, rest, listed.later_uploads())

    def submit_events(self, job: NewJob, events: Mapping[str, NewItem]) -> int:
        """Commit a job of those events (items by digest) that no job has yet; return how many there were."""
        with _traced(job) as traced:
            taken, messages = self._store.submit.insert_event_job(traced, events)
            publish(self._queue, messages)
        return taken

    def prepare(self, job: NewJob, rest: NewExpansion) -> None:
        """Commit a job whose items a source finds in the background."""
        with _traced(job) as traced:
            self._insert(traced, (), rest, ())

    def _insert(
        self, job: NewJob, first: Iterable[NewItem], rest: NewExpansion, uploads: Iterable[str]
    ) -> None:
        messages = self._store.submit.insert_job(job, first, rest, uploads)
        self._wake_expander()
        publish(self._queue, messages)

    def references(self, owner: str, references: Iterable[Reference]) -> Iterator[NewItem]:
        """Turn references into items.

        Raises ``RequestError`` forbidden outside the owner's grants, upload_incomplete and invalid_request
        for uploads that are not there, not the owner's or another job's.
        """
        made = References(owner, self.readable(owner), self._store.uploads, self._objects)
        return (made.item(reference) for reference in references)

    def references_of(self, owner: str) -> References:
        """Return what turns the references of an owner's job into items, in the background."""
        return References(owner, self.access(owner).check, self._store.uploads, self._objects)

    def access(self, owner: str) -> Access:
        """Return what an owner's jobs may read, as of now."""
        return Access(self._settings, self._store.keys, owner)

    def readable(self, owner: str) -> Callable[[str], None]:
        """Return the check of each S3 URI that a new job of an owner is to read.

        Where this server reads nothing in S3 it raises ``RequestError`` forbidden, too: every worker would
        try in vain for minutes. Not in the background: what hands out credentials may be away for a moment.
        """
        access = self.access(owner)

        def check(uri: str) -> None:
            access.check(uri)
            if not self._reads_s3 and (reason := missing_access()):
                raise RequestError("forbidden", f"this server can read no s3:// objects: {reason}")
            self._reads_s3 = True

        return check


@contextmanager
def _traced(job: NewJob) -> Iterator[NewJob]:
    """Yield the job as part of the present trace, or of a new one; as it is while tracing is off."""
    span = begin("intake", job=job.id)
    if span is None:
        yield job
        return
    error = None
    try:
        with here(span):
            yield replace(job, traceparent=span.traceparent)
    except Exception as failure:
        error = type(failure).__name__
        raise
    finally:
        span.end(error=error)
