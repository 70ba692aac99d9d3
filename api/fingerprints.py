"""Fingerprints of requests, for idempotency keys."""

from __future__ import annotations

import hashlib
import json

import orjson

from jobs.records import JobSpec

IMAGES_AT_ONCE = 1000


class Fingerprint:
    """What makes two requests the same: each part's name, size and sha256, and the job without its images."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._waiting: list[tuple[str | int | None, ...]] = []

    def add(self, *values: str | int | None) -> None:
        """Add one image."""
        self._waiting.append(values)
        if len(self._waiting) == IMAGES_AT_ONCE:
            self._flush()

    def of(self, spec: JobSpec) -> str:
        """Return the fingerprint of all images added, under this job."""
        self._flush()
        whole = self._digest.copy()
        job = JobSpec.model_validate(spec.model_dump(include=set(JobSpec.model_fields)))
        whole.update(json.dumps(job.model_dump(mode="json", exclude_none=True), sort_keys=True).encode())
        return whole.hexdigest()

    def _flush(self) -> None:
        self._digest.update(orjson.dumps(self._waiting))
        self._waiting = []
