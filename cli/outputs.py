"""Captions on a terminal, in a pipe, in one file, or beside each image."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cli.console import CommandFailed, counted, print_table, printable, say, usage_error

if TYPE_CHECKING:
    from jobs.records import Item

FORMATS = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet", ".zip": "txt.zip"}
SHOWN_FAILURES = 20
FINAL = ("succeeded", "failed")
# A block of a disk.
TRIED_BYTES = 4096


def text_of(path: str | os.PathLike[str]) -> str:
    """Return a path as text that can be stored: bytes that are no UTF-8 become question marks."""
    return os.fspath(path).encode("utf-8", "replace").decode()


def uri_of(path: Path) -> str:
    """Return a file's URI."""
    return path.absolute().as_uri()


def file_format(path: Path) -> str:
    """Return the format a file's name asks for; raise ``CommandFailed`` for one that is not written."""
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise usage_error(f"{path}: results are written as {', '.join(FORMATS)}")
    return found


def check_format(path: Path) -> None:
    """Raise ``CommandFailed`` unless results can be written here in the format of this name."""
    from jobs.results import NO_PARQUET, can_write_parquet

    if file_format(path) == "parquet" and not can_write_parquet():
        raise usage_error(NO_PARQUET)


def check(path: Path, *, grows: bool = False) -> None:
    """Raise ``CommandFailed`` unless a file can be written there, or grow; said before the work."""
    reason = None
    if path.is_dir():
        reason = "it is a folder"
    elif path.exists() and not path.is_file():
        reason = "it is no file"
    elif not path.parent.is_dir():
        reason = "no such folder"
    else:
        reason = _unwritable(path, grows)
    if reason is not None:
        raise usage_error(f"{path} cannot be written: {reason}; choose another place")


def _unwritable(path: Path, grows: bool) -> str | None:
    """Return why nothing can be written there; only trying tells of disks that take nothing."""
    if path.exists() and not os.access(path, os.W_OK):
        return "permission denied"
    if path.exists() and grows:
        return None
    try:
        with _part(path).open("wb") as file:
            file.write(b"\0" * TRIED_BYTES)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    finally:
        with suppress(OSError):
            _part(path).unlink(missing_ok=True)
    return None


def _part(path: Path) -> Path:
    """Return the temporary file beside ``path`` that takes its name once it is whole."""
    return path.with_name(f".{path.name}.part")


def write(path: Path, items: Sequence[Item]) -> None:
    """Write results into a file, in the same form as a server sends them."""
    from jobs.results import comma_separated, jsonl, parquet
    from jobs.sidecars import text_zip

    writers = {"jsonl": jsonl, "csv": comma_separated, "parquet": parquet, "txt.zip": text_zip}
    save(path, writers[file_format(path)]([[item.model_dump(mode="json") for item in items]]))


def check_folders(folders: Iterable[Path]) -> None:
    """Raise ``CommandFailed`` for a folder in which no files can be made."""
    for folder in sorted(folders):
        # One that is not there yet is made in the first one above it that is.
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not os.access(there, os.W_OK):
            raise usage_error(f"no files can be written in {there}: permission denied")


def show(items: Sequence[Item], *, as_json: bool = False) -> None:
    """Print the results as JSON lines, or the captions: a table on a terminal, tab-separated in a pipe."""
    if as_json:
        from jobs.results import jsonl

        save(None, jsonl([[item.model_dump(mode="json") for item in items]]))
        return
    rows = [
        (item.custom_id, item.caption or "", f"{item.score:.2f}" if item.score is not None else "")
        for item in items
        if item.caption is not None
    ]
    print_table(("image", "caption", "score"), rows)


def report_failures(items: Iterable[Item]) -> int:
    """Say on standard error which images have no caption, and why; return how many."""
    failed = [item for item in items if item.caption is None]
    for item in failed[:SHOWN_FAILURES]:
        reason = f"{item.error.message} ({item.error.code})" if item.error else item.status
        say(f"captionfleet: {printable(item.custom_id)}: {reason}")
    if len(failed) > SHOWN_FAILURES:
        say(f"captionfleet: … and {counted(len(failed) - SHOWN_FAILURES, 'more image')} failed")
    return len(failed)


def sidecar_of(path: Path, kind: str) -> Path:
    """Return the place beside an image: ``photo.txt`` for ``photo.jpg``."""
    return path.with_suffix(f".{kind}")


def is_there(path: Path) -> bool:
    """Whether something has this name; nothing has one that cannot be looked up, as it is too long."""
    try:
        return path.exists()
    except OSError:
        return False


def write_sidecars(results: Iterable[tuple[Path, Item]], kind: str, *, overwrite: bool) -> int:
    """Write a file beside each image that has a caption; what is there already stays unless ``overwrite``.

    Returns how many images have none: another one's has the name, as of ``a.jpg`` and ``a.png``, or it
    cannot be written. Each is said, and the others are written.
    """
    owners: dict[Path, Path] = {}
    failed = 0
    for path, item in results:
        target = sidecar_of(path, kind)
        if item.caption is None:
            continue
        if target in owners:
            failed += 1
            taken = printable(f"{target.name} is {owners[target].name}'s")
            say(f"captionfleet: {printable(str(path))} has no sidecar: {taken}")
            continue
        if is_there(target) and not overwrite:
            say(f"captionfleet: {printable(str(target))} exists already and is left as it is")
            continue
        failed += not _write_sidecar(target, kind, item)
        owners[target] = path
    return failed


def _write_sidecar(target: Path, kind: str, item: Item) -> bool:
    """Write one sidecar, or say why it cannot be; return whether it is written."""
    from jobs.sidecars import sidecar

    try:
        save(target, [sidecar(kind, item.model_dump(mode="json"))])
    except CommandFailed as error:
        say(f"captionfleet: {printable(error.message)}")
        return False
    return True


def save(path: Path | None, blocks: Iterable[bytes]) -> None:
    """Write what a server sends to standard output, or to a file that appears only when it is whole."""
    if path is None:
        for block in blocks:
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
        return
    with _whole(path) as file:
        for block in blocks:
            file.write(block)


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` that takes its name when everything went well."""
    temporary = _part(path)
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CommandFailed(f"{path} cannot be written: {reason}") from error
    finally:
        # What could not be made cannot be taken away either, and why was said.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
