"""`captionfleet events`: the consumer of bucket events, and its dead letters."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.console import say
from cli.operate import check_database, distributed, process_settings

app = typer.Typer(invoke_without_command=True, help="Turn event notifications of S3 buckets into jobs.")

QueueUrl = Annotated[
    str | None,
    typer.Option(help="SQS queue of notifications; default: CAPTIONFLEET_EVENTS_QUEUE_URL."),
]
DeadLetterUrl = Annotated[
    str | None,
    typer.Option(help="Queue of unusable ones; default: the setting, else the queue's redrive policy."),
]


@app.callback()
def events(context: typer.Context, queue_url: QueueUrl = None, dead_letter_url: DeadLetterUrl = None) -> None:
    """Run the consumer of distributed mode: new objects under a rule's prefix become jobs."""
    if context.invoked_subcommand is not None:
        return
    from worker.bucket_events import run_events

    settings = process_settings(events_queue_url=queue_url, events_dead_letter_url=dead_letter_url)
    distributed(settings)
    check_database(settings, keys=False)
    raise typer.Exit(run_events(settings))


@app.command()
def replay(context: typer.Context, queue_url: QueueUrl = None, dead_letter_url: DeadLetterUrl = None) -> None:
    """Send the dead letters to the queue again, once what was wrong is mended."""
    from jobs.errors import StartupError
    from jobs.queue.sqs import Sqs
    from worker import bucket_events

    # Both options may also stand before the word `replay`.
    before = context.parent.params if context.parent else {}
    settings = process_settings(
        quiet=True,
        events_queue_url=queue_url or before.get("queue_url"),
        events_dead_letter_url=dead_letter_url or before.get("dead_letter_url"),
    )
    url = settings.events_queue_url
    if url is None:
        raise StartupError("configuration_invalid", "CAPTIONFLEET_EVENTS_QUEUE_URL is not set")
    sqs = Sqs(url)
    letters = settings.events_dead_letter_url or bucket_events.dead_letter_url(sqs, url)
    reasons = bucket_events.replay(sqs, letters, url)
    for reason, count in reasons.most_common():
        say(f"{count:6} {reason}")
    say(f"Sent {reasons.total()} messages again.")
