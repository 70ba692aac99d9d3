"""Captions edited, searched and sorted, and downloads that carry them."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.errors import ItemCode, ItemError
from jobs.services import Services
from jobs.store import jobs as job_store
from jobs.store.chunks import ChunkResult, ItemResult
from tests.contract.api.support import Client, Deployment, caption, part, photos, refused
from tests.pictures import jpeg_bytes


def edit(client: Client, item: str, body: Any) -> Any:
    """PATCH an item."""
    return client.call("PATCH", item, json.dumps(body).encode(), "application/json")


def captioned(client: Client, services: Services, texts: dict[str, float | None]) -> Any:
    """A finished job with these captions and scores; without a score the image failed."""
    job = client.job(*photos(len(texts)))
    held = services.store.chunks.claim(job["id"], 0, "w", 30, 2)
    assert held is not None
    torn = ItemError(ItemCode.IMAGE_CORRUPT, "torn")
    results = [
        ItemResult(n, ((text, score),)) if score is not None else ItemResult(n, error=torn)
        for n, (text, score) in enumerate(texts.items())
    ]
    services.store.chunks.record([ChunkResult(held, results)])
    return job


def listed(client: Client, job: Any, query: str, limit: int = 50) -> list[int]:
    """The positions of a list, page by page."""
    positions: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        more = f"&cursor={cursor}" if cursor else ""
        page = client.get(f"{job['links']['items']}?{query}&limit={limit}{more}").json
        assert len(page["data"]) <= limit
        positions += [item["position"] for item in page["data"]]
        cursor = page["next_cursor"]
    return positions


def test_an_edit_stands_beside_the_models_own_caption(client: Client, services: Services) -> None:
    job = client.job(*photos(2))
    caption(services, job["id"])
    before = client.get(job["links"]["self"]).headers["ETag"]
    item = f"{job['links']['items']}/1"
    answer = edit(client, item, {"caption": "  Ein Hund = schön  "})
    assert (answer.json["caption"], answer.json["edited_caption"]) == ("photo 1", "Ein Hund = schön")
    assert client.get(item).json == answer.json
    after = client.get(job["links"]["self"], If_None_Match=before)
    assert after.status_code == 200
    assert after.headers["ETag"] != before
    line = json.loads(client.get(job["links"]["results"]).text.splitlines()[1])
    assert line == answer.json
    assert "Ein Hund = schön" in client.get(job["links"]["results"] + "?format=csv").text
    assert edit(client, item, {"caption": None}).json["edited_caption"] is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "caption is missing"),
        ({"caption": ""}, "at least 1 character"),
        ({"caption": " \n"}, "at least 1 character"),
        ({"caption": "x" * 2001}, "at most 2000 characters"),
        ({"caption": "a\x00b"}, "caption: "),
        ({"caption": 1}, "caption: "),
        ({"caption": "x", "score": 1}, "unknown field score"),
    ],
)
def test_wrong_edits_are_refused(client: Client, body: Any, words: str) -> None:
    job = client.job(*photos(1))
    refused(edit(client, f"{job['links']['items']}/0", body), "invalid_request", words)
    refused(edit(client, f"{job['links']['items']}/1", {"caption": "x"}), "not_found")


def test_bodies_that_are_no_edit_are_refused(client: Client) -> None:
    item = f"{client.job(*photos(1))['links']['items']}/0"
    refused(client.call("PATCH", item, b"{", "application/json"), "invalid_request", "not valid JSON")
    refused(client.call("PATCH", item, b'{"caption":"\\ud800"}', "application/json"), "invalid_request")
    refused(client.call("PATCH", item, b"x", "text/plain"), "unsupported_media_type")
    large = b'{"caption": "' + b"x" * 70_000 + b'"}'
    refused(client.call("PATCH", item, large, "application/json"), "upload_too_large")


def test_edits_outlive_the_worker_and_a_retry_and_stay_out_of_the_cache(
    client: Client, services: Services
) -> None:
    job = client.job(*photos(2))
    items = job["links"]["items"]
    assert edit(client, f"{items}/0", {"caption": "mine, early"}).status_code == 200
    caption(services, job["id"], failing=[1])
    assert edit(client, f"{items}/1", {"caption": "mine, of a failed one"}).status_code == 200
    assert client.post(job["links"]["retry"]).status_code == 202
    caption(services, job["id"])
    seen = [(item["caption"], item["edited_caption"]) for item in client.get(items).json["data"]]
    assert seen == [("photo 0", "mine, early"), ("photo 1", "mine, of a failed one")]


def test_a_cancel_keeps_edits(client: Client, services: Services) -> None:
    job = client.job(*photos(1))
    item = f"{job['links']['items']}/0"
    edit(client, item, {"caption": "mine"})
    client.post(job["links"]["cancel"])
    while services.store.sweeps.finish_cancels():
        pass
    assert client.get(item).json["edited_caption"] == "mine"


def test_search_finds_what_is_shown_and_takes_nothing_for_a_wildcard(
    client: Client, services: Services
) -> None:
    texts = {
        "A Dog runs": -0.5,
        "100% dog": -0.1,
        "a_b": -0.2,
        "axb": -0.3,
        "back\\slash": -0.4,
        "torn": None,
    }
    job = captioned(client, services, texts)
    assert listed(client, job, "q=DOG") == [0, 1]
    assert listed(client, job, "q=%25") == [1]
    assert listed(client, job, "q=a_b") == [2]
    assert listed(client, job, "q=%5C") == [4]
    assert listed(client, job, "q='") == []
    assert listed(client, job, "q=") == [0, 1, 2, 3, 4, 5]
    assert listed(client, job, "q=dog&status=failed") == []
    edit(client, f"{job['links']['items']}/0", {"caption": "ein KÄTZCHEN"})
    assert listed(client, job, "q=dog") == [1]
    assert listed(client, job, "q=kätz") == [0]
    assert listed(client, job, "q=dog&sort=score") == [1]


def test_a_search_of_a_large_job_goes_on_over_short_pages(
    client: Client, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_store, "SEARCHED_ROWS", 3)
    job = captioned(client, services, {f"dog {n}" if n % 5 == 4 else f"cat {n}": -0.5 for n in range(20)})
    first = client.get(f"{job['links']['items']}?q=dog&limit=2").json
    assert first["data"] == []
    assert first["next_cursor"]
    assert listed(client, job, "q=dog", limit=1) == [4, 9, 14, 19]
    assert listed(client, job, "q=bird") == []


@pytest.mark.parametrize("limit", [1, 2, 50])
def test_items_by_score_come_once_each(client: Client, services: Services, limit: int) -> None:
    scores = (-0.1 - 0.2, None, -0.3, -2.0, -0.3, None, -1e-20, -0.3)
    job = captioned(client, services, {f"text {n}": score for n, score in enumerate(scores)})
    assert listed(client, job, "sort=score", limit) == [6, 2, 4, 7, 0, 3, 1, 5]
    assert listed(client, job, "sort=score&status=succeeded", limit) == [6, 2, 4, 7, 0, 3]


def test_a_list_may_begin_in_the_middle(client: Client) -> None:
    job = client.job(*photos(6))
    assert listed(client, job, "first=4", limit=1) == [4, 5]
    assert listed(client, job, "first=6") == []
    refused(client.get(f"{job['links']['items']}?first=-1"), "invalid_request", "first")


def test_parquet_has_what_the_lines_have(client: Client, services: Services) -> None:
    job = client.job(*photos(3))
    caption(services, job["id"], failing=[2])
    edit(client, f"{job['links']['items']}/0", {"caption": "mine"})
    answer = client.get(job["links"]["results"] + "?format=parquet")
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{job["id"]}.parquet"'
    rows = pq.read_table(io.BytesIO(answer.data)).to_pylist()
    assert [row["edited_caption"] for row in rows] == ["mine", None, None]
    assert [row["caption"] for row in rows] == ["photo 0", "photo 1", None]
    assert rows[2]["error_code"] == "image_corrupt"


def test_parquet_without_its_package_says_how_to_get_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = client.job(*photos(1))
    assert client.get("/v1/limits").json["result_formats"] == ["jsonl", "csv", "parquet", "txt.zip"]
    monkeypatch.setattr("jobs.results.find_spec", lambda _: None)
    assert client.get("/v1/limits").json["result_formats"] == ["jsonl", "csv", "txt.zip"]
    answer = client.get(job["links"]["results"] + "?format=parquet&partial=1")
    refused(answer, "not_acceptable", "pip install -c requirements.lock pyarrow")


def test_a_zip_of_text_files_is_safe_to_unpack(client: Client, services: Services, tmp_path: Any) -> None:
    names = [
        "a.jpg",
        "A.PNG",
        "../../up.jpg",
        "C:\\x\\con.jpg",
        "aux.tar.gz",
        "x. .jpg",
        "<q>?.jpg",
        "ü" * 300,
    ]
    job = client.job(*(part("images", jpeg_bytes(n), name) for n, name in enumerate([*names, "torn.jpg"])))
    caption(services, job["id"], failing=[8])
    edit(client, f"{job['links']['items']}/2", {"caption": "mine"})
    answer = client.get(job["links"]["results"] + "?format=txt.zip")
    assert answer.mimetype == "application/zip"
    assert answer.headers["Content-Disposition"].endswith('.txt.zip"')
    with zipfile.ZipFile(io.BytesIO(answer.data)) as zipped:
        assert zipped.testzip() is None
        members = zipped.namelist()
        assert members[:7] == ["a.txt", "A-1.txt", "up.txt", "con_.txt", "aux_.tar.txt", "x.txt", "_q__.txt"]
        assert len(members) == 8
        assert len(members[7].encode()) < 255
        assert zipped.read("a.txt") == b"photo 0\n"
        assert zipped.read("up.txt") == b"mine\n"
        zipped.extractall(tmp_path)
    assert len(list(tmp_path.iterdir())) == 8


def test_somebody_elses_caption_cannot_be_edited(deployment: Deployment) -> None:
    job = deployment.client("ann").job(*photos(1))
    bob = deployment.client("bob")
    refused(edit(bob, f"{job['links']['items']}/0", {"caption": "x"}), "job_not_found")
