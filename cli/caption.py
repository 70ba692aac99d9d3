"""`captionfleet caption`: the whole product in one process, for images that lie on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options, outputs, resuming
from cli.console import progress, say
from cli.files import find_images
from cli.local import local_jobs

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
    from jobs.logs import set_up_logs
    from jobs.settings import load_settings

    settings, model = load_settings(device=device).with_model(model)
    wanted = options.caption_options(**options.given(locals()))
    set_up_logs(settings, quiet=True)
    images = find_images(paths)
    if output is not None:
        outputs.check_format(output)
        outputs.check(output)
    done = resuming.find_done(images, output, sidecar, overwrite=overwrite) if resume else resuming.NOTHING
    left = [image for image in images if image not in done.images]
    if resume:
        say(f"captionfleet: {len(images) - len(left)} of {len(images)} images have captions already")
    items, interrupted = _caption_all(settings, left, wanted) if left else ([], False)
    if interrupted and not resuming.possible(output, sidecar):
        raise KeyboardInterrupt
    final = [pair for pair in zip(left, items, strict=True) if pair[1].status in outputs.FINAL]
    _write(output, sidecar, final, done, overwrite=overwrite)
    if interrupted:
        said = f"{len(final)} of {len(left)} images are done; the same command with --resume goes on"
        say(f"captionfleet: {said}")
        raise KeyboardInterrupt
    if outputs.report_failures(items):
        raise typer.Exit(1)


def _caption_all(
    settings: Settings, images: Sequence[Path], wanted: CaptionOptions
) -> tuple[list[Item], bool]:
    with (
        local_jobs(settings, wanted, len(images)) as jobs,
        progress("captioning", len(images)) as advance,
    ):
        return jobs.run(images, advance)


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
    if output is not None:
        outputs.write(output, resuming.merged(done.items, items))
    elif sidecar is None:
        outputs.show(items)
    if sidecar is not None:
        outputs.write_sidecars(final, sidecar, overwrite=overwrite)
