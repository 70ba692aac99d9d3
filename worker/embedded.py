"""The worker of embedded mode: threads of the same process that serves the API."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from jobs.errors import StartupError
from jobs.queue import queue_name
from jobs.queue.embedded import EmbeddedQueue
from jobs.services import Services
from jobs.settings import Settings
from model.captioner import Captioner
from worker.exclusion import Exclusion
from worker.loading import load_model, serving
from worker.pipeline import Pipeline
from worker.stopping import until_answered

log = logging.getLogger(__name__)

GRACE_S = 10.0
TAKE_S = 0.5


class EmbeddedWorker:
    """Captions what the embedded queue brings; models load in the background.

    A model that cannot be loaded leaves its jobs waiting and its error in ``error``.
    """

    def __init__(self, services: Services, load: Callable[[Settings, str], Captioner] = load_model) -> None:
        if not isinstance(services.queue, EmbeddedQueue):
            message = "REDIS_URL is set, so workers are processes of their own: `captionfleet worker`"
            raise StartupError("configuration_invalid", message)
        self._services = services
        self._load_model = load
        self._queue: EmbeddedQueue = services.queue
        self._exclusion = Exclusion()
        self._stopping = threading.Event()
        self._loaded = threading.Event()
        self._loader = threading.Thread(target=self._load, name="load-models", daemon=True)
        self._pipelines: list[Pipeline] = []
        self.error: StartupError | None = None
        """Why a model could not be loaded."""

    @property
    def ready(self) -> bool:
        """Whether every model is loaded and consumes."""
        return self._loaded.is_set() and self.error is None

    def start(self) -> None:
        """Take up what an earlier process left, then load the models; returns at once."""
        self._loader.start()

    def wait_loaded(self, timeout_s: float) -> bool:
        """Wait until loading is over; return whether every model is ready."""
        return self._loaded.wait(timeout_s) and self.ready

    def stop(self) -> None:
        """Finish the chunks in hand or hand them back, within about ten seconds; once more does nothing."""
        self._stop(GRACE_S)

    def _stop(self, grace_s: float) -> None:
        self._stopping.set()
        self._loader.join()
        deadline = time.monotonic() + grace_s
        while self._pipelines:
            self._pipelines[-1].stop(max(0.0, deadline - time.monotonic()))
            # Not before: an impatient second Ctrl-C ends the wait, and leaves the rest to be stopped again.
            self._pipelines.pop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop(0.0 if kind is KeyboardInterrupt else GRACE_S)

    def _load(self) -> None:
        try:
            until_answered(self._stopping, self._services.sweep.recover_all)
            self._services.start()
            for model in self._services.settings.model_names:
                if not self._stopping.is_set():
                    self._serve(model)
        except Exception as error:
            log.exception("the worker could not start")
            self.error = StartupError("configuration_invalid", f"{type(error).__name__}: {error}")
        self._loaded.set()

    def _serve(self, model: str) -> None:
        try:
            settings = self._services.settings
            served = serving(settings, model, self._load_model(settings, model))
        except StartupError as error:
            self.error = error
            return
        except Exception as error:
            # Whatever a run time raises: the server goes on, and its readiness says why nothing is captioned.
            log.exception("the model %s could not be loaded", model)
            self.error = StartupError("checkpoint_invalid", f"{model}: {type(error).__name__}: {error}")
            return
        pipeline = Pipeline(self._services, served, self._exclusion)
        self._pipelines.append(pipeline)
        # Small jobs have threads of their own: they need not wait for a chunk of a large one to end.
        for _ in range(self._services.settings.concurrency):
            self._consume(pipeline, queue_name(model, fast=True))
            self._consume(pipeline, queue_name(model, fast=False))

    def _consume(self, pipeline: Pipeline, queue: str) -> None:
        threading.Thread(target=self._run, args=(pipeline, queue), name="consume", daemon=True).start()

    def _run(self, pipeline: Pipeline, queue: str) -> None:
        while not self._stopping.is_set():
            message = self._queue.take([queue], TAKE_S)
            if message is None:
                continue
            try:
                pipeline.run_chunk(message.job_id, message.chunk)
            except Exception:
                # The chunk stays in the database and the sweep announces it again: the thread must go on.
                log.exception("chunk %d of %s was not run", message.chunk, message.job_id)
