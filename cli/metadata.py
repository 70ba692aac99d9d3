"""Captions as descriptions in image files: EXIF, IPTC and XMP, in copies unless asked otherwise."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cli.console import printable, progress, say, usage_error
from cli.describing import begin, describe
from cli.outputs import check_folders

if TYPE_CHECKING:
    from jobs.records import Item

Targets = Mapping[Path, Path]
"""Which file gets an image's description: a copy, or the image itself."""


def targets(images: Sequence[Path], folder: Path | None, *, in_place: bool) -> Targets:
    """Say where descriptions go: copies keep the folders below what all images have in common.

    Raises ``CommandFailed`` (status 2) where they cannot be written.
    """
    if folder is None and not in_place:
        return {}
    if folder is not None and in_place:
        raise usage_error("--write-metadata makes copies, and --in-place changes the images: choose one")
    if find_spec("exiv2") is None:
        raise usage_error("writing metadata needs the package exiv2: pip install -c requirements.lock exiv2")
    if folder is None:
        found = {image: image.resolve() for image in images}
    else:
        # Without the ways up in a name, which would lead out of the folder; links keep theirs.
        plain = {image: Path(os.path.abspath(image)) for image in images}  # noqa: PTH100 (resolve follows links)
        common = os.path.commonpath([path.parent for path in plain.values()])
        found = {image: folder / path.relative_to(common) for image, path in plain.items()}
        _check(folder, found)
    check_folders({target.absolute().parent for target in found.values()})
    return found


def _check(folder: Path, found: Targets) -> None:
    if folder.exists() and not folder.is_dir():
        raise usage_error(f"{folder} is not a folder")
    originals = {image.resolve(): image for image in found}
    for image, target in found.items():
        if (original := originals.get(target.resolve())) is not None:
            place = "its place" if original == image else f"the place of {original}"
            message = f"the copy of {image} would take {place}; choose another folder, or --in-place"
            raise usage_error(message)


def write_metadata(
    results: Sequence[tuple[Path, Item]], where: Targets, *, in_place: bool, overwrite: bool
) -> int:
    """Write the captions into the files; say what could not be done, and return how many that are."""
    captioned = [(path, where[path], item.caption) for path, item in results if item.caption is not None]
    failed = 0
    with _describer() as write, progress("writing metadata", len(captioned)) as advance:
        for number, (path, target, caption) in enumerate(captioned, 1):
            if not in_place and target.exists() and not overwrite:
                say(f"captionfleet: {printable(str(target))} exists already and is left as it is")
            else:
                failed += not write(path, target, caption, overwrite)
            advance(number, f"{failed} failed" if failed else "")
    return failed


Describe = Callable[[Path, Path, str, bool], bool]


@contextmanager
def _describer() -> Iterator[Describe]:
    """Yield what writes one description and returns whether it did; a dead process fails one image."""
    pools = [_pool()]

    def write(path: Path, target: Path, caption: str, overwrite: bool) -> bool:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            said = pools[-1].submit(describe, path, target, caption, overwrite=overwrite).result()
        except BrokenProcessPool:
            pools.append(_pool())
            say(f"captionfleet: {printable(str(path))}: the process that writes descriptions died of it")
            return False
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            say(f"captionfleet: {printable(str(path))}: no description can be written: {reason}")
            return False
        if said is not None:
            say(f"captionfleet: {printable(str(path))}: {said}")
        return True

    try:
        yield write
    finally:
        pools[-1].shutdown()


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), begin)
