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
SCREENS = {"desktop, light": (1280, 860), "phone, dark": (320, 640)}


@pytest.mark.parametrize("screen", SCREENS)
def test_every_view_is_accessible(page: Page, server: Server, photos: list[Path], screen: str) -> None:
    width, height = SCREENS[screen]
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme="dark" if "dark" in screen else "light", reduced_motion="reduce")
    page.goto(server.url)
    choose(page, photos[0], upload("broken.jpg", BROKEN))
    wait_for_state(page, "1 failed")
    page.locator(".card.failed").wait_for()
    _check(page)
    page.locator(".card .open").first.click()
    page.get_by_label("Caption", exact=True).fill("Words that are not saved")
    page.keyboard.press("Escape")
    page.get_by_text("These words are not saved yet.").wait_for()
    _check(page)
    page.get_by_role("button", name="Discard").click()
    page.get_by_role("button", name="Alt texts").click()
    page.locator(".snippet").wait_for()
    _check(page)
    page.get_by_role("button", name="Delete").click()
    _check(page)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("link", name="All jobs").click()
    page.locator(".jobs li").first.wait_for()
    page.locator("summary").click()
    page.get_by_label("Choose photos").set_input_files([upload("notes.txt", b"", "text/plain")])
    page.locator(".notice").wait_for()
    _check(page)
    page.get_by_role("button", name="Web or S3 addresses").click()
    page.get_by_role("button", name="Caption them").click()
    page.get_by_role("alert").wait_for()
    _check(page)


def test_the_sending_and_the_box_for_the_key_are_accessible(page: Page, server: Server) -> None:
    page.route("**/v1/uploads/*", lambda route: route.fulfill(status=403))
    page.goto(server.url)
    page.get_by_label("Choose photos").set_input_files([upload("a.jpg", BROKEN)])
    page.get_by_text("a.jpg: not taken by the storage").wait_for()
    _check(page)
    page.route("**/v1/session", lambda route: route.fulfill(status=401, json={"code": "unauthorized"}))
    page.once("dialog", lambda dialog: dialog.accept())
    page.reload()
    page.get_by_label("API key").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()
    _check(page)


def _check(page: Page) -> None:
    found = Axe().run(page, options=WCAG)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than the screen"


def test_everything_is_done_with_the_keyboard_alone(home: Page, server: Server, photos: list[Path]) -> None:
    choosers: list[FileChooser] = []
    home.on("filechooser", lambda chooser: choosers.append(chooser))
    focused = "document.activeElement?.labels?.[0]?.innerText.trim()"
    for _ in range(6):
        home.keyboard.press("Tab")
        if home.evaluate(focused) == "Choose photos":
            break
    home.keyboard.press("Enter")
    wait_until(lambda: home.title() and choosers, what="the file dialog")
    choosers[0].set_files(photos[:6])
    home.wait_for_url("**/#/jobs/*")
    announced = home.get_by_role("status").filter(has_text="Finished · 6 of 6 photos captioned")
    announced.wait_for(state="attached")

    home.locator(".card.succeeded .open").first.focus()
    home.keyboard.press("ArrowRight")
    assert _focused(home) == f"Open {photos[1].name}"
    home.keyboard.press("End")
    assert _focused(home) == f"Open {photos[5].name}"
    home.keyboard.press("Home")
    home.keyboard.press("Enter")
    home.get_by_role("heading", name=photos[0].name, exact=True).wait_for()
    home.keyboard.press("ArrowRight")
    home.get_by_role("heading", name=photos[1].name, exact=True).wait_for()
    home.get_by_label("Caption", exact=True).focus()
    home.keyboard.press("Control+A")
    home.keyboard.type("typed")
    home.keyboard.press("Control+Enter")
    wait_until(lambda: server.items(home)[1]["edited_caption"] == "typed", what="the edit")
    home.keyboard.press("Escape")
    home.get_by_role("dialog").wait_for(state="detached")
    assert _focused(home) == f"Open {photos[1].name}"


def _focused(page: Page) -> str | None:
    label: str | None = page.evaluate("document.activeElement?.ariaLabel")
    return label
