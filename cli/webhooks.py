"""`captionfleet webhooks`: the secrets that sign an owner's webhooks, and what became of each delivery."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import options
from cli.console import print_json, print_table, say
from cli.remote import connected

app = typer.Typer(no_args_is_help=True, help="Signing secrets and deliveries of your jobs' webhooks.")


@app.command()
def secrets(as_json: options.AsJson = False) -> None:
    """Show the secrets that sign, newest first; the first call makes one."""
    with connected() as client:
        found = client.call("GET", "/v1/webhooks/secrets")["data"]
    _show_secrets(found, as_json=as_json)


@app.command()
def rotate(as_json: options.AsJson = False) -> None:
    """Make a new secret; the ones before it sign along for a day."""
    with connected() as client:
        found = client.call("POST", "/v1/webhooks/secrets")["data"]
    _show_secrets(found, as_json=as_json)
    say("Events are signed with every secret shown; teach your receivers the first one within a day.")


@app.command()
def deliveries(
    job: Annotated[str | None, typer.Option(help="Only this job's.")] = None,
    status: Annotated[str | None, typer.Option(help="pending, delivered or failed.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    as_json: options.AsJson = False,
) -> None:
    """List deliveries, newest first, with what came of the last try."""
    with connected() as client:
        found = list(client.entries("/v1/webhooks/deliveries", limit, job_id=job, status=status))
    if as_json:
        print_json(found)
        return
    columns = ("delivery", "job", "event", "status", "tries", "last answer", "next try (UTC)")
    print_table(columns, [_row(delivery) for delivery in found])


@app.command()
def redeliver(delivery: Annotated[str, typer.Argument(metavar="DELIVERY", show_default=False)]) -> None:
    """Send an event again now."""
    with connected() as client:
        client.call("POST", f"/v1/webhooks/deliveries/{delivery}/retry")
    say(f"{delivery} is sent again.")


def _show_secrets(found: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = [
        (secret["secret"], _minute(secret["created_at"]), _minute(secret["expires_at"])) for secret in found
    ]
    print_table(("secret", "made (UTC)", "signs until (UTC)"), rows)


def _row(delivery: dict[str, Any]) -> tuple[str, ...]:
    tries = delivery["attempts"]
    last = tries[-1] if tries else {"http_status": None, "error": None}
    answer = str(last["http_status"] or last["error"] or "-")
    due = _minute(delivery["next_attempt_at"])
    return (
        delivery["id"],
        delivery["job_id"],
        delivery["type"],
        delivery["status"],
        str(len(tries)),
        answer,
        due,
    )


def _minute(time: str | None) -> str:
    return "-" if time is None else time[:16].replace("T", " ")
