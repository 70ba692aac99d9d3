"""Fixtures over real servers; each starts only when a test asks for it."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes import PATIENCE_S, children
from tests.servers import (
    S3,
    Postgres,
    Redis,
    run_browser,
    run_moto,
    run_postgres,
    run_redis,
    run_s3,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parent.parent

# Tests of jobs that name S3 objects without ever reading them; a server's fixture brings its own.
os.environ.setdefault("AWS_ACCESS_KEY_ID", "nobody")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "nothing")

# A run in the background ignores these, and would hand that on to the processes whose stopping it tests.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGQUIT, signal.SIGHUP):
    signal.signal(_number, signal.SIG_DFL)


@pytest.fixture(scope="module", autouse=True)
def no_children_left() -> Iterator[None]:
    """What a file of tests began in this process, it ends: others count the same processes."""
    yield
    assert not children()


@pytest.fixture
def redis_server() -> Iterator[Redis]:
    """A fresh, empty Redis that the test may kill, pause and restart."""
    with run_redis() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The run's PostgreSQL server; a test that stops it starts it again."""
    with run_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """SQLAlchemy URL of an empty PostgreSQL database made for this test."""
    with postgres.database() as url:
        yield url


@pytest.fixture(scope="session")
def s3_service() -> Iterator[S3]:
    """The run's S3 server (signatures are checked)."""
    with run_s3() as server:
        yield server


@pytest.fixture
def s3(s3_service: S3) -> S3:
    """The S3 server with an empty ``bucket`` made for this test."""
    return dataclasses.replace(s3_service, bucket=s3_service.new_bucket())


@pytest.fixture(scope="session")
def moto_service() -> Iterator[S3]:
    """The run's S3 + SQS server with bucket notifications (signatures are not checked)."""
    with run_moto() as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The run's headless Chromium."""
    with run_browser() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in a browser context of its own."""
    context = browser.new_context()
    context.set_default_timeout(1000 * PATIENCE_S)
    try:
        yield context.new_page()
    finally:
        context.close()


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """The sample photos that ship with the repository, by name."""
    return sorted((ROOT / "examples" / "photos").glob("*.jpg"))


@pytest.fixture(scope="session")
def development_photos() -> Path:
    """The folder of development photos beside a developer's checkout."""
    folder = ROOT.parent / "shared" / "data" / "photos"
    if not folder.is_dir():
        pytest.skip("the development photos are not beside this checkout")
    return folder
