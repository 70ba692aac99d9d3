"""Services and stores as commands open them, their schema as it has to be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.settings import Settings

if TYPE_CHECKING:
    from jobs.services import Services
    from jobs.store import Store


def local_settings(settings: Settings, data_dir: Path) -> Settings:
    """Return settings that keep everything under ``data_dir``, whatever servers the environment names."""
    nowhere = {"redis_url": None, "database_url": None, "bucket": None, "require_keys": None}
    return settings.model_copy(update={**nowhere, "host": "127.0.0.1", "data_dir": data_dir})


@contextmanager
def opened_services(settings: Settings, cache: Path | None = None) -> Iterator[Services]:
    """Build the services of a process, their schema up to date; nothing works in the background yet.

    Where a new database was made before, ``cache`` holds a copy of it: copying takes a tenth of the time.
    """
    from jobs.services import build_services
    from jobs.store import schema

    services = build_services(settings)
    try:
        if settings.embedded and cache is not None:
            schema.make(services.store.database, cache)
        elif settings.embedded:
            schema.upgrade(services.store.database)
        schema.check(services.store.database)
        yield services
    finally:
        services.close()


@contextmanager
def opened_store(settings: Settings) -> Iterator[Store]:
    """Open the store alone; beside a running embedded server too, which holds the data folder's lock."""
    from jobs.store import Store, schema
    from jobs.store.database import open_database

    store = Store(open_database(settings, exclusive=False), settings.retention_days)
    try:
        with store.database.read() as connection:
            new = schema.current(connection) is None
        if settings.embedded and new:
            schema.upgrade(store.database)
        schema.check(store.database)
        yield store
    finally:
        store.close()
