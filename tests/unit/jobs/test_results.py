"""Results in every form say the same; the quick ways to write them write what the plain ones would."""

from __future__ import annotations

import csv
import io
import json
import random
import zipfile
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.records import Item, ItemStatus
from jobs.results import COLUMNS, comma_separated, jsonl, parquet
from jobs.sidecars import text_zip
from jobs.store.views import ItemView

# What cells are put in quotes for, what a spreadsheet would run, and what is neither.
TEXTS = ["", "a dog", *(f"{mark}x" for mark in ' ,"\r\n\t=+-@;é😀\u2028'), 'a, "b"', "a\r\n=1", "日本"]
SOME = [None, *TEXTS]
# What the database gives in each column.
VALUES = {
    "position": range(2000),
    "custom_id": TEXTS,
    "name": TEXTS,
    "source": ["upload", "s3://photos/a,b.jpg"],
    "status": ["queued", "succeeded", "failed"],
    "caption": SOME,
    "edited_caption": SOME,
    "score": [None, 0.0, -0.5, -1.0, -1e-7, -0.1234567890123456],
    "alternatives": [None, "[]", '[{"text": "a \\"dog\\", \\u00e9", "score": -0.25}]'],
    "model": [None, "small-1"],
    "width": [None, 500],
    "height": [None, 375],
    "sha256": [None, "ab" * 32],
    "attempts": range(3),
    "error_code": [None, "image_corrupt"],
    "error_message": SOME,
    "finished_at": [None, "2026-11-23T13:11:56.123456Z"],
}


def _cells(item: dict[str, Any]) -> list[object]:
    error = item["error"] or {"code": None, "message": None}
    alternatives = json.dumps(item["alternatives"], ensure_ascii=False, separators=(",", ":"))
    nested = {
        "alternatives": alternatives,
        "error_code": error["code"],
        "error_message": error["message"],
    }
    cells = [nested[name] if name in nested else item[name] for name in COLUMNS]
    return [f"'{cell}" if isinstance(cell, str) and cell[:1] in set("=+-@\t\r") else cell for cell in cells]


@pytest.mark.parametrize("status", ["running", "canceled"])
def test_every_form_says_the_same(status: str) -> None:
    chosen = random.Random(status)
    view = ItemView(status, [(0, 1000)])
    items = [view.fields([chosen.choice(values) for values in VALUES.values()]) for _ in range(500)]
    assert all(list(item) == list(Item.model_fields) for item in items)
    pages = [items[:400], [], items[400:]]
    lines = b"".join(jsonl(pages)).decode().split("\n")[:-1]
    assert [json.loads(line) for line in lines] == items

    written = io.StringIO(newline="")
    csv.writer(written).writerows([COLUMNS, *map(_cells, items)])
    assert b"".join(comma_separated(pages)).decode() == written.getvalue()

    table = pq.read_table(io.BytesIO(b"".join(parquet(pages)))).to_pylist()
    assert [row["error_message"] for row in table] == [i["error"] and i["error"]["message"] for i in items]
    assert [json.loads(row["alternatives"]) for row in table] == [item["alternatives"] for item in items]
    same = set(COLUMNS) - {"alternatives", "error_code", "error_message", "finished_at"}
    assert [{name: row[name] for name in same} for row in table] == [{n: i[n] for n in same} for i in items]
    times = [row["finished_at"] and f"{row['finished_at']:%Y-%m-%dT%H:%M:%S.%fZ}" for row in table]
    assert times == [item["finished_at"] for item in items]


def test_names_of_text_files_are_unique_within_pages_and_beyond() -> None:
    names = ["a.jpg", "A.png", "b.jpg", "b-4.jpg", "b.png", "ß.jpg", "SS.jpg", ""]
    items = [
        {"position": position, "name": name, "caption": f"photo {position}", "edited_caption": None}
        for position, name in enumerate([*names, *names])
    ]
    with zipfile.ZipFile(io.BytesIO(b"".join(text_zip([items[:8], items[8:]])))) as zipped:
        assert [zipped.read(name) for name in zipped.namelist()] == [b"photo %d\n" % n for n in range(16)]
        assert zipped.namelist() == [
            *("a.txt", "A-1.txt", "b.txt", "b-4.txt", "b-4-2.txt", "ß.txt", "SS-6.txt", "image-7.txt"),
            *("a-8.txt", "A-9.txt", "b-10.txt", "b-4-11.txt", "b-12.txt", "ß-13.txt", "SS-14.txt"),
            "image-15.txt",
        ]


def test_an_item_that_waits_is_seen_by_its_job() -> None:
    row = (3, "c", "n", "upload", "queued", *[None] * 8, 0, None, None, None)
    assert ItemView("running", [(0, 2)]).fields(row)["status"] is ItemStatus.QUEUED
    assert ItemView("running", [(3, 4)]).fields(row)["status"] is ItemStatus.RUNNING
    assert ItemView("canceling", [(3, 4)]).fields(row)["status"] is ItemStatus.CANCELED
