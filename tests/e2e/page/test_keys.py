"""The page against a server that asks for API keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.page.serving import Server, Watch, choose, job_id, run_server, wait_for_state
from tests.processes import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture
def guarded() -> Iterator[Server]:
    """A server that wants keys; its ``headers`` hold one."""
    with run_server(CAPTIONFLEET_REQUIRE_KEYS="1") as server:
        key = server.run("keys", "create", "--owner", "ada").split()[-1]
        server.headers = {"Authorization": f"Bearer {key}"}
        server.start()
        yield server


def test_a_key_opens_the_page_for_as_long_as_the_tab_lives(
    page: Page, watch: Watch, guarded: Server, photos: list[Path]
) -> None:
    watch.expected = ("status of 401",)
    page.goto(guarded.url)
    field = page.get_by_label("API key")
    field.wait_for()
    assert field.evaluate("field => field === document.activeElement")
    _sign_in(page, "wrong")
    page.get_by_role("alert").filter(has_text="This key was not accepted").wait_for()
    _sign_in(page, guarded.headers["Authorization"].removeprefix("Bearer "))

    choose(page, *photos[:3])
    wait_for_state(page, "Finished · 3 of 3 photos captioned")
    images = page.locator(".card img")
    wait_until(lambda: images.count() == 3, what="the photos")
    assert all(source.startswith("blob:") for source in images.evaluate_all("all => all.map(i => i.src)"))
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download: CSV").click()
    expected = guarded.get(f"/v1/jobs/{job_id(page)}/results?format=csv").content
    assert waiting.value.path().read_bytes() == expected

    page.reload()
    wait_for_state(page, "Finished · 3 of 3 photos captioned")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("API key").wait_for()
    assert page.locator(".card").count() == 0
    watch.check(guarded.url)


def _sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
