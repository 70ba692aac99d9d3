"""Objects that break off on their way are no shorter objects: they are read again later."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from jobs.errors import StorageUnavailable
from jobs.lists import ListSource
from jobs.objects.s3 import S3, S3Objects
from jobs.store.expansions import Expansion


class _BreaksOff(BaseHTTPRequestHandler):
    """Answers with half of what it announces."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"[]\n" * 100)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Objects]:
    with HTTPServer(("127.0.0.1", 0), _BreaksOff) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield S3Objects(S3(), "bucket")
        server.shutdown()
        thread.join()


def test_a_list_that_breaks_off_is_not_taken_for_its_end(objects: S3Objects) -> None:
    expansion = Expansion("job_1", "ann", "list", {}, None, 0, 0, 0)
    with pytest.raises(StorageUnavailable):
        list(ListSource(objects).slices(expansion))
