"""Writing a job's results to S3 when it has ended: one object, a sidecar beside each image, or both.

The object appears whole or not at all. A sidecar never replaces what this job did not write itself. Whoever
holds the row's lease goes on from the last position that was settled, so a crash repeats at most a page.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import PurePosixPath
from tempfile import TemporaryFile
from typing import IO, Any

from jobs.errors import CaptionfleetError, ItemError, RequestError, TransientError
from jobs.grants import Access
from jobs.objects.s3 import S3, split_uri
from jobs.objects.s3_writes import put_beside, put_whole
from jobs.records import JobOutput, OutputFormat
from jobs.results import comma_separated, jsonl, parquet
from jobs.sidecars import shown_caption, sidecar
from jobs.store import Store
from jobs.store.outputs import Output, moved

log = logging.getLogger(__name__)

LEASE_S = 60.0
PERIOD_S = 2.0
THREADS = 16
MAX_FAILURES = 6
LONGEST_DELAY_S = 60.0
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


class _Lost(Exception):
    """The output is another process's now, or gone with its job."""


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
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Write in a thread whatever any process's jobs have ready."""
        self._thread = threading.Thread(target=self._run, name="outputs", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the page in hand."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def run_once(self) -> bool:
        """Write one job's output; return whether there was one."""
        output = self._store.outputs.claim(self._holder, LEASE_S)
        if output is None:
            return False
        try:
            self._write(output)
        except _Lost:
            log.info("the output of %s is no longer this process's", output.job_id)
        except TransientError as error:
            self._try_later(output, error)
        except CaptionfleetError as error:
            self._store.outputs.end(output, error)
        return True

    def _write(self, output: Output) -> None:
        access = self._access(output.owner)
        uri = output_uri(output.wanted, output.job_id)
        if uri is not None and not output.object_written:
            # A grant may have been taken back since the job was made.
            access.check_write(uri)
            self._write_object(output, uri)
            output = replace(output, object_written=True)
            self._keep(output)
        if output.wanted.sidecar is not None:
            output = self._write_sidecars(output, access)
        if not self._stopped.is_set():
            self._store.outputs.end(output, None)

    def _write_object(self, output: Output, uri: str) -> None:
        form = output.wanted.form
        bucket, key = split_uri(uri)
        with TemporaryFile() as file:
            write_results(file, form, self._pages(output))
            file.seek(0)
            put_whole(self._s3, bucket, key, file, TYPES[form], lambda: self._keep(output))

    def _pages(self, output: Output) -> Iterator[list[dict[str, Any]]]:
        for page in self._store.jobs.result_fields(output.owner, output.job_id):
            if self._stopped.is_set():
                raise _Lost
            self._keep(output)
            yield page

    def _write_sidecars(self, output: Output, access: Access) -> Output:
        with ThreadPoolExecutor(THREADS, thread_name_prefix="sidecar") as pool:
            for page in self._store.jobs.result_fields(output.owner, output.job_id, output.after):
                if self._stopped.is_set():
                    break
                # Of images that share a sidecar's name, the first has it.
                firsts = {self._place(output, item): item for item in reversed(page)}
                done = Counter(pool.map(partial(self._write_sidecar, output, access), firsts.values()))
                done[_Wrote.NO] += len(page) - len(firsts)
                after = page[-1]["position"] if page else output.after
                output = moved(output, after, done[_Wrote.YES], done[_Wrote.NO], done[_Wrote.FAILED])
                self._keep(output)
        return output

    def _write_sidecar(self, output: Output, access: Access, item: dict[str, Any]) -> _Wrote:
        """Write one sidecar, unless the item has no caption, is not in S3, or its place is taken."""
        uri = self._place(output, item)
        if uri is None:
            return _Wrote.NO
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

    def _place(self, output: Output, item: dict[str, Any]) -> str | None:
        """Return where an item's sidecar goes, if it has a caption and lies in S3."""
        in_s3 = shown_caption(item) and item["source"].startswith("s3://")
        return sidecar_uri(item["source"], str(output.wanted.sidecar)) if in_s3 else None

    def _keep(self, output: Output) -> None:
        if not self._store.outputs.save(output, LEASE_S):
            raise _Lost

    def _try_later(self, output: Output, error: TransientError) -> None:
        if output.failures + 1 >= MAX_FAILURES:
            self._store.outputs.end(output, error)
            return
        log.warning("the output of %s is written later: %s", output.job_id, error)
        self._store.outputs.postpone(output, min(LONGEST_DELAY_S, 4.0**output.failures))

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                worked = self.run_once()
            except CaptionfleetError as error:
                log.warning("outputs wait: %s", error)
                worked = False
            except Exception:
                # Other jobs' outputs must not wait for one that fails in a new way.
                log.exception("an output could not be written")
                worked = False
            if not worked:
                self._stopped.wait(PERIOD_S)


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
