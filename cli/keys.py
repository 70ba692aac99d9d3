"""`captionfleet keys`: who may call the API, and which S3 prefixes their jobs may read and write."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cli import options
from cli.console import print_json, print_table, say
from cli.embedded import opened_store
from cli.operate import process_settings
from jobs.callers import USUAL_SCOPES, Scope, in_order, scope_text

if TYPE_CHECKING:
    from pydantic import BaseModel

    from jobs.store.keys import ApiKey, Grant, KeyStore

    T = TypeVar("T", bound=BaseModel)

app = typer.Typer(no_args_is_help=True, help="Manage API keys and what their owners may read.")

Owner = Annotated[str, typer.Argument(help="Whose jobs it concerns.", show_default=False)]
Uri = Annotated[str, typer.Argument(metavar="S3://BUCKET/PREFIX", show_default=False)]


Id = Annotated[str, typer.Argument(metavar="ID", show_default=False)]
Limit = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        help="Of this key, instead of the settings': requests=50/second, concurrent_jobs=5, "
        "images_per_day=1000, bytes_per_day=1000000000, images_per_job=100; NAME=none for no limit, "
        "NAME=default for the settings' again.",
    ),
]


@app.command()
def create(
    owner: Annotated[str, typer.Option(help="Who calls with this key; jobs belong to owners.")],
    label: Annotated[str, typer.Option(help="A note for you.")] = "",
    scope: Annotated[
        list[Scope], typer.Option(help="What it allows: submit, read, admin (repeat the option).")
    ] = list(USUAL_SCOPES),  # noqa: B006
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it ends: 90d, 12h; unset: never.")
    ] = None,
    limit: Limit = None,
    grant: Annotated[
        list[str] | None,
        typer.Option(metavar="S3://BUCKET/PREFIX", help="Let the owner's jobs read what lies there."),
    ] = None,
) -> None:
    """Make a key; it is printed once and kept nowhere."""
    from jobs.records import KeyRequest

    limits, _ = _limits(limit)
    wanted = _checked(KeyRequest, {"owner": _filled(owner), "label": label, "scopes": scope})
    seconds = None if expires is None else _seconds(expires, "--expires")
    with _key_store() as keys:
        for uri in grant or ():
            keys.grant(wanted.owner, uri)
        made, key = keys.create(
            wanted.owner, wanted.label, scopes=wanted.scopes, expires_s=seconds, limits=limits
        )
    _show_new(made, key)


@app.command("list")
def list_keys(as_json: options.AsJson = False) -> None:
    """List keys and grants."""
    with _key_store() as keys:
        found, grants = keys.all(), keys.grants()
    if as_json:
        print_json({"keys": [_shown(key) for key in found], "grants": [asdict(grant) for grant in grants]})
        return
    print_table(
        ("id", "owner", "label", "scopes", "limits", "expires (UTC)", "last used", "state"), map(_row, found)
    )
    if grants:
        print_table(("owner", "may", "where"), [(grant.owner, _may(grant), _uri(grant)) for grant in grants])
    if not found:
        say("There is no key; make one with `captionfleet keys create --owner NAME`.")


@app.command()
def rotate(
    key_id: Id,
    grace: Annotated[
        str, typer.Option(metavar="TIME", help="How long the old key goes on: 24h, 0h.")
    ] = "24h",
) -> None:
    """Make a key that does what this one does, which goes on for a while."""
    seconds = _seconds(grace, "--grace")
    with _key_store() as keys:
        made, key = keys.rotate(key_id, seconds)
    say(f"Key {key_id} ends in {grace}.")
    _show_new(made, key)


@app.command()
def limits(key_id: Id, limit: Limit = None) -> None:
    """Show or change the limits of a key; servers follow within seconds."""
    changes, usual = _limits(limit)
    with _key_store() as keys:
        key = keys.set_limits(key_id, changes, usual)
    say(f"Key {key.id} of {key.owner}: {_limit_text(key) or 'the limits of the settings'}")


@app.command()
def revoke(key_id: Id) -> None:
    """Refuse a key from now on."""
    with _key_store() as keys:
        keys.revoke(key_id)
    say(f"Key {key_id} is revoked.")


@app.command("grant")
def grant_prefix(
    owner: Owner,
    uri: Uri,
    write: Annotated[bool, typer.Option("--write", help="Also let them write results there.")] = False,
) -> None:
    """Let an owner's jobs read what lies under an S3 prefix."""
    with _key_store() as keys:
        granted = keys.grant(_filled(owner), uri, writable=write)
    say(f"Jobs of {owner} may {_may(granted)} {_uri(granted)}.")
    if granted.prefix and not granted.prefix.endswith("/"):
        say(f"That is every key that begins so, {_uri(granted)}-else too; for a folder alone, end with /.")


@app.command()
def ungrant(owner: Owner, uri: Uri) -> None:
    """Take a grant back."""
    from jobs.errors import RequestError

    whole_bucket = uri.removeprefix("s3://").count("/") == 0
    with _key_store() as keys:
        found = [grant for grant in keys.grants(owner) if _uri(grant) == (f"{uri}/" if whole_bucket else uri)]
        if not found:
            raise RequestError("not_found", f"{owner} has no grant for {uri}; see `captionfleet keys list`")
        keys.ungrant(found[0])
    say(f"Jobs of {owner} may no longer read {uri}.")


def _filled(owner: str) -> str:
    if not owner.strip():
        raise typer.BadParameter("the owner is empty")
    return owner


def _show_new(made: ApiKey, key: str) -> None:
    say(f"Key {made.id} of {made.owner}; keep it, it is not shown again:")
    print(key)


def _shown(key: ApiKey) -> dict[str, Any]:
    return asdict(key) | {"scopes": in_order(key.scopes), "state": key.state.value}


def _row(key: ApiKey) -> tuple[str, ...]:
    state = key.state.value if key.successor is None else f"{key.state}, replaced by {key.successor}"
    times = (_time(key.expires_at) or "never", _time(key.last_used_at) or "never")
    return (key.id, key.owner, key.label, scope_text(key.scopes), _limit_text(key), *times, state)


def _time(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M}" if time else ""


def _limit_text(key: ApiKey) -> str:
    return " ".join(f"{name}={'none' if most is None else most}" for name, most in key.limits.items())


def _limits(given: list[str] | None) -> tuple[dict[str, Any], list[str]]:
    """Return what ``NAME=VALUE`` options set, and the names that go back to the settings'."""
    from jobs.records import KeyLimits

    values: dict[str, str | None] = {}
    usual: list[str] = []
    for option in given or ():
        name, equals, value = option.partition("=")
        if not equals:
            raise typer.BadParameter(f"{option!r} is not of the form NAME=VALUE", param_hint="--limit")
        if value == "default":
            usual.append(name)
        values[name] = None if value in ("none", "default") else value
    checked = _checked(KeyLimits, values).given()
    return {name: value for name, value in checked.items() if name not in usual}, usual


def _checked(model: type[T], values: dict[str, Any]) -> T:
    from pydantic import ValidationError

    from jobs.validation import invalid

    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid(error, "the command line") from error


def _seconds(text: str, option: str) -> float:
    match = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no time; write 30m, 12h, 90d or 4w", param_hint=option)
    return float(match[1]) * {"m": 60, "h": 3600, "d": 86400, "w": 604800}[match[2]]


def _may(grant: Grant) -> str:
    return "read and write" if grant.writable else "read"


def _uri(grant: Grant) -> str:
    return f"s3://{grant.bucket}/{grant.prefix}"


@contextmanager
def _key_store() -> Iterator[KeyStore]:
    with opened_store(process_settings(quiet=True)) as store:
        yield store.keys
