"""How smoothly the page's gallery scrolls: ``python -m benchmarks.page [--images 10000]``.

A job of that many photos (200 different ones, each captioned once and then remembered) is opened in a
headless Chromium without a GPU. A frame's time is that between two calls of requestAnimationFrame while the
page scrolls.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from benchmarks.figures import Figure, line
from benchmarks.machine import describe_machine
from benchmarks.photos import make_photos
from tests.e2e.page.serving import Server, run_server
from tests.processes import wait_until
from tests.servers import run_browser

if TYPE_CHECKING:
    from playwright.sync_api import Page

DIFFERENT = 200
FRAMES = 300
# Pixels a frame: reading along, and a hard flick through the list.
SPEEDS = {"reading": 20, "flicking": 400}
JUMPS = (0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6, 1.0)
SCROLL = """([pixels, frames]) => new Promise((resolve) => {
  const times = [];
  let last = performance.now();
  const step = (now) => {
    times.push(now - last);
    last = now;
    scrollBy({ top: pixels, behavior: "instant" });
    times.length < frames ? requestAnimationFrame(step) : resolve(times.slice(1));
  };
  requestAnimationFrame(step);
})"""

# The list hears of a jump in the next frame, and draws what is to be there in the one after at the latest.
JUMP = """(part) => new Promise((resolve) => {
  scrollTo(0, part * document.body.scrollHeight);
  requestAnimationFrame(() => requestAnimationFrame(resolve));
})"""


def figures(images: int) -> Iterator[Figure]:
    """Yield what scrolling through a job of ``images`` photos costs."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        make_photos(folder, DIFFERENT)
        server = stack.enter_context(run_server(CAPTIONFLEET_BATCH_SIZE="32"))
        server.start()
        job = _job(server, sorted(folder.iterdir()), images)
        page = stack.enter_context(run_browser()).new_page(viewport={"width": 1280, "height": 800})
        yield from _empty(page)
        yield from _opened(page, f"{server.url}/#/jobs/{job}")
        yield from _scrolled(page)
        yield from _jumped(page)
        yield from _cost(page)


def _job(server: Server, photos: list[Path], images: int) -> str:
    """Make a job of ``images`` photos in one request."""
    data = [photo.read_bytes() for photo in photos]
    files = [("images", (f"{n:05}.jpg", data[n % len(data)], "image/jpeg")) for n in range(images)]
    answer = httpx.post(f"{server.url}/v1/jobs", files=files, timeout=900).raise_for_status()
    job: str = answer.json()["id"]
    wait_until(lambda: server.get(f"/v1/jobs/{job}").json()["status"] == "completed", 900, "the job")
    return job


def _empty(page: Page) -> Iterator[Figure]:
    """What this machine and browser need to scroll past nothing but text."""
    page.set_content("<p>text</p>" * 20_000)
    times = _frames(page, SPEEDS["flicking"])
    yield Figure("a page of plain text, 400 px a frame: median frame", statistics.median(times), "ms")
    yield Figure("a page of plain text: 95th percentile", times[int(len(times) * 0.95)], "ms")


def _frames(page: Page, pixels: int) -> list[float]:
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1000)
    times: list[float] = page.evaluate(SCROLL, [pixels, FRAMES])
    return sorted(times)


def _opened(page: Page, url: str) -> Iterator[Figure]:
    began = time.monotonic()
    page.goto(url)
    page.locator(".card.succeeded").first.wait_for(timeout=60_000)
    yield Figure("from the address to the first captions", time.monotonic() - began, "s")


def _scrolled(page: Page) -> Iterator[Figure]:
    for name, pixels in SPEEDS.items():
        times = _frames(page, pixels)
        yield Figure(f"{name}, {pixels} px a frame: median frame", statistics.median(times), "ms", "<= 17")
        yield Figure(f"{name}: 95th percentile", times[int(len(times) * 0.95)], "ms", "<= 34")
        yield Figure(f"{name}: longest frame", times[-1], "ms")


def _jumped(page: Page) -> Iterator[Figure]:
    waits = [_wait_after_jump(page, part) for part in JUMPS]
    yield Figure("from a jump in the scroll bar to captions: median", statistics.median(waits), "ms")
    yield Figure("from a jump in the scroll bar to captions: longest", max(waits), "ms")


def _wait_after_jump(page: Page, part: float) -> float:
    began = time.monotonic()
    page.evaluate(JUMP, part)
    blank = page.locator("endless-list .card:not(.succeeded)")
    wait_until(lambda: blank.count() == 0, 60, "captions")
    return (time.monotonic() - began) * 1000


def _cost(page: Page) -> Iterator[Figure]:
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    metrics: dict[str, Any] = {
        m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]
    }
    yield Figure("cards in the document after all this", page.locator("endless-list li").count())
    yield Figure("nodes in the document", metrics["Nodes"])
    yield Figure("JavaScript heap", metrics["JSHeapUsedSize"] / 1e6, "MB")


def main() -> None:
    """Print the figures as they come."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    images: int = parser.parse_args().images
    print(f"{describe_machine()}\n{images:,} photos")
    for figure in figures(images):
        print(line(figure), flush=True)


if __name__ == "__main__":
    main()
