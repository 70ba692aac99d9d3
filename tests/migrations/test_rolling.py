"""Old and new side by side: what a migration may do to a large table, and an old worker on a newer schema."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from jobs.errors import DatabaseUnavailable, StartupError
from jobs.settings import Settings
from jobs.store.database import Database, open_database
from jobs.store.schema import HEAD, check, current, upgrade
from tests.clusters import run_cluster
from tests.migrations.test_migrations import config
from tests.servers import S3, Postgres, Redis

ITEMS = 200
NEWER = """
ALTER TABLE items ADD COLUMN later text;
ALTER TABLE chunks ADD COLUMN later int NOT NULL DEFAULT 7;
ALTER TABLE jobs ADD COLUMN later jsonb;
ALTER TABLE workers ADD COLUMN later text NOT NULL DEFAULT 'x';
CREATE TABLE later (id int PRIMARY KEY);
UPDATE alembic_version SET version_num = '9999';
"""


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    settings = Settings(database_url=postgres_url, redis_url="redis://localhost:1", bucket="unused")
    opened = open_database(settings)
    yield opened
    opened.close()


def revisions() -> list[str]:
    """Every revision, oldest first."""
    found = ScriptDirectory.from_config(config(None)).walk_revisions()
    return [script.revision for script in found][::-1]


def test_revisions_are_numbered_in_order() -> None:
    assert revisions() == sorted(revisions()), "a newer schema is told from an older one by its number"


def test_no_migration_reads_or_rewrites_the_items(database: Database) -> None:
    """However many millions there are, its locks on them are held for no longer than it takes to say so."""
    for revision in revisions():
        with database.write() as connection:
            before = touched(connection)
            command.upgrade(config(connection), revision)
            if before:
                assert touched(connection) == before, f"{revision} reads or rewrites the table of items"
            if not before:
                fill(connection)


def touched(connection: Connection) -> tuple[int, int, int] | None:
    """Return the file of the items, and the scans and row writes of them in this transaction."""
    statement = """
        SELECT pg_relation_filenode(oid), pg_stat_get_xact_numscans(oid),
          pg_stat_get_xact_tuples_updated(oid) + pg_stat_get_xact_tuples_inserted(oid)
        FROM pg_class WHERE oid = to_regclass('items')"""
    found = connection.execute(text(statement)).first()
    return (found[0], found[1], found[2]) if found else None


def fill(connection: Connection) -> None:
    """Insert items as the first migration knows them."""
    job = """
        INSERT INTO jobs (id, owner, status, model, options, metadata, source, weight, fast, round, version,
          total, succeeded, failed, chunk_count, released, closed, round_base, created_at)
        VALUES ('j', 'o', 'running', 'm', '{}', '{}', 'upload', 1, false, 1, 1, 1, 0, 0, 1, 1, 0, 0, now())"""
    items = """
        INSERT INTO items (job_id, position, status, name, custom_id, source, attempts)
        SELECT 'j', n, 'queued', n, n, 'upload', 0 FROM generate_series(1, :items) n"""
    connection.execute(text(job))
    connection.execute(text(items), {"items": ITEMS})


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX later ON items (name)",
        "ALTER TABLE items ADD CONSTRAINT later CHECK (attempts >= 0)",
        "ALTER TABLE items ALTER COLUMN attempts TYPE bigint",
        "UPDATE items SET attempts = 1",
    ],
)
def test_the_check_above_sees_what_would_lock_the_items(database: Database, statement: str) -> None:
    upgrade(database)
    with database.write() as connection:
        fill(connection)
    with database.write() as connection:
        before = touched(connection)
        connection.execute(text(statement))
        assert touched(connection) != before


def test_a_migration_does_not_queue_for_a_lock(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes after a waiting migration would wait as well: it gives up and can be run again."""
    monkeypatch.setattr("jobs.store.schema.LOCK_TIMEOUT", "200ms")
    with database.write() as connection:
        command.upgrade(config(connection), "0003")
    with database.write() as busy:
        busy.execute(text("LOCK TABLE jobs IN SHARE MODE"))
        with pytest.raises(DatabaseUnavailable, match="lock timeout"):
            upgrade(database)
    upgrade(database)
    check(database)


def test_code_refuses_a_schema_that_took_something_away(database: Database) -> None:
    upgrade(database)
    with database.write() as connection:
        connection.execute(text("UPDATE schema_floor SET revision = '9998'"))
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for refused in (check, upgrade):
        with pytest.raises(StartupError, match="too new for this version") as refusal:
            refused(database)
        assert refusal.value.code == "schema_outdated"


def test_a_worker_of_this_version_works_on_the_next_ones_schema(
    redis_server: Redis, postgres: Postgres, postgres_url: str, s3: S3
) -> None:
    """Also one that starts after the migration: its machine may have been replaced in the middle of it."""
    with run_cluster(redis_server, postgres, postgres_url, s3, {}) as cluster:
        started_before = cluster.worker()
        job_id = cluster.pictures(160)
        cluster.wait_done(job_id, 1)
        # A table at a time: whoever locks several at once may meet a deadlock, and has to run again.
        for statement in NEWER.strip().splitlines():
            with cluster.services.store.database.write() as connection:
                connection.execute(text(statement))
        cluster.worker()
        cluster.finish(job_id, 60)
        cluster.assert_all_captioned(job_id)
        started_before.kill()
        again = cluster.pictures(40)
        cluster.finish(again, 60)
        cluster.assert_all_captioned(again)
        upgrade(cluster.services.store.database)
        with cluster.services.store.database.read() as connection:
            assert (current(connection) or "") > HEAD
