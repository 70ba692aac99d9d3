"""The embedded database belongs to one process on a local disk; a writer never fails half-way for a lock."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from jobs.errors import DatabaseUnavailable, StartupError
from jobs.settings import Settings
from jobs.store import database as module
from jobs.store import schema
from jobs.store.database import open_database


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    first = open_database(Settings(data_dir=tmp_path))
    code = (
        "import sys; from pathlib import Path; from jobs.settings import Settings;"
        "from jobs.store.database import open_database;"
        f"open_database(Settings(data_dir=Path({str(tmp_path)!r})))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "is in use by process" in run.stderr
    with pytest.raises(StartupError, match="is in use by process"):
        open_database(Settings(data_dir=tmp_path))
    open_database(Settings(data_dir=tmp_path), exclusive=False).close()
    first.close()
    open_database(Settings(data_dir=tmp_path)).close()


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_file_system", lambda folder: "nfs4")
    with pytest.raises(StartupError, match="network file system"):
        open_database(Settings(data_dir=tmp_path))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="CAPTIONFLEET_DATA_DIR"):
        open_database(Settings(data_dir=tmp_path / "file" / "data"))


def test_writers_that_read_first_wait_for_each_other(tmp_path: Path) -> None:
    database = open_database(Settings(data_dir=tmp_path))
    with database.write() as connection:
        connection.execute(text("create table t (n integer)"))
        connection.execute(text("insert into t values (0)"))

    def add() -> None:
        for _ in range(20):
            with database.write() as connection:
                n = connection.execute(text("select n from t")).scalar_one()
                connection.execute(text("update t set n = :n"), {"n": n + 1})

    threads = [threading.Thread(target=add) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        assert connection.execute(text("select n from t")).scalar_one() == 120
    database.close()


def test_a_database_that_is_not_there_is_a_transient_failure() -> None:
    url = "postgresql://nobody@127.0.0.1:1/none"
    database = open_database(Settings(database_url=url, redis_url="redis://localhost:1", bucket="b"))
    with pytest.raises(DatabaseUnavailable, match="does not answer"), database.read():
        pass
    database.close()


def _made(folder: Path, cache: Path) -> list[str]:
    """Make a database in a new folder; return what it consists of."""
    database = open_database(Settings(data_dir=folder))
    schema.make(database, cache)
    schema.check(database)
    with database.read() as connection:
        found = [str(sql) for sql in connection.execute(text("select sql from sqlite_master")).scalars()]
    database.close()
    return found


def test_a_new_database_is_a_copy_of_the_empty_one_in_the_cache(tmp_path: Path) -> None:
    migrated = _made(tmp_path / "first", tmp_path)
    (kept,) = tmp_path.glob("empty-*")
    with closing(sqlite3.connect(kept)) as connection:
        connection.execute("create table told (apart int)")
    assert set(_made(tmp_path / "second", tmp_path)) - set(migrated) == {"CREATE TABLE told (apart int)"}


def test_a_new_database_is_made_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert _made(tmp_path / "data", tmp_path / "file")
