"""A real server, a watch over what must not happen in the browser, and the steps that many tests share."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from tests.pictures import jpeg_bytes
from tests.processes import Process, reserve_port, scratch_folder, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Few images at a time, so that a job of some photos has a middle; a lost lease is noticed soon.
SLOW = {
    "CAPTIONFLEET_BATCH_SIZE": "4",
    "CAPTIONFLEET_THREADS": "1",
    "CAPTIONFLEET_DECODE_PROCESSES": "1",
    "CAPTIONFLEET_LEASE": "3",
}
BROKEN = jpeg_bytes(0)[:300]


def _environment(**extra: str) -> dict[str, str]:
    ours = ("CAPTIONFLEET_", "DATABASE_URL", "REDIS_URL", "AWS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | extra


class Server:
    """`captionfleet serve` on its own port and data folder; it can be killed and started again."""

    def __init__(self, **settings: str) -> None:
        self.port = reserve_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = scratch_folder("page")
        command = shutil.which("captionfleet", path=str(Path(sys.executable).parent))
        assert command, "the command captionfleet is not installed beside this Python"
        environment = _environment(CAPTIONFLEET_DATA_DIR=str(self.folder / "data"), **SLOW | settings)
        self.process = Process(
            [command, "serve", "--port", str(self.port)], environment=environment, folder=self.folder
        )

    def start(self) -> None:
        """Start the server and wait until it can take jobs."""
        self.process.start(self._ready, timeout=90)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def get(self, path: str) -> httpx.Response:
        """Read from the API."""
        return httpx.get(self.url + path, timeout=30).raise_for_status()

    def job(self, page: Page) -> dict[str, Any]:
        """Return the job that the page shows."""
        found: dict[str, Any] = self.get(f"/v1/jobs/{job_id(page)}").json()
        return found

    def items(self, page: Page, limit: int = 100) -> list[dict[str, Any]]:
        """Return the first items of the job that the page shows."""
        found: list[dict[str, Any]] = self.get(f"/v1/jobs/{job_id(page)}/items?limit={limit}").json()["data"]
        return found


def job_id(page: Page) -> str:
    """Read from the address which job the page shows."""
    return page.url.rpartition("#/jobs/")[2].partition("?")[0]


@contextlib.contextmanager
def run_server(**settings: str) -> Iterator[Server]:
    """Run a server of its own."""
    server = Server(**settings)
    try:
        yield server
    finally:
        server.process.stop()


class Watch:
    """What the browser complained about, and where it went."""

    def __init__(self, page: Page) -> None:
        self.complaints: list[str] = []
        self.addresses: set[str] = set()
        self.expected: tuple[str, ...] = ()
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self._note("error", str(error)))
        page.on("request", lambda request: self.addresses.add(request.url))
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error('CSP: ' + e.violatedDirective))"
        )

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def check(self, *urls: str) -> None:
        """Fail on complaints that were not expected, and on any address but the servers'."""
        unexpected = [text for text in self.complaints if not any(part in text for part in self.expected)]
        assert not unexpected
        own = (*urls, *(f"blob:{url}" for url in urls))
        assert {a for a in self.addresses if not a.startswith(own)} == set()


def choose(page: Page, *files: Path | dict[str, Any]) -> None:
    """Choose photos by the button and wait until the page shows their job."""
    before = page.url
    payloads = [upload(file.name, file.read_bytes()) if isinstance(file, Path) else file for file in files]
    page.get_by_label("Choose photos").set_input_files(payloads)
    page.wait_for_url(lambda url: "#/jobs/" in url and url != before)


def upload(name: str, data: bytes, kind: str = "image/jpeg") -> dict[str, Any]:
    """A file as the browser would have it from the disk."""
    return {"name": name, "mimeType": kind, "buffer": data}


def drop(page: Page, *paths: Path) -> None:
    """Drop from outside the browser, as a file manager does: folders too."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}

    def drag(kind: str) -> None:
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 650, "data": data})

    curtain = page.get_by_text("Drop to caption")

    def answered() -> bool:
        # A drag goes on telling where it is for as long as it lasts.
        drag("dragOver")
        return curtain.is_visible()

    def dropped() -> bool:
        # The browser forgets a drop that comes before the page has answered where the drag is.
        drag("dragOver")
        drag("drop")
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not curtain.is_visible(), 2)
        return not curtain.is_visible()

    drag("dragEnter")
    wait_until(answered, what="the page's answer to a drag")
    wait_until(dropped, what="the page's answer to a drop")


_unseen = itertools.count()


def many(count: int) -> list[dict[str, Any]]:
    """Enough small photos that a job of them takes seconds; new ones each time, for known ones take none."""
    return [upload(f"photo-{number:04}.jpg", jpeg_bytes(next(_unseen))) for number in range(count)]


def wait_for_state(page: Page, words: str, timeout: float = 90) -> None:
    """Wait until the line on the job's state says ``words``."""
    state = page.locator(".state")
    wait_until(lambda: state.count() == 1 and words in state.inner_text(), timeout, f"the state {words!r}")
