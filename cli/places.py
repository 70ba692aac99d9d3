"""Where the captions of images on this machine go: a file, sidecars, metadata, or standard output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli import outputs
from cli.metadata import Targets, write_metadata

if TYPE_CHECKING:
    from jobs.records import Item


@dataclass(frozen=True)
class Places:
    """What a command was asked to write; ``overwrite`` replaces what is there."""

    output: Path | None = None
    sidecar: str | None = None
    described: Targets | None = None
    in_place: bool = False
    overwrite: bool = False
    as_json: bool = False

    @property
    def on_screen(self) -> bool:
        """Whether captions go to standard output: where nothing else is wanted, or as JSON."""
        return self.as_json or not (self.output or self.sidecar or self.described)

    def check(self, images: Sequence[Path]) -> None:
        """Raise ``CommandFailed`` (status 2) for what cannot be written; said before the work."""
        if self.output is not None:
            outputs.check_format(self.output)
            outputs.check(self.output)
        if self.sidecar is not None:
            outputs.check_folders({image.absolute().parent for image in images})

    def write(
        self,
        final: Sequence[tuple[Path, Item]],
        items: Sequence[Item],
        earlier: Sequence[tuple[Path, Item]] = (),
    ) -> int:
        """Write the results of these images, and all ``items`` into the file; return how many writes failed.

        Sidecars that ``earlier`` images lack are written, too. The file comes last, since a later run takes
        what is in it for done. One that no run goes on with is written even where this one is ended before.
        """
        try:
            failed = self._write_beside(final, earlier)
        except BaseException:
            if self.output is not None and outputs.file_format(self.output) != "jsonl":
                outputs.write(self.output, items)
            raise
        if self.output is not None:
            outputs.write(self.output, items)
        if self.on_screen:
            outputs.show([item for _, item in final], as_json=self.as_json)
        return failed

    def _write_beside(self, final: Sequence[tuple[Path, Item]], earlier: Sequence[tuple[Path, Item]]) -> int:
        """Write sidecars and descriptions; return how many could not be."""
        failed = 0
        if self.sidecar is not None:
            beside = {path: outputs.sidecar_of(path, self.sidecar) for path, _ in earlier}
            missing = [(path, item) for path, item in earlier if not outputs.is_there(beside[path])]
            failed = outputs.write_sidecars((*missing, *final), self.sidecar, overwrite=self.overwrite)
        if self.described:
            failed += write_metadata(final, self.described, in_place=self.in_place, overwrite=self.overwrite)
        return failed
