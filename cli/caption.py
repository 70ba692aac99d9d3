"""`captionfleet caption`: the whole product in one process, for images that lie on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import metadata, options, outputs, resuming
from cli.console import counted, progress, say, usage_error
from cli.files import find_images
from cli.local import local_jobs
from cli.operate import process_settings
from cli.places import Places
from cli.stopping import Stop, stopping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobs.records import CaptionOptions, Item
    from jobs.settings import Settings


Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH...",
        help="Images, folders of images, quoted patterns such as '**/*.jpg', or - for "
        "a list of them on standard input.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write results here: FILE.jsonl, .csv, .parquet or .zip (of .txt)."),
]
WriteMetadata = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Copy the images there, with captions in EXIF, IPTC, XMP (needs exiv2)."
    ),
]
InPlace = Annotated[bool, typer.Option("--in-place", help="Write captions so into the images themselves.")]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace results, sidecars, copies and descriptions that are there."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Skip what FILE.jsonl has captions for, or else sidecars or copies.")
]


def caption(
    paths: Paths,
    output: Output = None,
    sidecar: options.Sidecar = None,
    write_metadata: WriteMetadata = None,
    in_place: InPlace = False,
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: options.AsLines = False,
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
    if output is not None and output.is_file() and not (resume or overwrite):
        or_on = ", --resume goes on with it" if outputs.file_format(output) == "jsonl" else ""
        raise usage_error(f"{output} is there already: --overwrite replaces it{or_on}")
    described = metadata.targets(images, write_metadata, in_place=in_place)
    places = Places(output, sidecar, described, in_place, overwrite, as_json)
    places.check(images)
    done = resuming.find_done(images, places) if resume else resuming.NOTHING
    left = [image for image in images if image not in done.images]
    if resume:
        say(f"captionfleet: {resuming.summary(images, done)}")
    with stopping() as stop:
        items = _caption_all(settings, left, wanted, stop) if left else []
        final = [pair for pair in zip(left, items, strict=True) if pair[1].status in outputs.FINAL]
        failures = outputs.report_failures([item for _, item in final])
        unwritten = 0
        if final or not stop.asked:
            results = resuming.merged(done.items, [item for _, item in final])
            unwritten = places.write(final, results, done.captioned)
        if stop.asked:
            captions = len(done.images) + len(final) - failures
            say(f"captionfleet: {captions} of {counted(len(images))} done; {resuming.advice(places)}")
    if failures or unwritten:
        raise typer.Exit(1)


def _caption_all(
    settings: Settings, images: Sequence[Path], wanted: CaptionOptions, stop: Stop
) -> list[Item]:
    with (
        local_jobs(settings, wanted, len(images)) as jobs,
        progress("captioning", len(images)) as advance,
    ):
        return jobs.run(images, advance, stop)
