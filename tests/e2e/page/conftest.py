"""A real server, and a browser page that is watched for everything that must not happen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.e2e.page.serving import Server, Watch, run_server

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """The server that all tests share which leave it running."""
    with run_server() as server:
        server.start()
        yield server


@pytest.fixture
def watch(page: Page) -> Watch:
    """The watch over ``page``; a test that provokes complaints says which it expects."""
    return Watch(page)


@pytest.fixture
def home(page: Page, server: Server, watch: Watch) -> Iterator[Page]:
    """The page as it opens; at the end nothing may have gone wrong behind the scenes."""
    page.goto(server.url)
    yield page
    # Shown where the test fails: what a person would have seen.
    print(page.url, page.inner_text("body"), sep="\n")
    watch.check(server.url)
