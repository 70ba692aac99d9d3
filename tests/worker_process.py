"""A worker process with a captioner that reads colours: ``python -m tests.worker_process parent|child``.

``CAPTIONER`` holds the captioner's fields as JSON. If the file ``FAULT`` exists, the first child is a
consumer that stays connected and takes no messages, as is known of Celery after a broker's restart; it is
noticed after ``SILENCE`` seconds.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path

from jobs.errors import StartupError
from jobs.settings import load_settings
from tests.captioners import ColourCaptioner, SteeredCaptioner
from worker import child, liveness
from worker.main import Supervisor
from worker.orders import Orders
from worker.vital import EXIT_STARTUP


def parent() -> int:
    logging.basicConfig(level="INFO", format="%(asctime)s parent %(levelname)s %(message)s")
    command = [sys.executable, "-m", "tests.worker_process", "child"]
    return Supervisor(command, Orders(model="small", settings=load_settings())).run()


class Worker(child.WorkerProcess):
    """A worker process that has the configured fault once."""

    def inject(self, fault: str) -> None:
        if fault and Path(fault).exists():
            Path(fault).unlink()
            liveness.SILENCE_S = float(os.environ.get("SILENCE", liveness.SILENCE_S))
            threading.Thread(target=self._stop_consuming, daemon=True).start()

    def _stop_consuming(self) -> None:
        while self._consumer is None or not self._consumer._controller.consumer.task_consumer:
            threading.Event().wait(0.05)
        consumer = self._consumer._controller.consumer
        consumer.hub.call_soon(consumer.task_consumer.cancel)


def work() -> int:
    orders = Orders.model_validate_json(sys.stdin.buffer.readline())
    logging.basicConfig(
        level="INFO", format=f"%(asctime)s child {os.getpid()} %(levelname)s %(name)s %(message)s"
    )
    child.end_with(sys.stdin.buffer)
    fields = json.loads(os.environ.get("CAPTIONER", "{}"))
    captioner = SteeredCaptioner(**fields) if "steering" in fields else ColourCaptioner(**fields)
    worker = Worker(orders, grace_s=float(os.environ.get("GRACE", "25")))
    worker.inject(os.environ.get("FAULT", ""))
    try:
        return worker.run(lambda _settings, _model: captioner)
    except StartupError as error:
        print(error, file=sys.stderr)
        return EXIT_STARTUP


if __name__ == "__main__":
    status = parent() if sys.argv[1] == "parent" else work()
    logging.shutdown()
    sys.stderr.flush()
    os._exit(status)
