"""Threads without which a process is useless: where one dies, the process ends, and nobody waits in vain."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

log = logging.getLogger(__name__)

EXIT_STARTUP = 2
"""Exit status of a process that could not start; starting it again would not help."""
EXIT_BROKEN = 70
"""Exit status of a process that ended itself because it could not go on."""
EXIT_STUCK = 71
"""Exit status of a process that ended itself because the model did not come back with a batch."""
LAST_WORDS_S = 5.0


def end_process(reason: str, status: int = EXIT_BROKEN) -> NoReturn:
    """End this process at once, whatever its threads are stuck in; leases and the parent do the rest."""
    # Whoever reads the log may have stopped: the words below would wait for them without end.
    with suppress(RuntimeError):
        last = threading.Timer(LAST_WORDS_S, os._exit, [status])
        last.daemon = True
        last.start()
    log.critical("this process ends: %s", reason)
    logging.shutdown()
    faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
    os._exit(status)


def start_vital(target: Callable[[], None], name: str) -> threading.Thread:
    """Run ``target`` in a thread; an exception that leaves it ends the process."""

    def run() -> None:
        try:
            target()
        except BaseException as error:
            log.exception("the %s thread failed", name)
            end_process(f"its {name} thread died of {type(error).__name__}")

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
