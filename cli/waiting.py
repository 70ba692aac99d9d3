"""Waiting for a job's end over HTTP."""

from __future__ import annotations

import time
from typing import Any

from cli.console import progress
from cli.remote import Remote

WAIT_S = 20
SHORTEST_S = 0.2
FINAL = frozenset({"completed", "failed", "canceled"})


def follow(remote: Remote, job: dict[str, Any]) -> dict[str, Any]:
    """Show a job's progress until it is over; return it as it is then."""
    job = _prepared(remote, job)
    with progress("captioning", job["counts"]["total"]) as advance:
        while True:
            counts = job["counts"]
            advance(counts["total"] - counts["queued"] - counts["running"], _word(job))
            if job["status"] in FINAL:
                return job
            job = _look(remote, job)


def _prepared(remote: Remote, job: dict[str, Any]) -> dict[str, Any]:
    """Return a job when all its images are known; workers begin with the first ones meanwhile."""
    while job["status"] == "preparing":
        job = _look(remote, job)
    return job


def _look(remote: Remote, job: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    job = remote.get(f"/v1/jobs/{job['id']}", wait=WAIT_S)
    # A busy server answers `wait` at once: never ask it faster than this.
    time.sleep(max(0.0, SHORTEST_S - (time.monotonic() - began)))
    return job


def _word(job: dict[str, Any]) -> str:
    failed, rate = job["counts"]["failed"], job["images_per_second"]
    parts = [f"{failed} failed" if failed else "", f"{rate:.1f} images/s" if rate else ""]
    return ", ".join(part for part in parts if part)
