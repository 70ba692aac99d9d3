"""The process that works: one model, its pipeline, and messages from Redis until a signal ends it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import IO

from jobs.errors import DatabaseUnavailable, StartupError
from jobs.logs import set_up_logs
from jobs.meters import Exposition
from jobs.metrics import BACKGROUND, WORKER
from jobs.ports import open_metrics_listener, show_metrics
from jobs.services import Services, build_services
from jobs.settings import Settings
from jobs.store.schema import check
from jobs.tracing import start_tracing
from model.captioner import Captioner
from worker.celery_app import CeleryConsumer
from worker.exclusion import Exclusion
from worker.gpu import read_gpu_memory
from worker.loading import load_model, serving
from worker.orders import Orders
from worker.pipeline import Pipeline
from worker.signals import on_signals
from worker.stopping import until_answered
from worker.vital import EXIT_BROKEN, EXIT_STARTUP, end_process

log = logging.getLogger(__name__)

GRACE_S = 25.0
# On top of the grace time: for the last recordings and for connections to close.
END_S = 10.0


class WorkerProcess:
    """Everything in a worker process, from its start to the signal that ends it.

    SIGTERM and SIGINT let the chunks in hand finish within the grace time; SIGQUIT hands them back at once.
    """

    def __init__(self, orders: Orders, grace_s: float = GRACE_S) -> None:
        self._orders = orders
        self._settings = orders.settings
        self._model = orders.model
        self._grace_s = grace_s
        self._stopping = threading.Event()
        self._consumer: CeleryConsumer | None = None
        self._pipeline: Pipeline | None = None

    def run(self, load: Callable[[Settings, str], Captioner] = load_model) -> int:
        """Serve until a signal; return the exit status. Raises ``StartupError``."""
        on_signals((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT), self._on_signal)
        exposition = Exposition([WORKER, BACKGROUND], process=True)
        show_metrics(open_metrics_listener(self._settings), exposition)
        start_tracing(self._settings, "captionfleet-worker")
        services = build_services(self._settings)
        try:
            until_answered(self._stopping, lambda: check(services.store.database))
            until_answered(self._stopping, lambda: self._inherit(services))
        except DatabaseUnavailable:
            return 0
        captioner = load(self._settings, self._model)
        exposition.refresh_with(read_gpu_memory)
        return 0 if self._stopping.is_set() else self._serve(services, captioner)

    def _inherit(self, services: Services) -> None:
        """Free what the children before this one had in hand; nobody need wait for their leases to end."""
        for life in self._orders.before:
            services.sweep.recover_worker(life.worker_id, crashed=life.crashed)
            services.store.workers.leave(life.worker_id)

    def _serve(self, services: Services, captioner: Captioner) -> int:
        served = serving(self._settings, self._model, captioner, self._orders.worker_id)
        pipeline = Pipeline(services, served, Exclusion())
        self._pipeline = pipeline
        self._consumer = CeleryConsumer(self._settings, self._model, services.queue, pipeline.run_chunk)
        if self._stopping.is_set():
            self._consumer.stop()
        services.start()
        stopper = threading.Thread(target=self._stop, args=(pipeline,), name="stop", daemon=True)
        stopper.start()
        log.info("captioning with %s on %s", captioner.name, captioner.device)
        status = self._consumer.run()
        self._stopping.set()
        stopper.join()
        services.close()
        return status

    def _stop(self, pipeline: Pipeline) -> None:
        """Once asked, end the pipeline; a process that cannot end is ended."""
        self._stopping.wait()
        limit = threading.Timer(self._grace_s + END_S, end_process, ["it did not end in time"])
        limit.daemon = True
        limit.start()
        pipeline.stop(self._grace_s)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGQUIT:
            self._grace_s = 0.0
            if self._pipeline is not None:
                self._pipeline.hurry()
        self._stopping.set()
        if self._consumer is not None:
            self._consumer.stop()


def end_with(parent: IO[bytes]) -> None:
    """Stop this process as by SIGTERM when the pipe from its parent closes; end it if it does not stop."""

    def wait() -> None:
        parent.read()
        os.kill(os.getpid(), signal.SIGTERM)
        # Whatever it hangs in, such as a database that never answers while it starts.
        time.sleep(GRACE_S + 2 * END_S)
        end_process("its parent is gone and it did not end in time")

    threading.Thread(target=wait, name="parent", daemon=True).start()


def main() -> int:
    """Read the orders (one line on standard input) and work."""
    orders = Orders.model_validate_json(sys.stdin.buffer.readline())
    set_up_logs(orders.settings)
    end_with(sys.stdin.buffer)
    try:
        return WorkerProcess(orders).run()
    except StartupError as error:
        print(f"captionfleet: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_STARTUP
    except Exception:
        log.exception("this process cannot go on")
        return EXIT_BROKEN


if __name__ == "__main__":
    exit_status = main()
    logging.shutdown()
    # Not sys.exit: threads that are stuck in a fetch or a native library are not waited for.
    os._exit(exit_status)
