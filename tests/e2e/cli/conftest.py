"""A server that the tests of the client commands share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.cli.commands import Server


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """A running server; tests that use it leave it running."""
    server = Server()
    server.start()
    yield server
    server.process.stop()
