"""What people do with the page when all goes well."""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httpx
import pyarrow.parquet as pq
import pytest

from tests.e2e.page.serving import BROKEN, Server, choose, drop, job_id, many, upload, wait_for_state
from tests.pictures import jpeg_bytes
from tests.processes import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page


def _answered(page: Page) -> None:
    """Wait until every card in the document says something final."""
    cards = page.locator(".card")
    wait_until(lambda: cards.count() and page.locator(".card:not(.succeeded, .failed)").count() == 0)


def test_two_hundred_photos_from_the_drop_to_the_files(home: Page, server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "Holiday 2024"
    folder.mkdir()
    for photo in many(199):
        (folder / photo["name"]).write_bytes(photo["buffer"])
    (folder / "torn.jpg").write_bytes(BROKEN)
    home.locator("summary").click()
    home.get_by_label("Care").select_option("1")
    drop(home, folder)
    home.wait_for_url("**/#/jobs/*")
    state = home.locator(".state")
    wait_until(lambda: "a second" in state.inner_text() and "left" in state.inner_text(), what="rate and ETA")
    home.locator(".card.succeeded").first.wait_for()
    assert "Captioning" in state.inner_text(), "captions are shown as they come"
    wait_for_state(home, "Finished · 199 of 200 photos captioned · 1 failed")
    _answered(home)
    items = server.items(home, 200)
    assert home.locator(".card .caption").first.text_content() == items[0]["caption"]
    assert home.locator(".card .score").first.inner_text().startswith(f"{_sureness(items[0])} %")

    home.get_by_label("Edit the caption of photo").first.click()
    home.get_by_label("Caption", exact=True).fill("A Quetzal & <friends>")
    home.get_by_role("button", name="Save").click()
    home.get_by_text("Caption saved.").wait_for()
    home.keyboard.press("Escape")
    home.get_by_label("Search captions").fill("quetzal")
    home.get_by_text("1 photo found").wait_for()
    assert home.locator(".card mark").inner_text() == "Quetzal"
    assert home.locator(".card .badge").inner_text() == "Edited"
    home.reload()
    home.get_by_text("1 photo found").wait_for()

    items[0]["edited_caption"] = "A Quetzal & <friends>"
    _compare_downloads(home, server, items)


def _sureness(item: dict[str, Any]) -> int:
    return round(math.exp(float(item["score"])) * 100)


def _compare_downloads(page: Page, server: Server, items: list[dict[str, Any]]) -> None:
    """Each file is what the API gives, and holds the items with the edit."""
    files = {name: _download(page, name) for name in ("CSV", "JSONL", "Parquet", "TXT")}
    for name, form in {"CSV": "csv", "JSONL": "jsonl"}.items():
        assert files[name] == server.get(f"/v1/jobs/{job_id(page)}/results?format={form}").content
    assert [json.loads(line) for line in files["JSONL"].splitlines()] == items
    wanted = [(item["name"], item["caption"], item["edited_caption"]) for item in items]
    rows = csv.DictReader(io.StringIO(files["CSV"].decode()))
    assert [(r["name"], r["caption"] or None, r["edited_caption"] or None) for r in rows] == wanted
    table = pq.read_table(io.BytesIO(files["Parquet"])).to_pylist()
    assert [(r["name"], r["caption"], r["edited_caption"]) for r in table] == wanted
    with zipfile.ZipFile(io.BytesIO(files["TXT"])) as zipped:
        assert len(zipped.namelist()) == 199
        texts = {zipped.read(name).decode().strip() for name in zipped.namelist()}
    assert texts == {i["edited_caption"] or i["caption"] for i in items if i["status"] == "succeeded"}


def _download(page: Page, name: str) -> bytes:
    with page.expect_download() as waiting:
        page.get_by_role("link", name=f"Download: {name}").click()
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
        "empty.jpg": b"",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    if way == "drop":
        drop(home, folder)
    else:
        home.get_by_label("Choose a folder").set_input_files(folder)
    home.wait_for_url("**/#/jobs/*")
    wait_for_state(home, "Finished · 3 of 3 photos captioned")
    assert home.locator("h1").inner_text() == "Holiday 2024"
    sent = [(item["name"], item["custom_id"]) for item in server.items(home)]
    assert sent == [
        ("sea.jpeg", "day two/sea.jpeg"),
        ("IMG_9.JPG", "IMG_9.JPG"),
        ("IMG_10.JPG", "IMG_10.JPG"),
    ]
    said = home.locator(".notices").inner_text()
    assert "Left out, not a photo: .DS_Store, notes.txt." in said
    assert "Left out, empty: empty.jpg." in said


def test_photos_dropped_or_pasted_on_any_screen_are_sent_one_job_after_the_other(
    home: Page, server: Server, photos: list[Path]
) -> None:
    choose(home, photos[0])
    first = job_id(home)
    home.locator("body").drop({"files": photos[1:3]})
    home.wait_for_url(lambda url: first not in url)
    wait_for_state(home, "Finished · 2 of 2 photos captioned")
    second = job_id(home)
    home.evaluate(
        """([name, bytes]) => {
          const clipboardData = new DataTransfer();
          clipboardData.items.add(new File([new Uint8Array(bytes)], name, {type: "image/jpeg"}));
          document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true}));
        }""",
        ["pasted.jpg", list(jpeg_bytes(77))],
    )
    home.wait_for_url(lambda url: second not in url)
    wait_for_state(home, "Finished · 1 of 1 photo captioned")
    assert server.items(home)[0]["name"] == "pasted.jpg"


def test_addresses_make_a_job_whose_failures_say_why(home: Page, server: Server) -> None:
    home.evaluate(
        """() => {
          const clipboardData = new DataTransfer();
          clipboardData.setData("text/plain", "http://127.0.0.1:9/a.jpg\\nhttp://127.0.0.1:9/b.jpg");
          document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true}));
        }"""
    )
    field = home.get_by_label("Addresses, one a line")
    assert field.input_value() == "http://127.0.0.1:9/a.jpg\nhttp://127.0.0.1:9/b.jpg"
    field.fill("http://127.0.0.1:9/a.jpg\nmy photos")
    home.get_by_role("button", name="Caption them").click()
    home.get_by_role("alert").filter(has_text="“my photos” is not an address").wait_for()
    field.fill("http://127.0.0.1:9/a.jpg\nhttp://127.0.0.1:9/b.jpg")
    home.get_by_role("button", name="Caption them").click()
    home.wait_for_url("**/#/jobs/*")
    wait_for_state(home, "Finished · 0 of 2 photos captioned · 2 failed")
    reason = "The service does not fetch from this address, which is not a public one."
    wait_until(lambda: home.locator(".card .reason").all_inner_texts() == [reason, reason])
    assert home.locator("h1").inner_text() == "a.jpg and 1 more"


def test_a_drop_too_large_for_one_json_request_becomes_a_job_all_the_same(
    home: Page, server: Server, photos: list[Path]
) -> None:
    files = [{"name": photo.name, "size": photo.stat().st_size} for photo in photos[:2]]
    announced = httpx.post(f"{server.url}/v1/uploads", json={"files": files}).raise_for_status().json()
    for photo, target in zip(photos, announced["data"], strict=False):
        httpx.put(target["url"], content=photo.read_bytes(), headers=target["headers"]).raise_for_status()
    named = [{"upload_id": target["id"], "custom_id": target["name"]} for target in announced["data"]]
    # What 78,000 photos need, without them: the module that sends drops, and a title of that length.
    job = home.evaluate(
        """async (images) => {
          const { makeJob, randomKey } = await import("/static/page/upload.js");
          const metadata = { title: "x".repeat(8 * 1024 * 1024) };
          const body = { images, options: { num_beams: 1 }, metadata };
          return makeJob(body, randomKey(), new AbortController().signal);
        }""",
        named,
    )
    assert (job["source"], job["counts"]["total"], job["options"]["num_beams"]) == ("manifest", 2, 1)
    home.goto(f"{server.url}/#/jobs/{job['id']}")
    wait_for_state(home, "Finished · 2 of 2 photos captioned")
    assert home.locator("h1").inner_text() == "2 photos"


def test_options_are_sent_kept_and_reset(home: Page, server: Server, photos: list[Path]) -> None:
    home.locator("summary").click()
    home.get_by_label("Care").select_option("1")
    home.get_by_label("Captions for each photo").select_option("2")
    home.reload()
    home.get_by_text("changed").wait_for()
    choose(home, photos[0])
    wait_for_state(home, "Finished")
    options = server.job(home)["options"]
    assert (options["num_beams"], options["num_captions"]) == (2, 2)
    home.locator(".card .open").click()
    other = server.items(home)[0]["alternatives"][-1]["text"]
    home.get_by_role("button", name="Take this one").click()
    home.get_by_role("button", name="Save").click()
    wait_until(lambda: server.items(home)[0]["edited_caption"] == other)
    home.get_by_role("button", name="Use it again").click()
    wait_until(lambda: server.items(home)[0]["edited_caption"] is None)


def test_a_reload_in_the_middle_goes_on_where_the_job_is(home: Page, server: Server) -> None:
    choose(home, *many(100))
    wait_for_state(home, "Captioning")
    job = job_id(home)
    home.reload()
    wait_for_state(home, "Finished · 100 of 100 photos captioned")
    assert job_id(home) == job
    _answered(home)
    shown = home.locator(".card .caption").all_text_contents()
    assert shown == [item["caption"] for item in server.items(home)][: len(shown)]


def test_a_stopped_job_is_finished_later_and_deleted_when_asked_twice(home: Page, server: Server) -> None:
    choose(home, *many(100))
    home.get_by_role("button", name="Stop this job").click()
    home.get_by_text("The job stops.").wait_for()
    assert server.job(home)["status"] in ("canceling", "canceled")
    home.get_by_role("status").get_by_role("button", name="Caption the rest").click()
    wait_for_state(home, "Finished · 100 of 100 photos captioned")
    job = job_id(home)
    home.get_by_role("button", name="Delete").click()
    home.get_by_role("button", name="Cancel").click()
    # Enter held down on the button that asks must not answer with it.
    home.get_by_role("button", name="Delete").press("Enter")
    home.get_by_role("dialog").wait_for()
    home.keyboard.press("Enter")
    home.get_by_role("dialog").wait_for(state="detached")
    assert server.job(home)["id"] == job
    home.get_by_role("button", name="Delete").click()
    home.get_by_role("dialog").get_by_role("button", name="Delete").click()
    home.get_by_text("The job is deleted.").wait_for()
    assert all(listed["id"] != job for listed in server.get("/v1/jobs").json()["data"])


def test_failed_photos_are_tried_again_or_captioned_by_hand(
    home: Page, server: Server, photos: list[Path]
) -> None:
    choose(home, photos[0], upload("broken.jpg", BROKEN))
    wait_for_state(home, "1 failed")
    home.locator(".card.failed").get_by_text("The file is damaged or incomplete.").wait_for()
    before = server.items(home)
    with home.expect_response("**/retry") as answer:
        home.get_by_role("button", name="Try 1 failed photo again").click()
    assert answer.value.status == 202
    wait_until(lambda: server.items(home)[1]["finished_at"] not in (None, before[1]["finished_at"]))
    wait_for_state(home, "Finished · 1 of 2 photos captioned · 1 failed")
    home.get_by_role("button", name="Failed 1").click()
    cards = home.locator(".card")
    wait_until(
        lambda: cards.locator(".name").all_inner_texts() == ["broken.jpg"], what="the failed one alone"
    )
    home.get_by_role("button", name="Write a caption for broken.jpg").click()
    home.get_by_label("Caption", exact=True).fill("A torn photo")
    home.keyboard.press("Control+Enter")
    home.get_by_text("Caption saved.").wait_for()
    home.get_by_role("button", name="Undo").click()
    wait_until(lambda: server.items(home)[1]["edited_caption"] is None, what="the undone edit")
    assert server.items(home)[0] == before[0]


def test_scores_order_the_gallery_as_the_api_does(home: Page, server: Server, photos: list[Path]) -> None:
    choose(home, *photos[:6])
    wait_for_state(home, "Finished")
    home.get_by_label("Order").select_option("score")
    ranked = server.get(f"/v1/jobs/{job_id(home)}/items?sort=score").json()["data"]
    names = home.locator(".card .name")
    wait_until(lambda: names.all_inner_texts() == [item["name"] for item in ranked], what="the order")


def test_alternative_texts_are_short_and_escaped(home: Page, server: Server) -> None:
    home.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    name = "<img src=x onerror=alert(1)>\"'.jpg"
    choose(home, upload(name, jpeg_bytes(1)))
    wait_for_state(home, "Finished")
    assert home.locator("h1").inner_text() == name
    home.locator(".card.succeeded .open").click()
    long = 'a "quoted" <b>dog</b> & [link](x) ' + "word " * 40
    home.get_by_label("Caption", exact=True).fill(long)
    home.get_by_role("button", name="Save").click()
    home.get_by_text("Caption saved.").wait_for()
    home.keyboard.press("Escape")
    assert home.locator(".card .caption").text_content() == long.strip()
    home.get_by_role("button", name="Alt texts").click()
    snippet = home.locator(".snippet")
    snippet.wait_for()
    tags = _Tags()
    tags.feed(snippet.inner_text())
    ((tag, image),) = tags.found
    assert tag == "img"
    assert image["alt"].startswith('A "quoted" <b>dog</b> & [link](x) word')
    assert image["alt"].endswith("word…")
    assert len(image["alt"]) <= 125
    assert unquote(image["src"]) == name
    home.get_by_role("button", name="Markdown").click()
    wait_until(
        lambda: snippet.inner_text().startswith('![A "quoted" \\<b\\>dog\\</b\\> \\& \\[link\\]\\(x\\)')
    )
    home.context.grant_permissions(["clipboard-read", "clipboard-write"])
    home.get_by_role("button", name="Copy all").click()
    home.get_by_text("Copied 1 text.").wait_for()
    assert home.evaluate("navigator.clipboard.readText()") == snippet.inner_text() + "\n"


class _Tags(HTMLParser):
    """Every tag of a piece of HTML, with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))


def test_two_tabs_show_the_same(home: Page, server: Server) -> None:
    choose(home, *many(30))
    other = home.context.new_page()
    other.goto(home.url)
    for page in (home, other):
        wait_for_state(page, "Finished · 30 of 30 photos captioned")
    home.bring_to_front()
    home.get_by_label("Edit the caption of photo").first.click()
    home.get_by_label("Caption", exact=True).fill("Seen in both tabs")
    home.get_by_role("button", name="Save").click()
    other.get_by_text("Seen in both tabs").wait_for()
    home.keyboard.press("Escape")
    home.get_by_role("button", name="Delete").click()
    home.get_by_role("dialog").get_by_role("button", name="Delete").click()
    other.get_by_role("alert").filter(has_text="This job does not exist").wait_for()


def test_earlier_jobs_are_listed_newest_first(home: Page, photos: list[Path]) -> None:
    for photo in photos[:2]:
        choose(home, photo)
        wait_for_state(home, "Finished")
        home.get_by_role("link", name="All jobs").click()
    rows = home.locator(".jobs li")
    wait_until(lambda: rows.count() >= 2, what="the list")
    newest = [photos[1].name, photos[0].name]
    assert [rows.nth(n).get_by_role("link").inner_text() for n in range(2)] == newest
    rows.nth(1).get_by_role("link").click()
    wait_for_state(home, "Finished · 1 of 1 photo captioned")
    assert home.locator("h1").evaluate("heading => heading === document.activeElement")
