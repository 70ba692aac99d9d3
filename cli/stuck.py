"""`captionfleet stuck` and `redrive`: what does not go on by itself, whosever it is, and setting it going."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options
from cli.console import print_table, say

if TYPE_CHECKING:
    from jobs.settings import Settings
    from jobs.store import Store


def stuck(as_json: options.AsJson = False) -> None:
    """List what keeps jobs from going on: chunks that lost workers, fail or are not taken; exit 1 if any."""
    with _store() as (store, _):
        found = store.stuck.find()
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=1, ensure_ascii=False))
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
    with _store() as (store, settings):
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


@contextmanager
def _store() -> Iterator[tuple[Store, Settings]]:
    """Open the store; beside a running embedded server too, which holds the data folder's lock."""
    from jobs.logs import set_up_logs
    from jobs.settings import load_settings
    from jobs.store import Store, schema
    from jobs.store.database import open_database

    settings = load_settings()
    set_up_logs(settings, quiet=True)
    store = Store(open_database(settings, exclusive=False), settings.retention_days)
    try:
        schema.check(store.database)
        yield store, settings
    finally:
        store.close()
