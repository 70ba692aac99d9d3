"""`captionfleet caption`: the whole product in one process, for images that lie on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options, outputs, resuming
from cli.console import progress, say
from cli.files import find_images
from cli.local import local_jobs
from cli.operate import process_settings
from cli.stopping import Stop, stopping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.records import CaptionOptions, Item
    from jobs.settings import Settings


def caption(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Images, folders of images, quoted patterns such as '**/*.jpg', or - for "
            "a list of them on standard input.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write results here: FILE.jsonl, .csv, .parquet or .zip (of .txt)."
        ),
    ] = None,
    sidecar: options.Sidecar = None,
    overwrite: Annotated[bool, typer.Option(help="Replace such files where they exist.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip what FILE.jsonl, or else a sidecar, has a caption for.")
    ] = False,
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
    """Caption files and folders here, without a server."""
    settings, model = process_settings(quiet=True, device=device).with_model(model)
    wanted = options.caption_options(**options.given(locals()))
    images = find_images(paths)
    if output is not None:
        outputs.check_format(output)
        outputs.check(output)
    done = resuming.find_done(images, output, sidecar, overwrite=overwrite) if resume else resuming.NOTHING
    left = [image for image in images if image not in done.images]
    if resume:
        say(f"captionfleet: {len(images) - len(left)} of {len(images)} images have captions already")
    with stopping() as stop:
        items = _caption_all(settings, left, wanted, stop) if left else []
        final = [pair for pair in zip(left, items, strict=True) if pair[1].status in outputs.FINAL]
        if final or not stop.asked:
            _write(output, sidecar, final, done, overwrite=overwrite)
        failures = outputs.report_failures([item for _, item in final])
        if stop.asked:
            captions = len(done.images) + len(final) - failures
            advice = resuming.advice(output, sidecar, overwrite=overwrite)
            say(f"captionfleet: {captions} of {len(images)} images are done; {advice}")
    if failures:
        raise typer.Exit(1)


def _caption_all(
    settings: Settings, images: Sequence[Path], wanted: CaptionOptions, stop: Stop
) -> list[Item]:
    with (
        local_jobs(settings, wanted, len(images)) as jobs,
        progress("captioning", len(images)) as advance,
    ):
        return jobs.run(images, advance, stop)


def _write(
    output: Path | None,
    sidecar: str | None,
    final: list[tuple[Path, Item]],
    done: resuming.Done,
    *,
    overwrite: bool,
) -> None:
    """Write each result wherever it is wanted; to standard output if nowhere else."""
    items = [item for _, item in final]
    # The results file last, since it says what is done; and written even where a sidecar cannot be.
    try:
        if sidecar is not None:
            outputs.write_sidecars(final, sidecar, overwrite=overwrite)
    finally:
        if output is not None:
            outputs.write(output, resuming.merged(done.items, items))
    if output is None and sidecar is None:
        outputs.show(items)
