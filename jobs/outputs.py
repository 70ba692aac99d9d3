"""Writing a job's results to S3 when it has ended: one object, a sidecar beside each image, or both.

The object appears whole or not at all. A sidecar never replaces what this job did not write itself. Whoever
holds the row's lease goes on from the last position that was settled, so a crash repeats at most a page.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import PurePosixPath
from tempfile import TemporaryFile
from typing import IO, Any

from jobs.background import Background, Heartbeat, coded, final, pause_s
from jobs.errors import CaptionfleetError, ItemError, RequestError
from jobs.grants import Access
from jobs.objects.s3 import S3, split_uri
from jobs.objects.s3_writes import put_beside, put_whole
from jobs.records import JobOutput, OutputFormat
from jobs.results import NO_PARQUET, can_write_parquet, comma_separated, jsonl, parquet
from jobs.sidecars import shown_caption, sidecar
from jobs.store import Store
from jobs.store.outputs import Output, moved

log = logging.getLogger(__name__)

LEASE_S = 60.0
PERIOD_S = 2.0
THREADS = 16
TYPES = {
    OutputFormat.JSONL: "application/x-ndjson",
    OutputFormat.CSV: "text/csv; charset=utf-8",
    OutputFormat.PARQUET: "application/vnd.apache.parquet",
}

WRITERS = {
    OutputFormat.JSONL: jsonl,
    OutputFormat.CSV: comma_separated,
    OutputFormat.PARQUET: parquet,
}


class _Stopped(Exception):
    """The output is another process's now, or gone with its job; or this process ends."""


class _Wrote(StrEnum):
    YES = "written"
    NO = "skipped"
    FAILED = "failed"


class OutputWriter:
    """One process's part in writing outputs: a thread that takes up what is due."""

    def __init__(self, store: Store, s3: S3, access: Callable[[str], Access]) -> None:
        self._store = store
        self._s3 = s3
        self._access = access
        self._holder = f"output_{secrets.token_hex(6)}"
        self._loop = Background("outputs", PERIOD_S, self.run_once)

    def start(self) -> None:
        """Write in a thread whatever any process's jobs have ready."""
        self._loop.start()

    def stop(self) -> None:
        """End the thread after the page in hand."""
        self._loop.stop()

    def run_once(self) -> bool:
        """Write one job's output; return whether there was one."""
        output = self._store.outputs.claim(self._holder, LEASE_S)
        if output is None:
            return False
        with Heartbeat(lambda: self._store.outputs.keep(output, LEASE_S), LEASE_S) as lease:
            writing = _Writing(output, self._store, self._s3, lambda: lease.lost or self._loop.stopping)
            try:
                writing.write(self._access)
            except _Stopped:
                log.info("the output of %s is left to another process", output.job_id)
                # Changes nothing where another process has it already.
                self._store.outputs.release(output)
            except Exception as error:
                self._fail(writing.output, error)
        return True

    def _fail(self, output: Output, error: Exception) -> None:
        end = final(error, output.failures, own=False)
        if end is not None:
            self._store.outputs.end(output, end)
            return
        foreseen = isinstance(error, CaptionfleetError)
        log.warning("the output of %s is written later: %s", output.job_id, error, exc_info=not foreseen)
        self._store.outputs.postpone(output, pause_s(output.failures), coded(error))


class _Writing:
    """The writing of one output, as far as ``output`` says; ``ended`` says when it is to be left alone."""

    def __init__(self, output: Output, store: Store, s3: S3, ended: Callable[[], bool]) -> None:
        self.output = output
        self._store = store
        self._s3 = s3
        self._ended = ended

    def write(self, access_of: Callable[[str], Access]) -> None:
        """Write what is left, and that it is done."""
        # A grant may have been taken back since the job was made.
        access = access_of(self.output.owner)
        wanted = self.output.wanted
        uri = output_uri(wanted, self.output.job_id)
        if uri is not None and not self.output.object_written:
            access.check_write(uri)
            self._write_object(uri)
            self._save(replace(self.output, object_written=True, failures=0))
        if wanted.sidecar is not None:
            self._write_sidecars(access)
        self._store.outputs.end(self.output, None)

    def _write_object(self, uri: str) -> None:
        form = self.output.wanted.form
        if form is OutputFormat.PARQUET and not can_write_parquet():
            raise RequestError("not_acceptable", NO_PARQUET)
        bucket, key = split_uri(uri)
        with TemporaryFile() as file:
            write_results(file, form, self._pages())
            file.seek(0)
            put_whole(self._s3, bucket, key, file, TYPES[form], self._go_on)

    def _pages(self, after: int = -1) -> Iterator[list[dict[str, Any]]]:
        output = self.output
        for page in self._store.jobs.result_fields(output.owner, output.job_id, after):
            self._go_on()
            yield page

    def _write_sidecars(self, access: Access) -> None:
        with ThreadPoolExecutor(THREADS, thread_name_prefix="sidecar") as pool:
            for page in self._pages(self.output.after):
                # Of images that share a sidecar's name, the first has it.
                firsts = {self._place(item): item for item in reversed(page)}
                done = Counter(pool.map(partial(self._write_sidecar, access), firsts.values()))
                done[_Wrote.NO] += len(page) - len(firsts)
                after = page[-1]["position"] if page else self.output.after
                self._save(moved(self.output, after, done[_Wrote.YES], done[_Wrote.NO], done[_Wrote.FAILED]))

    def _write_sidecar(self, access: Access, item: dict[str, Any]) -> _Wrote:
        """Write one sidecar, unless the item has no caption, is not in S3, or its place is taken."""
        uri = self._place(item)
        if uri is None:
            return _Wrote.NO
        output = self.output
        kind = str(output.wanted.sidecar)
        body = sidecar(kind, item)
        mark = f"{output.job_id}-{item['position']}"
        try:
            access.check_write(uri)
            written = put_beside(self._s3, *split_uri(uri), body, f"text/{kind}; charset=utf-8", mark)
        except (ItemError, RequestError) as error:
            log.info("no sidecar for image %d of %s: %s", item["position"], output.job_id, error)
            return _Wrote.FAILED
        return _Wrote.YES if written else _Wrote.NO

    def _place(self, item: dict[str, Any]) -> str | None:
        """Return where an item's sidecar goes, if it has a caption and lies in S3."""
        in_s3 = shown_caption(item) and item["source"].startswith("s3://")
        return sidecar_uri(item["source"], str(self.output.wanted.sidecar)) if in_s3 else None

    def _save(self, output: Output) -> None:
        self.output = output
        if not self._store.outputs.save(output, LEASE_S):
            raise _Stopped

    def _go_on(self) -> None:
        if self._ended():
            raise _Stopped


def output_uri(wanted: JobOutput, job_id: str) -> str | None:
    """Return where a job's results object goes; under a prefix it is named after the job."""
    if wanted.s3_prefix is None:
        return wanted.uri
    return f"{wanted.s3_prefix.rstrip('/')}/{job_id}.{wanted.form}"


def sidecar_uri(source: str, kind: str) -> str:
    """Return the place beside an image: ``photo.txt`` for ``photo.jpg``."""
    head, slash, name = source.rpartition("/")
    return f"{head}{slash}{PurePosixPath(name).stem if name else name}.{kind}"


def write_results(file: IO[bytes], form: OutputFormat, pages: Iterator[list[dict[str, Any]]]) -> None:
    """Write all items into a file."""
    for block in WRITERS[form](pages):
        file.write(block)
