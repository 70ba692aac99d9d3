"""The embedded database belongs to one process on a local disk; a writer never fails half-way for a lock."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from jobs.errors import DatabaseUnavailable, StartupError
from jobs.settings import Settings
from jobs.store import database as module
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
