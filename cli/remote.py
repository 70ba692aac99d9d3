"""The server that the client commands talk to: the Python client, whose errors end a command in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli.console import CommandFailed, say
from cli.operate import process_settings

if TYPE_CHECKING:
    from captionfleet_client import CaptionfleetError, Client, Retry


@contextmanager
def connected() -> Iterator[Client]:
    """Talk to the server of CAPTIONFLEET_URL."""
    settings = process_settings(quiet=True)
    with talking(settings.url, settings.api_key) as client:
        yield client


@contextmanager
def talking(url: str, api_key: str | None = None) -> Iterator[Client]:
    """Talk to a server: say when a call is repeated; raise ``CommandFailed`` for what fails."""
    from captionfleet_client import Client, Retries

    with in_words(), Client(url, api_key, retries=Retries(on_retry=_told)) as client:
        yield client


@contextmanager
def in_words() -> Iterator[None]:
    """Raise ``CommandFailed`` for an error of the client: status 2 for what no server could have taken."""
    from captionfleet_client import CaptionfleetError, InvalidArgument, UnreadableFile

    try:
        yield
    except (InvalidArgument, UnreadableFile) as error:
        raise CommandFailed(str(error), 2) from error
    except CaptionfleetError as error:
        raise CommandFailed(_advised(error)) from error


def _advised(error: CaptionfleetError) -> str:
    from captionfleet_client import ConnectionFailed

    if isinstance(error, ConnectionFailed) and not error.met:
        return f"{error}; start one with `captionfleet serve` or set CAPTIONFLEET_URL"
    return str(error)


def _told(retry: Retry) -> None:
    say(f"captionfleet: {retry.reason}; trying again in {retry.pause_s:.0f} s")
