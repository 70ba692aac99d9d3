"""The schema's version: this code works with one, and says so before it touches anything else."""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

from jobs.errors import StartupError
from jobs.store.database import Database

HEAD = "0004"


def upgrade(database: Database) -> None:
    """Bring the schema up to date, in one transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "migrations:")
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check(database: Database) -> None:
    """Raise ``StartupError`` schema_outdated unless the schema is the one this code was written for."""
    with database.read() as connection:
        found = current(connection)
    if found != HEAD:
        message = f"the database schema is {found or 'empty'} and must be {HEAD}: run `captionfleet migrate`"
        raise StartupError("schema_outdated", message)


def current(connection: Connection) -> str | None:
    """Return the schema's revision, or ``None`` for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("select version_num from alembic_version")).scalar()
