"""The page for people with a keyboard, a screen reader, a phone, or a dark room."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.e2e.page.serving import BROKEN, Server, choose, upload, wait_for_state
from tests.processes import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import FileChooser, Page

WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
SCREENS = {"desktop": (1280, 860), "phone": (320, 640)}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_every_screen_is_accessible(
    page: Page, server: Server, photos: list[Path], scheme: str, screen: str
) -> None:
    width, height = SCREENS[screen]
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
    page.goto(server.url)
    choose(page, photos[0], upload("broken.jpg", BROKEN))
    wait_for_state(page, "1 failed")
    page.locator(".card.failed").wait_for()
    _check(page)
    page.get_by_role("link", name="All jobs").click()
    page.locator(".jobs li").first.wait_for()
    page.get_by_label("Choose photos").set_input_files([upload("notes.txt", b"", "text/plain")])
    page.locator(".notice").wait_for()
    _check(page)


def test_the_box_for_the_key_is_accessible(page: Page, server: Server) -> None:
    page.route("**/v1/**", lambda route: route.fulfill(status=401, json={"code": "unauthorized"}))
    page.goto(server.url)
    page.get_by_label("API key").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()
    _check(page)


def _check(page: Page) -> None:
    found = Axe().run(page, options=WCAG)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than the screen"


def test_photos_are_chosen_with_the_keyboard_alone(home: Page, photos: list[Path]) -> None:
    choosers: list[FileChooser] = []
    home.on("filechooser", lambda chooser: choosers.append(chooser))
    focused = "document.activeElement?.labels?.[0]?.innerText.trim()"
    for _ in range(5):
        home.keyboard.press("Tab")
        if home.evaluate(focused) == "Choose photos":
            break
    home.keyboard.press("Enter")
    wait_until(lambda: home.title() and choosers, what="the file dialog")
    choosers[0].set_files(photos[:1])
    home.wait_for_url("**/#/jobs/*")
    wait_for_state(home, "Finished")


def test_the_end_of_a_job_is_announced(home: Page, photos: list[Path]) -> None:
    choose(home, photos[0])
    announced = home.get_by_role("status").filter(has_text="Finished · 1 of 1 photo captioned")
    announced.wait_for(state="attached")
