"""What commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal

LINE_SECONDS = 5.0
Unit = Literal["images", "bytes"]
Advance = Callable[[int, str], None]


class CommandFailed(Exception):
    """A command cannot do what was asked; ``message`` says why in one line."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


def usage_error(message: str) -> CommandFailed:
    """Return the error of a command that was called wrongly (exit status 2)."""
    return CommandFailed(message, 2)


def say(text: str) -> None:
    """Print a line about the work, as opposed to its result."""
    print(text, file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Return text that a terminal shows as it stands: a file's name may hold control characters."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def counted(amount: int, noun: str = "image") -> str:
    """Return a number with its noun: "1 image", "2 images"."""
    return f"{amount} {noun}{'' if amount == 1 else 's'}"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows: as a table on a terminal, as tab-separated lines without a heading elsewhere."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(printable(cell) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(table)


def print_json(value: Any) -> None:
    """Print a value as JSON that people can read, too."""
    print(json.dumps(value, indent=1, ensure_ascii=False, default=_plain))


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


@contextmanager
def progress(what: str, total: int, unit: Unit = "images") -> Iterator[Advance]:
    """Show how far some work is; the value is called with how much is done and a word about it."""
    if sys.stderr.isatty():
        with _bar(what, total, unit) as advance:
            yield advance
    else:
        yield _lines(what, total, unit)


@contextmanager
def _bar(what: str, total: int, unit: Unit) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[word]}"), console=Console(stderr=True)) as bars:
        row = bars.add_task(what, total=total, word="")
        yield lambda done, word: bars.update(row, completed=done, word=word)


def _lines(what: str, total: int, unit: Unit) -> Advance:
    """Return a reporter for logs: a line when something moved, every few seconds at most."""
    shown, last = 0, time.monotonic()

    def advance(done: int, word: str) -> None:
        nonlocal shown, last
        now = time.monotonic()
        if done != shown and (done >= total or now - last >= LINE_SECONDS):
            shown, last = done, now
            amount = f"{done / 1e6:.1f}/{total / 1e6:.1f} MB" if unit == "bytes" else f"{done}/{total}"
            say(f"{what}: {amount} {word}".rstrip())

    return advance
