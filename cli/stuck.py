"""`captionfleet stuck` and `redrive`: what does not go on by itself, whosever it is, and setting it going."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from cli import options
from cli.console import print_json, print_table, say
from cli.embedded import opened_store
from cli.operate import process_settings


def stuck(as_json: options.AsJson = False) -> None:
    """List what keeps jobs from going on: chunks that lost workers, fail or are not taken; exit 1 if any."""
    with opened_store(process_settings(quiet=True)) as store:
        found = store.stuck.find()
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        columns = ("job", "owner", "model", "chunk", "problem")
        rows = [
            (one.job_id, one.owner, one.model, "-" if one.chunk is None else str(one.chunk), one.problem)
            for one in found
        ]
        print_table(columns, rows)
    if not found:
        say("Nothing is stuck.")
        return
    say("`captionfleet redrive JOB` sets a job going again.")
    raise typer.Exit(1)


def redrive(job_id: Annotated[str, typer.Argument(metavar="JOB", show_default=False)]) -> None:
    """Set a stuck job going again: no waiting times, chunks of dead workers freed, messages sent anew."""
    settings = process_settings(quiet=True)
    with opened_store(settings) as store:
        messages = store.stuck.redrive(job_id)
        if settings.redis_url:
            from jobs.queue import publish
            from jobs.queue.celery import CeleryQueue

            queue = CeleryQueue(settings.redis_url)
            try:
                publish(queue, messages)
            finally:
                queue.close()
    say(f"{job_id} goes on: {len(messages)} chunks wait for a worker.")
