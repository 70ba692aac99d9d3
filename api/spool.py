"""Items of a job that is still being received, in a temporary file: a million of them cost no memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from typing import IO

import orjson

from jobs.lists import decode, encode
from jobs.records import JobSpec
from jobs.store.submit import NewItem

IN_MEMORY_BYTES = 256 * 1024


class ItemSpool:
    """New items, written once, then read in order."""

    def __init__(self) -> None:
        self._file: IO[bytes] = SpooledTemporaryFile(IN_MEMORY_BYTES)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[NewItem]:
        self._file.seek(0)
        for line in self._file:
            yield decode(line)

    def add(self, item: NewItem) -> None:
        """Append an item."""
        self._file.write(encode(item))
        self._count += 1

    def close(self) -> None:
        """Delete the file."""
        self._file.close()


class Fingerprint:
    """What makes two requests the same: each part's name, size and sha256, and the job without its images."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, *values: str | int | None) -> None:
        """Add one image."""
        self._digest.update(orjson.dumps(values) + b"\n")

    def of(self, spec: JobSpec) -> str:
        """Return the fingerprint of all images added, under this job."""
        whole = self._digest.copy()
        job = JobSpec.model_validate(spec.model_dump(include=set(JobSpec.model_fields)))
        whole.update(json.dumps(job.model_dump(mode="json", exclude_none=True), sort_keys=True).encode())
        return whole.hexdigest()
