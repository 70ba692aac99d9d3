"""What the page says and does when something is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobs.errors import REQUEST_STATUS, BrokerUnavailable, DatabaseUnavailable, ItemCode, StorageUnavailable
from jobs.image_types import SUFFIXES
from tests.e2e.page.serving import (
    Server,
    Watch,
    choose,
    job_id,
    many,
    run_server,
    upload,
    wait_for_state,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

AWAY = "The server does not answer."
NO_CONNECTION = ("net::ERR_",)
# Enough that a job of them has a middle, whoever else keeps the machine busy.
FEW = 40


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server that only these tests use."""
    with run_server(CAPTIONFLEET_MAX_IMAGES=str(FEW)) as server:
        yield server


@pytest.fixture
def mortal(own_server: Server) -> Server:
    """A living server that may be killed."""
    if not own_server.process.alive:
        own_server.start()
    return own_server


def test_a_killed_server_is_waited_for(page: Page, watch: Watch, mortal: Server, photos: list[Path]) -> None:
    watch.expected = NO_CONNECTION
    page.goto(mortal.url)
    choose(page, *many(FEW))
    wait_for_state(page, "Captioning")
    page.locator(".card").first.wait_for()
    mortal.process.kill()
    notice = page.get_by_role("status").filter(has_text=AWAY)
    notice.wait_for()
    assert page.locator(".card").count() > 0, "what was there stays"
    mortal.start()
    notice.wait_for(state="detached")
    wait_for_state(page, f"Finished · {FEW} of {FEW} photos captioned")
    assert mortal.job(page)["counts"]["succeeded"] == FEW
    watch.check(mortal.url)


def test_photos_wait_for_the_server_and_arrive_once(
    page: Page, watch: Watch, mortal: Server, photos: list[Path]
) -> None:
    watch.expected = NO_CONNECTION
    before = mortal.get("/v1/jobs").json()["data"]
    page.goto(mortal.url)
    mortal.process.kill()
    page.get_by_label("Choose photos").set_input_files(photos[:3])
    page.get_by_role("status").filter(has_text=AWAY).wait_for()
    assert page.get_by_role("heading", name="Sending 3 photos").is_visible()
    mortal.start()
    page.wait_for_url("**/#/jobs/*")
    wait_for_state(page, "Finished · 3 of 3 photos captioned")
    after = mortal.get("/v1/jobs").json()["data"]
    assert [job["id"] for job in after] == [job_id(page), *(job["id"] for job in before)]
    watch.check(mortal.url)


def test_a_frozen_server_lets_the_sending_be_stopped(
    page: Page, watch: Watch, mortal: Server, photos: list[Path]
) -> None:
    page.goto(mortal.url)
    page.wait_for_load_state("networkidle")
    mortal.process.pause()
    page.get_by_label("Choose photos").set_input_files(photos[:3])
    page.get_by_role("button", name="Stop sending").click()
    page.get_by_role("heading", name="Sending 3 photos").wait_for(state="detached")
    mortal.process.resume()
    watch.check(mortal.url)


def test_a_job_that_does_not_exist_is_said_so(page: Page, server: Server, watch: Watch) -> None:
    watch.expected = ("status of 404",)
    page.goto(f"{server.url}/#/jobs/job_00000000000000000000000000")
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text() == "This job does not exist, or it has been deleted."
    page.get_by_role("link", name="All jobs").click()
    page.get_by_label("Choose photos").wait_for()
    watch.check(server.url)


def test_what_failed_is_no_longer_said_when_it_works(page: Page, server: Server, watch: Watch) -> None:
    watch.expected = ("status of 500",)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(server.url)
    choose(page, *many(1))
    wait_for_state(page, "Finished · 1 of 1 photo captioned")
    page.get_by_role("button", name="Alt texts").click()
    page.route("**/results*", lambda route: route.fulfill(status=500), times=1)
    alert = page.get_by_role("alert")
    page.get_by_role("button", name="Copy all").click()
    alert.wait_for()
    page.get_by_role("button", name="Copy all").click()
    page.get_by_text("Copied 1 text.").wait_for()
    alert.wait_for(state="detached")
    first, older = re.compile(r"/v1/jobs\?limit=10$"), re.compile(r"/v1/jobs\?.*cursor=")
    page.route(first, lambda route: route.fulfill(json=_with_more(route.fetch().json())))
    page.route(older, lambda route: route.fulfill(json={"data": [], "next_cursor": None}))
    page.route(older, lambda route: route.fulfill(status=500), times=1)
    page.get_by_role("link", name="All jobs").click()
    page.get_by_role("button", name="Show older jobs").click()
    alert.wait_for()
    assert page.get_by_role("heading", name="Your jobs").is_visible()
    page.get_by_role("button", name="Show older jobs").click()
    alert.wait_for(state="detached")
    watch.check(server.url)


def _with_more(jobs: dict[str, Any]) -> dict[str, Any]:
    return jobs | {"next_cursor": "more"}


def test_files_that_are_no_photos_are_not_sent(home: Page, server: Server) -> None:
    before = server.get("/v1/jobs").json()["data"]
    home.get_by_label("Choose photos").set_input_files([upload("notes.txt", b"hello", "text/plain")])
    home.get_by_text("There are no photos among these files.").wait_for()
    assert server.get("/v1/jobs").json()["data"] == before


def test_too_many_photos_are_said_before_they_are_sent_and_a_refused_job_says_why(
    page: Page, mortal: Server, watch: Watch
) -> None:
    watch.expected = ("status of 413",)
    page.goto(mortal.url)
    page.get_by_label("Choose photos").set_input_files(many(FEW + 1))
    page.get_by_text(f"These are {FEW + 1} photos; one job may hold {FEW} here.").wait_for()
    page.get_by_role("button", name="Web or S3 addresses").click()
    addresses = "\n".join(f"http://127.0.0.1:9/{n}.jpg" for n in range(FEW + 1))
    page.get_by_label("Addresses, one a line").fill(addresses)
    page.get_by_role("button", name="Caption them").click()
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text() == "That is more photos than one job may hold."
    page.get_by_role("button", name="Never mind").click()
    choose(page, *many(2))
    wait_for_state(page, "Finished · 2 of 2 photos captioned")
    watch.check(mortal.url)


def test_offline_in_the_middle_of_the_sending_and_of_the_job(
    page: Page, server: Server, watch: Watch
) -> None:
    watch.expected = NO_CONNECTION
    page.goto(server.url)
    page.get_by_label("Choose photos").wait_for()
    page.context.set_offline(True)
    page.get_by_label("Choose photos").set_input_files(many(100))
    offline = page.get_by_text("This device is offline.")
    offline.wait_for()
    page.context.set_offline(False)
    page.wait_for_url("**/#/jobs/*")
    wait_for_state(page, "Captioning")
    page.context.set_offline(True)
    offline.wait_for()
    page.context.set_offline(False)
    offline.wait_for(state="detached")
    wait_for_state(page, "Finished · 100 of 100 photos captioned")
    watch.check(server.url)


def test_photos_that_cannot_be_sent_are_named_and_the_others_captioned(
    page: Page, server: Server, watch: Watch, tmp_path: Path
) -> None:
    watch.expected = ("net::ERR_", "status of 403")
    names = ["kept.jpg", "moved.jpg", "refused.jpg"]
    for photo, name in zip(many(3), names, strict=True):
        (tmp_path / name).write_bytes(photo["buffer"])
    page.goto(server.url)

    def announced(route: Route) -> None:
        answer = route.fetch()
        (tmp_path / "moved.jpg").unlink(missing_ok=True)
        ids = [target["id"] for target in answer.json()["data"]]
        # The last of the three, and whatever new address it asks for.
        page.route(f"**/{ids[-1]}?*", lambda route: route.fulfill(status=403))
        route.fulfill(response=answer)

    page.route("**/v1/uploads", announced)
    page.get_by_label("Choose photos").set_input_files([tmp_path / name for name in names])
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.locator("li").all_inner_texts() == [
        "moved.jpg: moved, changed or not readable",
        "refused.jpg: not taken by the storage",
    ]
    page.get_by_role("button", name="Caption the other 1").click()
    page.wait_for_url("**/#/jobs/*")
    wait_for_state(page, "Finished · 1 of 1 photo captioned")
    assert [item["name"] for item in server.items(page)] == ["kept.jpg"]


def test_a_bucket_that_takes_nothing_ends_the_sending(page: Page, server: Server) -> None:
    page.route("**/v1/uploads/*", lambda route: route.fulfill(status=403))
    page.goto(server.url)
    page.get_by_label("Choose photos").set_input_files(many(12))
    page.get_by_role("alert").filter(has_text="The storage takes no photos from this page.").wait_for()


def test_a_server_without_streams_is_asked_instead(page: Page, server: Server, watch: Watch) -> None:
    watch.expected = ("status of 502", "EventSource")
    page.route("**/events", lambda route: route.fulfill(status=502))
    page.goto(server.url)
    choose(page, *many(6))
    wait_for_state(page, "Finished · 6 of 6 photos captioned")
    watch.check(server.url)


def test_page_and_server_take_the_same_names_for_photos() -> None:
    script = Path("api/static/page/sources.js").read_text()
    (endings,) = re.findall(r"PHOTO = /\\\.\(([a-z|]+)\)\$/i;", script)
    assert {f".{ending}" for ending in endings.split("|")} == SUFFIXES


def test_every_code_has_plain_words() -> None:
    words = Path("api/static/page/words.js").read_text()
    reasons = {
        name: set(re.findall(r"^  (\w+):", body, re.MULTILINE))
        for name, body in re.findall(r"export const (\w+) = \{\n(.*?)\n\};", words, re.DOTALL)
    }
    transient = {error("").code for error in (StorageUnavailable, DatabaseUnavailable, BrokerUnavailable)}
    assert reasons["ITEM_REASONS"] == set(ItemCode)
    assert reasons["PROBLEM_REASONS"] == set(REQUEST_STATUS) | transient
