"""What people do with the page when all goes well."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.page.serving import BROKEN, MOST_IMAGES, Server, choose, job_id, many, upload, wait_for_state
from tests.pictures import jpeg_bytes
from tests.processes import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_chosen_photos_get_captions_and_a_broken_one_its_reason(
    home: Page, server: Server, photos: list[Path]
) -> None:
    choose(home, *photos[:4], upload("broken.jpg", BROKEN))
    wait_for_state(home, "Finished · 4 of 5 photos captioned · 1 failed")
    wait_until(lambda: home.locator(".card .waiting").count() == 0, what="the last captions")
    assert home.locator("h1").inner_text() == f"{photos[0].name} and 4 more"
    cards = home.locator(".card")
    items = server.items(home)
    assert cards.locator(".name").all_inner_texts() == [item["name"] for item in items]
    captions = cards.locator(".caption").all_text_contents()
    assert captions[:4] == [item["caption"] for item in items[:4]]
    assert all(captions)
    assert captions[4] == "The file is damaged or incomplete."
    shown = "image => image.complete && image.naturalWidth > 0"
    assert all(home.locator(".card img").nth(n).evaluate(shown) for n in range(4))
    home.get_by_role("button", name="Failed 1").click()
    wait_until(
        lambda: cards.locator(".name").all_inner_texts() == ["broken.jpg"], what="the failed photo alone"
    )


def test_downloads_are_the_results_of_the_api(home: Page, server: Server, photos: list[Path]) -> None:
    choose(home, *photos[:2], upload('odd, "name".jpg', jpeg_bytes(7)))
    wait_for_state(home, "Finished")
    downloads = {kind: _download(home, kind) for kind in ("JSONL", "CSV")}
    for kind, data in downloads.items():
        assert data == server.get(f"/v1/jobs/{job_id(home)}/results?format={kind.lower()}").content
    items = server.items(home)
    assert [json.loads(line) for line in downloads["JSONL"].splitlines()] == items
    rows = list(csv.DictReader(io.StringIO(downloads["CSV"].decode())))
    assert [(row["name"], row["caption"]) for row in rows] == [(i["name"], i["caption"]) for i in items]


def _download(page: Page, kind: str) -> bytes:
    with page.expect_download() as waiting:
        page.get_by_role("link", name=f"Download: {kind}").click()
    assert waiting.value.suggested_filename.endswith(f".{kind.lower()}")
    return waiting.value.path().read_bytes()


@pytest.mark.parametrize("way", ["drop", "choose"])
def test_a_folder_is_sent_in_order_without_what_is_no_photo(
    home: Page, server: Server, tmp_path: Path, way: str
) -> None:
    folder = tmp_path / "Holiday 2024"
    for name, content in {
        "IMG_10.JPG": jpeg_bytes(10),
        "IMG_9.JPG": jpeg_bytes(9),
        "day two/sea.jpeg": jpeg_bytes(2),
        ".DS_Store": b"\0\0\0\1",
        "notes.txt": b"sunny",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    if way == "drop":
        _drop(home, folder)
    else:
        home.get_by_label("Choose a folder").set_input_files(folder)
    home.wait_for_url("**/#/jobs/*")
    wait_for_state(home, "Finished · 3 of 3 photos captioned")
    assert home.locator("h1").inner_text() == "Holiday 2024"
    assert [item["name"] for item in server.items(home)] == ["sea.jpeg", "IMG_9.JPG", "IMG_10.JPG"]
    assert "Left out, not a photo: .DS_Store, notes.txt." in home.locator(".notices").inner_text()


def _drop(page: Page, *paths: Path) -> None:
    """Drop from outside the browser, as a file manager does: folders too."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        if kind == "drop":
            assert page.get_by_text("Drop to caption").is_visible()
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 650, "data": data})


def test_dropped_files_are_sent_from_any_screen(home: Page, server: Server, photos: list[Path]) -> None:
    choose(home, photos[0])
    first = job_id(home)
    home.locator("body").drop({"files": photos[1:3]})
    home.wait_for_url(lambda url: not url.endswith(first))
    wait_for_state(home, "Finished · 2 of 2 photos captioned")


def test_a_reload_in_the_middle_goes_on_where_the_job_is(home: Page, server: Server) -> None:
    choose(home, *many(MOST_IMAGES))
    wait_for_state(home, "Captioning")
    job = job_id(home)
    home.reload()
    wait_for_state(home, f"Finished · {MOST_IMAGES} of {MOST_IMAGES} photos captioned")
    assert job_id(home) == job
    # Far photos are read when somebody scrolls there, not before.
    cards = home.locator(".card")
    assert cards.count() < MOST_IMAGES
    wait_until(lambda: _scrolled_to(home, MOST_IMAGES), 60, "the last photo")
    captions = cards.locator(".caption").all_text_contents()
    results = server.get(f"/v1/jobs/{job}/results?format=jsonl").text.splitlines()
    assert captions == [json.loads(line)["caption"] for line in results]


def _scrolled_to(page: Page, count: int) -> bool:
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    return page.locator(".card").count() == count and page.locator(".card .waiting").count() == 0


def test_a_stopped_job_is_finished_later(home: Page, server: Server) -> None:
    choose(home, *many(MOST_IMAGES))
    home.get_by_role("button", name="Stop this job").click()
    wait_for_state(home, "Stopped · ")
    rest = server.job(home)["counts"]["canceled"]
    assert rest > 0
    home.get_by_role("button", name=f"Caption the other {rest}").click()
    wait_for_state(home, f"Finished · {MOST_IMAGES} of {MOST_IMAGES} photos captioned")


def test_failed_photos_are_tried_again(home: Page, server: Server, photos: list[Path]) -> None:
    choose(home, photos[0], upload("broken.jpg", BROKEN))
    wait_for_state(home, "1 failed")
    before = server.items(home)
    with home.expect_response("**/retry") as answer:
        home.get_by_role("button", name="Try 1 failed photo again").click()
    assert answer.value.status == 202
    wait_until(lambda: server.items(home)[1]["finished_at"] not in (None, before[1]["finished_at"]))
    wait_for_state(home, "Finished · 1 of 2 photos captioned · 1 failed")
    home.locator(".card.failed").get_by_text("The file is damaged or incomplete.").wait_for()
    assert server.items(home)[0] == before[0]


def test_earlier_jobs_are_listed_newest_first(home: Page, photos: list[Path]) -> None:
    for photo in photos[:2]:
        choose(home, photo)
        wait_for_state(home, "Finished")
        home.get_by_role("link", name="All jobs").click()
    rows = home.locator(".jobs li")
    wait_until(lambda: rows.count() >= 2, what="the list")
    assert [rows.nth(n).get_by_role("link").inner_text() for n in range(2)] == [
        photos[1].name,
        photos[0].name,
    ]
    rows.nth(1).get_by_role("link").click()
    wait_for_state(home, "Finished · 1 of 1 photo captioned")
    assert home.locator("h1").evaluate("heading => heading === document.activeElement")


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>.jpg", '&lt;b&gt; "quoted".jpg'])
def test_names_are_shown_as_text(home: Page, name: str) -> None:
    home.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    choose(home, upload(name, jpeg_bytes(1)))
    wait_for_state(home, "Finished")
    assert home.locator(".card .name").inner_text() == name
    assert home.locator("h1").inner_text() == name
