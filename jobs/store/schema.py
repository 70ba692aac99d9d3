"""The schema's version: which code works with it, said before anything else is touched.

A migration may only add: the release before it goes on working. One that takes something away comes a release
later and raises the floor, the oldest revision that code must know to work with the schema.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from shutil import copyfile

from sqlalchemy import Connection, func, inspect, select, text

import migrations
from jobs.errors import StartupError
from jobs.store.database import Database
from jobs.tables import SchemaFloorRow

log = logging.getLogger(__name__)

HEAD = "0012"
# A migration that has to wait for a table makes everybody behind it wait too: it gives up and is run again.
LOCK_TIMEOUT = "5s"
# PostgreSQL's advisory lock of whoever migrates: hosts that start together do so one after the other.
MIGRATION_LOCK = int.from_bytes(b"captions")


def upgrade(database: Database) -> None:
    """Bring the schema up to date, in one transaction; leave one that is newer and fits as it is.

    Raises ``StartupError`` schema_outdated where another version wrote it.
    """
    with database.write() as connection:
        if not database.is_sqlite:
            connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        if (current(connection) or "") >= HEAD:
            _check(connection)
            return
        # Only now: importing it takes longer than all else here.
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", "migrations:")
        if not database.is_sqlite:
            connection.execute(text(f"set local lock_timeout = '{LOCK_TIMEOUT}'"))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            message = f"the database was written by another version of Captionfleet: {error}"
            raise StartupError("schema_outdated", message) from error


def make(database: Database, cache: Path) -> None:
    """Make a new SQLite database, not connected to yet, as a copy of the empty one that ``cache`` keeps."""
    path = Path(database.engine.url.database or "")
    kept = cache / f"empty-{HEAD}-{_migrations():08x}.db"
    if kept.is_file():
        copyfile(kept, path)
        return
    upgrade(database)
    new = kept.with_suffix(f".{os.getpid()}")
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("VACUUM INTO ?", (str(new),))
        new.replace(kept)
    except (OSError, sqlite3.Error) as error:
        log.info("an empty database is not kept for the next time: %s", error)


def _migrations() -> int:
    """Return a checksum of all migrations: one may still change while it is being written."""
    folder = Path(migrations.__file__).parent / "versions"
    texts = (path.read_bytes() for path in sorted(folder.glob("*.py")))
    return zlib.crc32(b"".join(texts))


def reach(database: Database) -> None:
    """Raise ``DatabaseUnavailable`` unless the database answers."""
    with database.read() as connection:
        connection.execute(text("select 1"))


def check(database: Database) -> None:
    """Raise ``StartupError`` schema_outdated unless this code works with the schema."""
    with database.read() as connection:
        _check(connection)


def _check(connection: Connection) -> None:
    found = current(connection)
    if found == HEAD:
        return
    if found is None or found < HEAD:
        message = f"the database schema is {found or 'empty'} and must be {HEAD}: run `captionfleet migrate`"
        raise StartupError("schema_outdated", message)
    floor = connection.execute(select(SchemaFloorRow.revision)).scalar()
    if floor is None or floor > HEAD:
        message = f"the database schema is {found}, too new for this version ({HEAD}): upgrade Captionfleet"
        raise StartupError("schema_outdated", message)
    log.info("the database schema is %s, newer than this version's %s, and fits", found, HEAD)


def current(connection: Connection) -> str | None:
    """Return the schema's revision, or ``None`` for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("select version_num from alembic_version")).scalar()
