"""One database behind two dialects: connections, transactions, its clock, and errors said in our words."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Date,
    Engine,
    Text,
    cast,
    create_engine,
    event,
    func,
    literal,
    make_url,
)
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import InstrumentedAttribute

from jobs.errors import DatabaseUnavailable, RowsLocked, StartupError
from jobs.settings import Settings
from jobs.tables import UtcDateTime

NETWORK_FILE_SYSTEMS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "afs",
    "9p",
    "fuse.sshfs",
    "fuse.s3fs",
    "glusterfs",
}
LOCK_PATIENCE_S = 1.0
FOLD = "captionfleet_fold"
"""SQL function of our SQLite connections: text in lower case, whatever its script."""
_WRITES = "captionfleet_writes"
SESSION = {
    # What a process that stands still, or whose host is gone, may cost the others. The driver's own
    # settings watch the server only: without these PostgreSQL keeps its transaction, and all that it
    # locked, for hours.
    "idle_in_transaction_session_timeout": "15s",
    "lock_timeout": "10s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    # A plan made once would be kept from when the tables were small: until they are next analysed, each
    # chunk of a large job would read them whole.
    "plan_cache_mode": "force_custom_plan",
}
_LOCK_NOT_AVAILABLE = "55P03"


class Database:
    """Transactions over SQLite or PostgreSQL."""

    def __init__(self, engine: Engine, lock: IO[str] | None = None) -> None:
        self.engine = engine
        # There each statement sees a state of its own in a transaction, too (read committed): beginning and
        # ending one would only be two more questions. On SQLite a transaction is one state.
        self._reader = engine if self.is_sqlite else engine.execution_options(isolation_level="AUTOCOMMIT")
        self._lock = lock

    @property
    def is_sqlite(self) -> bool:
        """Whether this is SQLite."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One writing transaction; on SQLite it begins IMMEDIATE, so it never fails half-way for a lock."""
        with _translated(), self.engine.connect() as connection:
            connection = connection.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Reading: of one state on SQLite, of one for each statement on PostgreSQL."""
        with _translated(), self._reader.connect() as connection, connection.begin():
            yield connection

    def now(self, seconds: float = 0) -> ColumnElement[datetime]:
        """The database's own clock plus ``seconds``: hosts may disagree about the time, leases must not."""
        shift = timedelta(seconds=seconds)
        if self.is_sqlite:
            return literal(datetime.now(UTC) + shift, UtcDateTime())
        return func.clock_timestamp(type_=UtcDateTime()) + literal(shift)

    def today(self) -> ColumnElement[date]:
        """The database's own day, by UTC."""
        if self.is_sqlite:
            return literal(datetime.now(UTC).date(), Date())
        return cast(func.timezone("UTC", func.clock_timestamp()), Date)

    def rfc3339(self, time: ColumnElement[datetime | None] | InstrumentedAttribute[datetime | None]) -> Any:
        """Return a time as text, as JSON says it."""
        if self.is_sqlite:
            return func.replace(cast(time, Text), " ", "T").concat("Z")
        return func.to_char(func.timezone("UTC", time), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')

    def held_for(self, process: int) -> None:
        """Say in the lock file that the data folder is another process', which people know and can stop."""
        if self._lock is not None:
            _name_holder(self._lock, process)

    def close(self) -> None:
        """Close all connections and let go of the data folder."""
        self.engine.dispose()
        if self._lock is not None:
            self._lock.close()
            self._lock = None


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        if getattr(getattr(error, "orig", None), "sqlstate", None) == _LOCK_NOT_AVAILABLE:
            raise RowsLocked(f"the rows are in use: {_first_line(error)}") from error
        raise DatabaseUnavailable(f"the database does not answer: {_first_line(error)}") from error
    except DBAPIError as error:
        if type(error.orig) is sqlite3.DatabaseError:
            raise DatabaseUnavailable(f"the database cannot be read: {_first_line(error)}") from error
        if not error.connection_invalidated:
            raise
        raise DatabaseUnavailable(f"the database connection broke: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().split("\n", 1)[0]


def open_database(settings: Settings, *, exclusive: bool = True) -> Database:
    """Open the configured database; nothing connects before the first transaction.

    An embedded database belongs to one process: ``exclusive`` takes the lock file that says so.
    """
    if settings.database_url and not settings.embedded:
        return Database(_postgresql(settings))
    path = _sqlite_path(settings)
    _make_folder(path.parent)
    lock = _take_lock(path.with_suffix(".lock")) if exclusive else None
    return Database(_sqlite(path), lock)


def _sqlite_path(settings: Settings) -> Path:
    if settings.database_url:
        return Path(make_url(settings.database_url).database or "captionfleet.db")
    return settings.data_dir / "captionfleet.db"


def _postgresql(settings: Settings) -> Engine:
    url = make_url(settings.database_url or "").set(drivername="postgresql+psycopg")
    engine = create_engine(
        url,
        pool_size=settings.api_threads + settings.concurrency,
        max_overflow=8,
        pool_timeout=10,
        pool_pre_ping=True,
        # An error that is logged must not show captions or keys.
        hide_parameters=True,
        connect_args={
            "connect_timeout": 5,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            # Keepalive does not watch a question on its way: a vanished host would hold it for 15 minutes.
            "tcp_user_timeout": 20_000,
            "application_name": "captionfleet",
        },
    )
    event.listen(engine, "connect", _limit_session)
    return engine


def _limit_session(connection: Any, _record: object) -> None:
    """Apply ``SESSION``, but for what the operator said in the URL, for the role or for the database.

    Not by the connection's ``options``, which poolers refuse.
    """
    connection.execute(
        "SELECT set_config(name, value, false) FROM pg_settings"
        " JOIN unnest(%s::text[], %s::text[]) AS wanted (name, value) USING (name)"
        " WHERE source NOT IN ('client', 'user', 'database', 'database user')",
        [list(SESSION), list(SESSION.values())],
    )
    connection.commit()


def _sqlite(path: Path) -> Engine:
    url = URL.create("sqlite+pysqlite", database=str(path))
    engine = create_engine(
        url,
        pool_size=32,
        max_overflow=16,
        hide_parameters=True,
        connect_args={"timeout": 60, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        # The driver must not begin transactions by itself: "begin" below does, the right kind.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=60000"):
            connection.execute(f"PRAGMA {pragma}")
        connection.create_function(FOLD, 1, _fold, deterministic=True)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _fold(text: str | None) -> str | None:
    return text if text is None else text.lower()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from error
    if (kind := _file_system(folder)) in NETWORK_FILE_SYSTEMS:
        message = (
            f"CAPTIONFLEET_DATA_DIR={folder} is on a network file system ({kind}); SQLite needs a local disk"
        )
        raise StartupError("configuration_invalid", message)


def _unusable(folder: Path, error: OSError) -> StartupError:
    reason = (error.strerror or str(error)).lower()
    message = f"CAPTIONFLEET_DATA_DIR: {folder} cannot be used: {reason}; choose another folder"
    return StartupError("configuration_invalid", f"{message} (`serve --data-dir FOLDER`)")


def _file_system(folder: Path) -> str | None:
    """Return the file system type of a folder where the system tells (Linux)."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return None
    best = ("", "")
    target = str(folder.resolve())
    for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        _, point, kind = line.split(" ")[:3]
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


# Taking the lock and reading its holder must not interleave between threads.
_guard = threading.Lock()


def _take_lock(path: Path) -> IO[str]:
    with _guard:
        try:
            lock = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise _unusable(path.parent, error) from error
        try:
            _lock_within(lock, LOCK_PATIENCE_S)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            lock.close()
            message = (
                f"CAPTIONFLEET_DATA_DIR={path.parent} is in use by {holder}; "
                "stop it or choose another folder (`serve --data-dir FOLDER`)"
            )
            raise StartupError("configuration_invalid", message) from error
        _name_holder(lock, os.getpid())
        return lock


def _name_holder(lock: IO[str], process: int) -> None:
    lock.truncate(0)
    lock.write(f"process {process}\n")
    lock.flush()


def _lock_within(lock: IO[str], seconds: float) -> None:
    """Lock a file; a process that was just killed may still be about to let go of it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)
