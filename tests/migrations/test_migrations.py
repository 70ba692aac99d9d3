"""Migrations make exactly the tables the code was written for, on both databases."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from jobs.errors import StartupError
from jobs.settings import Settings
from jobs.store.database import Database, open_database
from jobs.store.schema import HEAD, check, current, reach, upgrade
from jobs.tables import Base


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database, once per kind."""
    settings = Settings(data_dir=tmp_path)
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
        settings = Settings(database_url=url, redis_url="redis://localhost:1", bucket="unused")
    opened = open_database(settings)
    yield opened
    opened.close()


def config(connection: object) -> Config:
    made = Config()
    made.set_main_option("script_location", "migrations:")
    made.attributes["connection"] = connection
    return made


def test_upgrade_head_equals_the_tables(database: Database) -> None:
    upgrade(database)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        assert current(connection) == HEAD


def test_the_code_knows_the_newest_revision() -> None:
    assert ScriptDirectory.from_config(config(None)).get_current_head() == HEAD


def test_upgrade_can_be_repeated_and_undone(database: Database) -> None:
    upgrade(database)
    upgrade(database)
    check(database)
    with database.write() as connection:
        command.downgrade(config(connection), "base")
    with database.read() as connection:
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
    upgrade(database)
    check(database)


_together: Barrier


def _share(barrier: Barrier) -> None:
    global _together
    _together = barrier


def _migrate(settings: Settings) -> None:
    """Upgrade in the moment in which another process does."""
    database = open_database(settings)
    try:
        reach(database)
        _together.wait(timeout=60)
        upgrade(database)
        check(database)
    finally:
        database.close()


def test_processes_that_start_together_migrate_one_after_the_other(postgres_url: str) -> None:
    settings = Settings(database_url=postgres_url, redis_url="redis://localhost:1", bucket="unused")
    spawn = multiprocessing.get_context("spawn")
    _share(spawn.Barrier(2))
    with ProcessPoolExecutor(1, spawn, initializer=_share, initargs=(_together,)) as pool:
        other = pool.submit(_migrate, settings)
        _migrate(settings)
        other.result(timeout=60)


def test_an_empty_database_is_refused_in_one_line(database: Database) -> None:
    with pytest.raises(StartupError) as refusal:
        check(database)
    assert refusal.value.code == "schema_outdated"
    assert "captionfleet migrate" in refusal.value.message
