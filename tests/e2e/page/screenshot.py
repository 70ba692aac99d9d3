"""Take the picture of the page that the README shows: `python -m tests.e2e.page.screenshot [FILE]`."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

from tests.e2e.page.serving import BROKEN, choose, run_server, upload, wait_for_state
from tests.processes import wait_until
from tests.servers import run_browser

ROOT = Path(__file__).resolve().parents[3]
SIZE = {"width": 1200, "height": 960}


def take() -> bytes:
    """Caption the sample photos and a damaged one, and return a PNG of the finished job."""
    photos = sorted((ROOT / "examples" / "photos").glob("*.jpg"))
    with run_server() as server, run_browser() as browser:
        server.start()
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(server.url)
        choose(page, *photos[:7], upload("damaged.jpg", BROKEN), *photos[7:])
        wait_for_state(page, "Finished")
        wait_until(lambda: page.locator(".card .waiting").count() == 0, what="the last captions")
        wait_until(lambda: page.locator(".card img").count() >= 7, what="the photos")
        return page.screenshot(animations="disabled")


def main() -> None:
    """Write the picture with 256 colours, which makes it small enough for a repository."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images" / "page.png"
    picture = Image.open(io.BytesIO(take())).convert("RGB")
    target.parent.mkdir(parents=True, exist_ok=True)
    few = picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(target, optimize=True)


if __name__ == "__main__":
    main()
