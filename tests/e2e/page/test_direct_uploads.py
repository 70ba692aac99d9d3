"""A browser sends a file straight to S3, across origins, by a presigned address."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs.objects.s3 import S3, S3Objects
from tests import servers
from tests.pictures import jpeg_bytes

if TYPE_CHECKING:
    from playwright.sync_api import Page

SEND = """async ([url, type, bytes]) => {
  const body = new Uint8Array(bytes);
  try { return (await fetch(url, {method: "PUT", headers: {"Content-Type": type}, body})).status; }
  catch (error) { return String(error); }
}"""


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[str]:
    """A page of another origin than the S3 server's."""
    (tmp_path / "index.html").write_text("<!doctype html><title>page</title>")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_browser_uploads_across_origins_what_was_signed_and_nothing_else(
    page: Page, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = jpeg_bytes(7)
    with servers.run_s3("--allow-origin", origin) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        objects = S3Objects(S3(), server.bucket)

        def send(url: str, kind: str, body: bytes) -> int | str:
            return page.evaluate(SEND, [url, kind, list(body)])  # type: ignore[no-any-return]

        url = objects.upload_url("uploads/1", "image/jpeg", len(photo), 600)
        assert url is not None
        page.goto(origin)
        assert send(url, "image/jpeg", photo + b"more") == 403
        assert send(url, "image/png", photo) == 403
        assert send(url, "image/jpeg", photo) == 200
        assert objects.read("uploads/1", 10_000_000) == photo
        page.goto(origin.replace("127.0.0.1", "localhost"))
        assert "TypeError" in str(send(url, "image/jpeg", photo)), "another origin is not let in"
