"""Embedded mode as the commands need it: services on this machine alone, their schema up to date."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import StartupError
from jobs.settings import Settings

if TYPE_CHECKING:
    from jobs.services import Services
    from jobs.store.database import Database


def local_settings(settings: Settings, data_dir: Path) -> Settings:
    """Return settings that keep everything under ``data_dir``, whatever servers the environment names."""
    nowhere = {"redis_url": None, "database_url": None, "bucket": None, "require_keys": None}
    return settings.model_copy(update={**nowhere, "host": "127.0.0.1", "data_dir": data_dir})


@contextmanager
def embedded_services(settings: Settings) -> Iterator[Services]:
    """Build the services of an embedded process, the schema brought up to date first."""
    from jobs.services import build_services

    services = build_services(settings)
    try:
        upgrade(services.store.database)
        yield services
    finally:
        services.close()


def upgrade(database: Database) -> None:
    """Bring the schema up to date; raise ``StartupError`` where a newer version wrote it."""
    from alembic.util import CommandError

    from jobs.store import schema

    try:
        schema.upgrade(database)
    except CommandError as error:
        message = f"the database was written by another version of Captionfleet: {error}"
        raise StartupError("schema_outdated", message) from error
