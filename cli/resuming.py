"""What an earlier run has captioned, as its own output tells; nothing else is kept between runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli import outputs
from cli.console import usage_error

if TYPE_CHECKING:
    from jobs.records import Item


@dataclass(frozen=True)
class Done:
    """Images that have captions, and the lines a results file has of them and others."""

    images: frozenset[Path]
    items: Sequence[Item]


NOTHING = Done(frozenset(), ())


def possible(output: Path | None, sidecar: str | None) -> bool:
    """Whether a later run can tell what this one has done."""
    return sidecar is not None if output is None else outputs.file_format(output) == "jsonl"


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
    items = [item for item in read_lines(output) if item.caption is not None]
    sources = {item.source for item in items}
    return Done(frozenset(path for path in images if outputs.uri_of(path) in sources), items)


def read_lines(path: Path) -> Iterator[Item]:
    """Yield the items of a results file, none if it is not there; a line torn by a crash ends it."""
    from pydantic import ValidationError

    from jobs.records import Item

    number = 0
    try:
        with path.open("rb") as file:
            for line in file:
                number += 1
                if line.endswith(b"\n"):
                    yield Item.model_validate_json(line)
    except FileNotFoundError:
        return
    except ValidationError as error:
        raise usage_error(f"line {number} of {path} is not a result; choose another file") from error
    except OSError as error:
        raise usage_error(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error


def merged(earlier: Sequence[Item], now: Sequence[Item]) -> list[Item]:
    """Return all results, numbered anew, one for each image: the later one stays."""
    latest = {item.source: item for item in (*earlier, *now)}
    return [item.model_copy(update={"position": n}) for n, item in enumerate(latest.values())]
