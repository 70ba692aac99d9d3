"""Logging of every process: readable lines in a terminal, one JSON object a line where machines read them.

Every line carries the ids of what its thread works on: the request, the job, the chunk.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

import orjson

from jobs.settings import Settings
from jobs.tracing import trace_ids

CHATTY = (
    *("httpx", "httpcore", "alembic", "PIL", "botocore", "boto3", "urllib3"),
    *("celery.app.trace", "celery.worker.strategy"),
)
_ids: ContextVar[Mapping[str, str | int]] = ContextVar("ids", default={})  # noqa: B039 (never changed)


@contextmanager
def working_on(**ids: str | int) -> Iterator[None]:
    """Put these ids on every line that this thread logs meanwhile."""
    token = _ids.set({**_ids.get(), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


def note_ids(**ids: str | int) -> None:
    """Put these ids on the lines that this thread logs from here on."""
    _ids.set({**_ids.get(), **ids})


def forget_ids() -> None:
    """Put no ids on this thread's lines any more."""
    _ids.set({})


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, process, ids, an exception's traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            **_ids.get(),
            **trace_ids(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class TextLines(logging.Formatter):
    """Readable lines; ids that the message does not say itself stand at the end."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """Return a record's line, without a traceback."""
        line = super().formatMessage(record)
        said = record.message
        unsaid = [f"{name}={value}" for name, value in _ids.get().items() if str(value) not in said]
        return f"{line}  [{' '.join(unsaid)}]" if unsaid else line


def set_up_logs(settings: Settings, *, quiet: bool = False) -> None:
    """Log from the configured level on; ``quiet`` commands show their own progress and log warnings only."""
    level = logging.getLevelName(settings.log_level.upper())
    if quiet and level == logging.INFO:
        level = logging.WARNING
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if _for_machines(settings) else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))


def _for_machines(settings: Settings) -> bool:
    if settings.log_format != "auto":
        return settings.log_format == "json"
    return not settings.embedded and not sys.stderr.isatty()
