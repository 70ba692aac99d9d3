"""Logging of all commands: readable lines on standard error."""

from __future__ import annotations

import logging
import sys

from jobs.settings import Settings


def set_up_logs(settings: Settings, *, quiet: bool = False) -> None:
    """Log from the configured level on; ``quiet`` commands show their own progress and log warnings only."""
    level = logging.getLevelName(settings.log_level.upper())
    if quiet and level == logging.INFO:
        level = logging.WARNING
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("httpx", "httpcore", "alembic", "PIL", "botocore", "boto3", "urllib3"):
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))
