"""The client commands against a running server."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import pyarrow.parquet as pq

from tests.e2e.cli.commands import Server
from tests.pictures import jpeg_bytes


def _photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:04}.jpg").write_bytes(jpeg_bytes(number))
    return folder


def test_a_job_from_submission_to_deletion(server: Server, tmp_path: Path) -> None:
    photos = _photos(tmp_path / "photos", 3)
    (photos / 'odd "näme".jpg').write_bytes(b"\xff\xd8\xff nothing")
    results = tmp_path / "results.csv"
    ran = server.run("submit", photos, "--wait", "-o", results, "--num-beams", "2")
    assert ran.status == 1, ran.complaints
    assert "is completed: 3 captions, 1 failed" in ran.complaints
    job_id = ran.output.strip()

    with results.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["succeeded"] * 3 + ["failed"]
    assert rows[3]["name"] == 'odd "näme".jpg'

    listed = [line.split("\t") for line in server.run("jobs").output.splitlines()]
    assert [row[1:4] for row in listed if row[0] == job_id] == [["completed", "4/4", "1"]]
    shown = dict(line.split("\t") for line in server.run("status", job_id).output.splitlines())
    assert shown["images"] == "4 total, 3 succeeded, 1 failed"
    assert json.loads(shown["options"]) == {"num_beams": 2}

    assert server.run("retry", job_id).status == 0
    again = server.run("status", job_id, "--wait", "--json")
    assert again.status == 1
    job = json.loads(again.output)
    assert (job["status"], job["counts"]["failed"]) == ("completed", 1)

    lines = server.run("results", job_id).output.splitlines()
    assert [json.loads(line)["attempts"] for line in lines] == [1, 1, 1, 2]

    texts = tmp_path / "texts.zip"
    assert server.run("results", job_id, "-o", texts).status == 0
    with zipfile.ZipFile(texts) as zipped:
        assert sorted(zipped.namelist()) == ["0000.txt", "0001.txt", "0002.txt"]
    table = tmp_path / "captions"
    assert server.run("results", job_id, "--format", "parquet", "-o", table).status == 0
    assert pq.read_table(table).num_rows == 4

    assert server.run("delete", job_id).status == 0
    assert server.run("status", job_id).error == f"there is no job {job_id} (job_not_found)"


def test_a_job_that_is_canceled(server: Server, tmp_path: Path) -> None:
    job_id = server.run("submit", _photos(tmp_path / "photos", 1000)).output.strip()
    early = server.run("results", job_id)
    assert early.status == 1
    assert early.error.endswith(" (job_not_finished)")
    canceled = json.loads(server.run("cancel", job_id, "--json").output)
    assert canceled["status"] in ("canceling", "canceled")
    assert server.run("status", job_id, "--wait").status == 1
    partial = tmp_path / "partial.jsonl"
    assert server.run("results", job_id, "-o", partial).status == 0
    items = [json.loads(line) for line in partial.read_text().splitlines()]
    assert len(items) == 1000
    assert items[-1]["status"] == "canceled"


def test_what_the_server_refuses_is_one_line(server: Server, tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("s3_uri\ns3://bucket/a.jpg\n")
    ran = server.run("submit", manifest)
    assert ran.status == 1
    assert ran.error == (
        "line 2: s3://bucket/a.jpg is not under a prefix granted to you; an operator grants one with "
        "`captionfleet keys grant local s3://bucket/…` (forbidden)"
    )
    photos = _photos(tmp_path / "photos", 1)
    unknown = server.run("submit", photos, "--model", "huge")
    assert unknown.error == "there is no model 'huge'; there is: small (model_not_available)"
