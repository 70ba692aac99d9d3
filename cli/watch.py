"""`captionfleet watch`: captions what appears in a folder, until it is told to stop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options, outputs
from cli.arrivals import Arrivals
from cli.console import printable, say, usage_error
from cli.local import LocalJobs, local_jobs
from cli.operate import process_settings
from cli.results_file import ResultsFile
from cli.stopping import stopping

if TYPE_CHECKING:
    from jobs.records import Item

BATCH = 64
# A scan may take this share of the time at most, however large the folder is.
SCAN_SHARE = 0.2
# While photos wait for their turn, more of them are no hurry.
BUSY_INTERVAL_S = 30.0


def watch(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder; those below it, too.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Append results to this FILE.jsonl.")
    ] = None,
    sidecar: options.Sidecar = None,
    as_json: options.AsLines = False,
    interval: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")] = 1.0,
    settle: Annotated[
        float, typer.Option(min=0, max=3600, help="Seconds a file must stay as it is before it is taken.")
    ] = 2.0,
    model: options.Model = None,
    num_beams: options.NumBeams = None,
    num_captions: options.NumCaptions = None,
    max_length: options.MaxLength = None,
    min_length: options.MinLength = None,
    prompt: options.Prompt = None,
    length_penalty: options.LengthPenalty = None,
    top_p: options.TopP = None,
    temperature: options.Temperature = None,
    seed: options.Seed = None,
    device: options.Device = None,
) -> None:
    """Caption what is in a folder and what appears there; Ctrl-C stops it, and later it goes on.

    What has a sidecar (photo.txt, unless -o or --sidecar say otherwise) or a line in FILE.jsonl is done.
    """
    settings, model = process_settings(quiet=True, device=device).with_model(model)
    wanted = options.caption_options(**options.given(locals()))
    if not folder.is_dir():
        raise usage_error(f"{folder} is not a folder")
    kind = sidecar or (None if output else options.SidecarKind.TXT)
    if kind is not None:
        outputs.check_folders([folder.absolute()])
    record = Record(output, kind, as_json=as_json)
    arrivals = Arrivals(folder, settle, record.has)
    with local_jobs(settings, wanted, BATCH) as jobs:
        say(f"captionfleet: watching {printable(str(folder))}; Ctrl-C stops it")
        _run(jobs, arrivals, record, interval)


def _run(jobs: LocalJobs, arrivals: Arrivals, record: Record, interval: float) -> None:
    """Caption what has arrived, batch by batch, for ever; look for more only so often."""
    waiting: list[Path] = []
    looked, scan_s = float("-inf"), 0.0
    while True:
        jobs.check()
        pause = max(BUSY_INTERVAL_S if waiting else interval, scan_s / SCAN_SHARE - scan_s)
        began = time.monotonic()
        if began >= looked + pause:
            waiting += arrivals.settled()
            looked = time.monotonic()
            scan_s = looked - began
        elif waiting:
            batch, waiting = waiting[:BATCH], waiting[BATCH:]
            with stopping() as stop:
                record.keep(batch, jobs.run(batch, lambda _done, _word: None, stop))
        else:
            time.sleep(looked + pause - began)


class Record:
    """Where captions go, and by that what is done; nothing else is remembered from run to run."""

    def __init__(self, output: Path | None, sidecar: str | None, *, as_json: bool = False) -> None:
        """Read what is done; raise ``CommandFailed`` (status 2) where nothing can be written."""
        if output is not None and outputs.file_format(output) != "jsonl":
            raise usage_error(f"{output}: results are appended to a .jsonl file")
        self._file = ResultsFile(output) if output is not None else None
        self._sidecar = sidecar
        self._as_json = as_json

    def has(self, image: Path) -> bool:
        """Whether an image has been captioned: by the file where there is one, else by its sidecar."""
        if self._file is not None:
            return outputs.uri_of(image) in self._file.sources
        return outputs.is_there(outputs.sidecar_of(image, self._sidecar or ""))

    def keep(self, images: Sequence[Path], items: Sequence[Item]) -> None:
        """Write what is final, and show it."""
        final = [pair for pair in zip(images, items, strict=True) if pair[1].status in outputs.FINAL]
        done = [item for _, item in final]
        # Sidecars first: a crash in between leaves work to be done again, not work left out.
        if self._sidecar is not None:
            outputs.write_sidecars(final, self._sidecar, overwrite=False)
        if self._file is not None:
            self._file.append(done)
        if self._as_json:
            outputs.show(done, as_json=True)
        else:
            for item in done:
                if item.caption is not None:
                    print(f"{printable(item.custom_id)}\t{printable(item.caption)}", flush=True)
        outputs.report_failures(done)
