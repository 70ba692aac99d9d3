"""The whole product in one process: jobs over images on this machine, in a data folder of their own."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cli import outputs
from cli.console import Advance
from cli.stopping import Stop

if TYPE_CHECKING:
    from jobs.records import CaptionOptions, Item
    from jobs.services import Services
    from jobs.settings import Settings
    from model.captioner import Captioner
    from worker.embedded import EmbeddedWorker

POLL_S = 0.1


@contextmanager
def local_jobs(settings: Settings, wanted: CaptionOptions, most_images: int) -> Iterator[LocalJobs]:
    """Run a worker in a data folder that lasts as long as this; its jobs have ``most_images`` at most."""
    settings = _only_model(settings, wanted.model, most_images)
    # Imports make many objects and no garbage: looking for it would take a tenth of their time.
    gc.disable()
    # First of all, since it takes longest: the model loads while the rest of the program does.
    loading = _begin_loading(settings, wanted.model)
    from cli.embedded import local_settings, opened_services
    from worker.embedded import EmbeddedWorker
    from worker.loading import cache_folder

    with (
        TemporaryDirectory(prefix="captionfleet-", ignore_cleanup_errors=True) as folder,
        opened_services(local_settings(settings, Path(folder)), cache_folder(settings)) as services,
        EmbeddedWorker(services, lambda *_: loading.result()) as worker,
    ):
        gc.freeze()
        gc.enable()
        yield LocalJobs(services, worker, wanted)


class LocalJobs:
    """Captions images as jobs of the one local user."""

    def __init__(self, services: Services, worker: EmbeddedWorker, wanted: CaptionOptions) -> None:
        """Check the options; raise ``RequestError`` for what no model here does."""
        from jobs.records import JobSpec

        self._services = services
        self._worker = worker
        # The data folder is new, so hardly a caption is known yet: looking every image up would be in vain.
        self._spec = JobSpec(options=wanted.model_copy(update={"use_cache": False}))
        self._model = services.intake.check(self._spec)

    def run(self, images: Sequence[Path], advance: Advance, stop: Stop) -> list[Item]:
        """Caption images; return the items, in the same order: not all of them final where ``stop`` came."""
        from jobs.callers import LOCAL_OWNER

        jobs = self._services.store.jobs
        job_id = self._submit(images)
        if not self._follow(job_id, advance, stop):
            # What is in hand ends as captions, for some seconds; a canceled job's would be thrown away.
            self._worker.stop()
        items = [item for page in jobs.results(LOCAL_OWNER, job_id) for item in page]
        jobs.delete(LOCAL_OWNER, job_id)
        return items

    def check(self) -> None:
        """Raise ``StartupError`` where the model cannot be loaded."""
        if self._worker.error is not None:
            raise self._worker.error

    def _submit(self, images: Sequence[Path]) -> str:
        from jobs.callers import LOCAL_OWNER
        from jobs.ids import new_id
        from jobs.objects import image_key
        from jobs.objects.folder import FolderObjects
        from jobs.store.jobs import UPLOAD
        from jobs.store.submit import NewItem, NewJob

        job = NewJob(new_id("job"), LOCAL_OWNER, self._model, UPLOAD, self._spec)
        objects = FolderObjects(self._services.settings.data_dir / "objects")

        def items() -> Iterator[NewItem]:
            for position, path in enumerate(images):
                key = image_key(job.id, position)
                objects.link(key, path)
                named = outputs.text_of(path)
                yield NewItem(outputs.text_of(path.name), named, outputs.uri_of(path), object_key=key)

        self._services.intake.submit(job, items())
        return job.id

    def _follow(self, job_id: str, advance: Advance, stop: Stop) -> bool:
        """Tell how many images are final, and how many of them failed, until all are; return whether so."""
        from jobs.callers import LOCAL_OWNER

        while True:
            job, _ = self._services.store.jobs.get(LOCAL_OWNER, job_id)
            failed = job.counts.failed
            advance(job.counts.succeeded + failed, f"{failed} failed" if failed else "")
            if job.status.final:
                return True
            if stop.asked:
                return False
            self.check()
            time.sleep(POLL_S)


def _begin_loading(settings: Settings, model: str | None) -> Future[Captioner]:
    """Load the model in the background; intake refuses an unknown name."""
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
