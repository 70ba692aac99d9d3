"""`captionfleet caption`: the whole product in one process, for images that lie on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options, outputs
from cli.console import progress
from cli.files import find_images

if TYPE_CHECKING:
    from jobs.records import CaptionOptions, Item
    from jobs.services import Services
    from jobs.settings import Settings
    from model.captioner import Captioner
    from worker.embedded import EmbeddedWorker

POLL_S = 0.1


class Sidecar(StrEnum):
    """Files written beside each image."""

    TXT = "txt"


def caption(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Images and folders of images.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write results here: FILE.jsonl or FILE.csv.")
    ] = None,
    sidecar: Annotated[
        Sidecar | None, typer.Option(help="Write each caption into a file beside its image.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace such files where they exist.")] = False,
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
    set_up_logs(settings, quiet=True)
    images = find_images(paths)
    wanted = options.caption_options(
        model=model,
        num_beams=num_beams,
        num_captions=num_captions,
        max_length=max_length,
        min_length=min_length,
        prompt=prompt,
        length_penalty=length_penalty,
        top_p=top_p,
        temperature=temperature,
        seed=seed,
    )
    if output is not None:
        outputs.file_format(output)
        outputs.check(output)
    items = _caption_all(settings, images, wanted)
    if output is not None:
        outputs.write(output, items)
    elif sidecar is None:
        outputs.show(items)
    if sidecar is not None:
        outputs.write_sidecars(images, items, overwrite=overwrite)
    if outputs.report_failures(items):
        raise typer.Exit(1)


def _caption_all(settings: Settings, images: Sequence[Path], wanted: CaptionOptions) -> list[Item]:
    """Run one job over the images in a data folder that lasts as long as this command."""
    # First of all, since it takes longest: the model loads while the rest of the program does.
    loading = _begin_loading(settings, wanted.model)
    from cli.embedded import embedded_services, local_settings
    from jobs.store.keys import LOCAL_OWNER
    from worker.embedded import EmbeddedWorker

    with TemporaryDirectory(prefix="captionfleet-", ignore_cleanup_errors=True) as folder:
        local = _only_model(local_settings(settings, Path(folder)), wanted.model, len(images))
        with embedded_services(local) as services:
            job_id = _submit(services, images, wanted)
            with (
                EmbeddedWorker(services, lambda *_: loading.result()) as worker,
                progress("captioning", len(images)) as advance,
            ):
                for done, failed in _follow(services, job_id, worker):
                    advance(done, f"{failed} failed" if failed else "")
            pages = services.store.jobs.results(LOCAL_OWNER, job_id)
            return [item for page in pages for item in page]


def _begin_loading(settings: Settings, model: str | None) -> Future[Captioner]:
    """Load the model in the background; an unknown name is left for intake to refuse."""
    from worker.loading import load_model

    name = model if model in settings.model_names else settings.model_names[0]
    thread = ThreadPoolExecutor(1, thread_name_prefix="load-model")
    loading = thread.submit(load_model, settings, name)
    thread.shutdown(wait=False)
    return loading


def _only_model(settings: Settings, model: str | None, images: int) -> Settings:
    """Start nothing in vain: no other model (an unknown name is left for intake), no idle decode process."""
    name = model or settings.model_names[0]
    entries = tuple(entry for entry in settings.models if entry.partition("=")[0] == name)
    processes = min(settings.decode_processes, images)
    return settings.model_copy(update={"models": entries or settings.models, "decode_processes": processes})


def _submit(services: Services, images: Sequence[Path], wanted: CaptionOptions) -> str:
    from jobs.ids import new_id
    from jobs.objects import image_key
    from jobs.objects.folder import FolderObjects
    from jobs.records import JobSpec
    from jobs.store.jobs import UPLOAD
    from jobs.store.keys import LOCAL_OWNER
    from jobs.store.submit import NewItem, NewJob

    # This data folder is new, so no caption is known yet: looking every image up would be in vain.
    spec = JobSpec(options=wanted.model_copy(update={"use_cache": False}))
    job = NewJob(new_id("job"), LOCAL_OWNER, services.intake.check(spec), UPLOAD, spec)
    objects = FolderObjects(services.settings.data_dir / "objects")

    def items() -> Iterator[NewItem]:
        for position, path in enumerate(images):
            key = image_key(job.id, position)
            objects.link(key, path)
            named = outputs.text_of(path)
            yield NewItem(outputs.text_of(path.name), named, outputs.uri_of(path), object_key=key)

    services.intake.submit(job, items())
    return job.id


def _follow(services: Services, job_id: str, worker: EmbeddedWorker) -> Iterator[tuple[int, int]]:
    """Yield how many images are final, and how many of them failed, until all are."""
    from jobs.store.keys import LOCAL_OWNER

    while True:
        job, _ = services.store.jobs.get(LOCAL_OWNER, job_id)
        yield job.counts.succeeded + job.counts.failed, job.counts.failed
        if job.status.final:
            return
        if worker.error is not None:
            raise worker.error
        time.sleep(POLL_S)
