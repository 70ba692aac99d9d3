"""Waiting for a job's end over HTTP."""

from __future__ import annotations

from contextlib import ExitStack

from captionfleet_client import Client, Job
from cli.console import Advance, progress


def follow(client: Client, job: Job | str) -> Job:
    """Show a job's progress until it is over; return it as it is then."""
    with ExitStack() as shown:
        advance: Advance | None = None

        def heard(job: Job) -> None:
            nonlocal advance
            # Until all its images are known there is no total to show; workers begin with the first ones.
            if job.status != "preparing":
                counts = job.counts
                advance = advance or shown.enter_context(progress("captioning", counts.total))
                advance(counts.final, _word(job))

        return client.wait(job, progress=heard)


def _word(job: Job) -> str:
    failed, rate = job.counts.failed, job.images_per_second
    parts = [f"{failed} failed" if failed else "", f"{rate:.1f} images/s" if rate else ""]
    return ", ".join(part for part in parts if part)
