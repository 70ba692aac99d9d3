"""A list of thousands is as light as one of fifty; `python -m benchmarks.page` measures ten thousand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.e2e.page.serving import Server, Watch
from tests.processes import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

COUNT = 3_000


@pytest.fixture(scope="module")
def large_job(server: Server) -> str:
    """A job of addresses that nothing is fetched from, so that it is done at once."""
    images = [{"url": f"http://127.0.0.1:9/{n}.jpg", "custom_id": f"{n:05}"} for n in range(COUNT)]
    made = httpx.post(f"{server.url}/v1/jobs", json={"images": images}, timeout=60).raise_for_status()
    job: str = made.json()["id"]
    wait_until(lambda: server.get(f"/v1/jobs/{job}").json()["status"] == "completed", 60, "the large job")
    return job


def test_thousands_of_photos_are_scrolled_in_bounded_memory(
    page: Page, server: Server, watch: Watch, large_job: str
) -> None:
    page.goto(f"{server.url}/#/jobs/{large_job}")
    cards = page.locator("endless-list li")
    name = page.locator("endless-list .name")
    wait_until(lambda: name.count() and name.first.inner_text() == "0.jpg", what="the first photo")
    assert cards.first.get_attribute("aria-setsize") == str(COUNT)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    most = 0
    for part in (0.25, 0.5, 0.75, 1, 0.1):
        page.evaluate("part => scrollTo(0, part * document.body.scrollHeight)", part)
        wait_until(lambda: name.count() > 10 and page.locator("endless-list .card:not(.failed)").count() == 0)
        most = max(most, cards.count())
    assert most < 80
    assert len([url for url in requests if "/items?" in url]) <= 15, "only what is looked at is read"

    page.locator(".open").first.focus()
    page.keyboard.press("End")
    wait_until(lambda: name.last.inner_text() == f"{COUNT - 1}.jpg", what="the last photo")
    focused = "document.activeElement.ariaLabel"
    wait_until(lambda: page.evaluate(focused) == f"Open {COUNT - 1}.jpg", what="the focus")
    page.evaluate("scrollTo(0, 0)")
    wait_until(lambda: name.first.inner_text() == "0.jpg", what="the way back")
    assert page.evaluate("document.activeElement.localName") == "endless-list", "the focus is not lost"
    watch.check(server.url)


def test_a_selection_is_read_as_far_as_somebody_looks(page: Page, server: Server, large_job: str) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"{server.url}/#/jobs/{large_job}?status=failed")
    page.get_by_text("More than 100 found").wait_for()
    assert len([url for url in requests if "/items?" in url]) == 1
    found = page.get_by_text(re.compile(r"More than \d+ found"))

    def read_on() -> int:
        # Again and again: the list may still grow when it is scrolled for the first time.
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        return int("".join(filter(str.isdigit, found.inner_text())))

    assert wait_until(lambda: read_on() >= 200 and read_on(), what="the second page") < COUNT / 3
    page.get_by_label("Search captions").fill("nothing like it")
    page.get_by_text("Nothing found.").wait_for()
