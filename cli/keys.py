"""`captionfleet keys`: who may call the API, and which S3 prefixes their jobs may read and write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import print_table, say
from cli.embedded import opened_store
from cli.operate import process_settings

if TYPE_CHECKING:
    from jobs.store.keys import Grant, KeyStore

app = typer.Typer(no_args_is_help=True, help="Manage API keys and what their owners may read.")

Owner = Annotated[str, typer.Argument(help="Whose jobs it concerns.", show_default=False)]
Uri = Annotated[str, typer.Argument(metavar="S3://BUCKET/PREFIX", show_default=False)]


@app.command()
def create(
    owner: Annotated[str, typer.Option(help="Who calls with this key; jobs belong to owners.")],
    label: Annotated[str, typer.Option(help="A note for you.")] = "",
    grant: Annotated[
        list[str] | None,
        typer.Option(metavar="S3://BUCKET/PREFIX", help="Let the owner's jobs read what lies there."),
    ] = None,
) -> None:
    """Make a key; it is printed once and kept nowhere."""
    with _key_store() as keys:
        for uri in grant or ():
            keys.grant(_filled(owner), uri)
        made, key = keys.create(_filled(owner), label)
    say(f"Key {made.id} of {owner}; keep it, it is not shown again:")
    print(key)


@app.command("list")
def list_keys() -> None:
    """List keys and grants."""
    with _key_store() as keys:
        found, grants = keys.all(), keys.grants()
    rows = [
        (key.id, key.owner, key.label, f"{key.created_at:%Y-%m-%d %H:%M}", _state(key.revoked_at is None))
        for key in found
    ]
    print_table(("id", "owner", "label", "created (UTC)", "state"), rows)
    if grants:
        print_table(("owner", "may", "where"), [(grant.owner, _may(grant), _uri(grant)) for grant in grants])
    if not found:
        say("There is no key; make one with `captionfleet keys create --owner NAME`.")


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", show_default=False)]) -> None:
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


def _state(valid: bool) -> str:
    return "valid" if valid else "revoked"


def _may(grant: Grant) -> str:
    return "read and write" if grant.writable else "read"


def _uri(grant: Grant) -> str:
    return f"s3://{grant.bucket}/{grant.prefix}"


@contextmanager
def _key_store() -> Iterator[KeyStore]:
    with opened_store(process_settings(quiet=True)) as store:
        yield store.keys
