"""What an earlier run has captioned, as its own output tells; nothing else is kept between runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli import outputs
from cli.console import usage_error

if TYPE_CHECKING:
    from jobs.records import Item

# How every line of results begins.
_LINE = b'{"position":'


@dataclass(frozen=True)
class Done:
    """Images that have captions, and the lines a results file has of them and others."""

    images: frozenset[Path]
    items: Sequence[Item]


NOTHING = Done(frozenset(), ())


def possible(output: Path | None, sidecar: str | None) -> bool:
    """Whether a later run can tell what this one has done."""
    return sidecar is not None if output is None else outputs.file_format(output) == "jsonl"


def advice(output: Path | None, sidecar: str | None, *, overwrite: bool) -> str:
    """Return how the rest is done after this run was stopped."""
    if not possible(output, sidecar):
        return "a run with `-o FILE.jsonl` or --sidecar could be gone on with by --resume"
    instead = " instead of --overwrite" if overwrite else ""
    return f"the same command with --resume{instead} goes on"


def find_done(images: Sequence[Path], output: Path | None, sidecar: str | None, *, overwrite: bool) -> Done:
    """Return what need not be captioned again: the results file says it, or where none is wanted, sidecars.

    Raises ``CommandFailed`` (status 2) where neither could, or for a file that holds something else.
    """
    if not possible(output, sidecar):
        raise usage_error("--resume needs `-o FILE.jsonl` or --sidecar, to see what is done")
    if overwrite:
        raise usage_error("--resume skips what is done, and --overwrite does it again: choose one")
    if output is None:
        kind = sidecar or ""
        return Done(frozenset(path for path in images if outputs.sidecar_of(path, kind).exists()), ())
    items = [item for item, _ in read_lines(output)]
    sources = {item.source for item in items if item.caption is not None}
    return Done(frozenset(path for path in images if outputs.uri_of(path) in sources), items)


def read_lines(path: Path) -> Iterator[tuple[Item, int]]:
    """Yield the items of a results file, none if it is not there, each with where its line ends, in bytes.

    A last line that a crash has torn is left out. Raises ``CommandFailed`` (status 2) for any other content.
    """
    from pydantic import ValidationError

    from jobs.records import Item

    number, end, line = 0, 0, b""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):  # noqa: B007 (said in the error)
                end += len(line)
                yield Item.model_validate_json(line), end
    except FileNotFoundError:
        return
    except ValidationError as error:
        if not _torn(line):
            raise usage_error(f"line {number} of {path} is not a result; choose another file") from error
    except OSError as error:
        raise usage_error(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error


def _torn(line: bytes) -> bool:
    """Whether this is the first part of a line of ours: it begins like one, and is not whole in itself."""
    if line.endswith(b"\n") or line[: len(_LINE)] != _LINE[: len(line)]:
        return False
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


def merged(earlier: Sequence[Item], now: Sequence[Item]) -> list[Item]:
    """Return all results, numbered anew, one for each image: the later one stays."""
    latest = {item.source: item for item in (*earlier, *now)}
    return [item.model_copy(update={"position": n}) for n, item in enumerate(latest.values())]
