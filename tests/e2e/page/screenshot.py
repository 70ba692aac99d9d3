"""Take the pictures of the page that README and docs show: `python -m tests.e2e.page.screenshot [FOLDER]`."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from PIL import Image

from tests.e2e.page.serving import BROKEN, Server, choose, run_server, upload, wait_for_state
from tests.processes import wait_until
from tests.servers import run_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[3]
DESKTOP = {"width": 1200, "height": 900}
PHONE = {"width": 390, "height": 780}
# How many photos on the screen are not there yet.
BLANK = """[...document.querySelectorAll(".card.succeeded item-photo")].filter((photo) => {
  const { top, bottom } = photo.getBoundingClientRect();
  return top < innerHeight && bottom > 0 && !photo.querySelector("canvas");
}).length"""
# A job of this many, of copies of the sample photos.
LARGE = 10_000


def _settled(page: Page) -> bytes:
    """Wait for all captions and photos on the screen, and return a PNG of it."""
    wait_until(lambda: page.locator(".card .waiting").count() == 0, what="the captions")
    wait_until(lambda: page.evaluate(BLANK) == 0, what="the photos")
    return page.screenshot(animations="disabled")


def _job(page: Page, server: Server, photos: list[Path]) -> str:
    page.goto(server.url)
    choose(page, *photos[:7], upload("damaged.jpg", BROKEN), *photos[7:])
    wait_for_state(page, "Finished")
    return page.url


def _large_job(server: Server, photos: list[Path]) -> str:
    """A job of thousands, which the sample photos are captioned for only once."""
    files = [
        ("images", (f"IMG_{n:04}.jpg", photos[n % len(photos)].read_bytes())) for n in range(len(photos))
    ]
    many = [files[n % len(files)] for n in range(LARGE)]
    answer = httpx.post(f"{server.url}/v1/jobs", files=many, timeout=900).raise_for_status()
    job: str = answer.json()["id"]
    wait_until(lambda: server.get(f"/v1/jobs/{job}").json()["status"] == "completed", 900, "the large job")
    return f"{server.url}/#/jobs/{job}"


def take(browser: Browser, server: Server, photos: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield names and pictures."""

    def opened(size: Any, scheme: Any, url: str) -> Page:
        page = browser.new_page(viewport=size, color_scheme=scheme)
        page.goto(url)
        return page

    job = _job(browser.new_page(), server, photos)
    page = opened(DESKTOP, "light", job)
    yield "page", _settled(page)
    page.get_by_label("Edit the caption of coffee.jpg").click()
    page.get_by_label("Caption", exact=True).fill("A cup of espresso on a wooden table")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("heading", name="The model's own caption").wait_for()
    yield "page-edit", page.screenshot(animations="disabled")
    yield "page-dark", _settled(opened(DESKTOP, "dark", job))
    yield "page-phone", _settled(opened(PHONE, "light", job))
    failure = opened(DESKTOP | {"height": 720}, "light", f"{job}?status=failed")
    failure.locator(".card.failed").wait_for()
    yield "page-failure", _settled(failure)
    alt = opened(DESKTOP | {"height": 700}, "light", f"{job}?view=alt")
    alt.locator(".snippet").first.wait_for()
    alt.wait_for_timeout(1000)
    yield "page-alt", alt.screenshot(animations="disabled")
    gallery = opened(DESKTOP, "light", _large_job(server, photos))
    gallery.locator(".card.succeeded").first.wait_for()
    gallery.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
    gallery.wait_for_timeout(1000)
    yield "page-gallery", _settled(gallery)


def main() -> None:
    """Write the pictures with few colours, which makes them small enough for a repository."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    photos = sorted((ROOT / "examples" / "photos").glob("*.jpg"))
    with run_server(CAPTIONFLEET_BATCH_SIZE="16") as server, run_browser() as browser:
        server.start()
        for name, data in take(browser, server, photos):
            picture = Image.open(io.BytesIO(data)).convert("RGB")
            picture.thumbnail((900, 900))
            few = picture.quantize(192, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
            few.save(folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
