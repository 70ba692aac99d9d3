"""What an earlier run has captioned, as its own output tells; nothing else is kept between runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli import outputs
from cli.console import counted, usage_error
from cli.places import Places

if TYPE_CHECKING:
    from jobs.records import Item

# How every line of results begins.
_LINE = b'{"position":'


@dataclass(frozen=True)
class Done:
    """Images that have captions, the lines a results file has of them and others, and whose these are."""

    images: frozenset[Path]
    items: Sequence[Item]
    captioned: Sequence[tuple[Path, Item]] = ()


NOTHING = Done(frozenset(), ())


def _possible(places: Places) -> bool:
    """Whether a later run can tell what this one has done."""
    if places.output is not None:
        return outputs.file_format(places.output) == "jsonl"
    return places.sidecar is not None or bool(places.described and not places.in_place)


def advice(places: Places) -> str:
    """Return how the rest is done after this run was stopped."""
    if not _possible(places):
        return "a run with `-o FILE.jsonl` or --sidecar could be gone on with by --resume"
    instead = " instead of --overwrite" if places.overwrite else ""
    return f"the same command with --resume{instead} goes on"


def find_done(images: Sequence[Path], places: Places) -> Done:
    """Return what need not be captioned again: the results file says it, or else sidecars and copies.

    Raises ``CommandFailed`` (status 2) where none could, or for a file that holds something else.
    """
    if not _possible(places):
        raise usage_error(
            "--resume needs `-o FILE.jsonl` or --sidecar or --write-metadata, to see what is done"
        )
    if places.overwrite:
        raise usage_error("--resume skips what is done, and --overwrite does it again: choose one")
    if places.output is None:
        return Done(frozenset(image for image in images if _has_files(image, places)), ())
    items = [item for item, _ in read_lines(places.output)]
    captions = {item.source: item for item in items if item.caption is not None}
    named = [(path, captions.get(outputs.uri_of(path))) for path in images]
    captioned = [(path, item) for path, item in named if item is not None]
    return Done(frozenset(path for path, _ in captioned), items, captioned)


def summary(images: Sequence[Path], done: Done) -> str:
    """Return how much need not be done again, and what else the results file holds."""
    said = f"{len(done.images)} of {counted(len(images))} captioned already"
    theirs = sum(not is_here(item) for item in done.items)
    kept = f"; {counted(theirs, 'result')} of a server, which names no files here, kept as well"
    return said + (kept if theirs else "")


def _has_files(image: Path, places: Places) -> bool:
    wanted = [outputs.sidecar_of(image, places.sidecar)] if places.sidecar else []
    if places.described and not places.in_place:
        wanted.append(places.described[image])
    return all(outputs.is_there(path) for path in wanted)


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
    """Return all results, numbered anew, one for each file of this machine: the later one stays.

    A server's results all stay: uploads have one source, and a job may name an object twice.
    """
    latest = {item.source if is_here(item) else n: item for n, item in enumerate((*earlier, *now))}
    return [item.model_copy(update={"position": n}) for n, item in enumerate(latest.values())]


def is_here(item: Item) -> bool:
    """Whether the image is a file, by its source; a server's are uploads, objects and web addresses."""
    return item.source.startswith("file:")
