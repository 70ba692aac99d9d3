"""`captionfleet demo`: a whole server for a handful of photos."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.cli.commands import captionfleet
from tests.pictures import jpeg_bytes


def test_the_sample_photos_are_captioned_through_a_server_that_leaves_nothing(
    tmp_path: Path, photos: list[Path]
) -> None:
    ran = captionfleet(tmp_path, "demo")
    assert ran.status == 0, ran.complaints
    rows = [line.split("\t") for line in ran.output.splitlines()]
    assert [name for name, _, _ in rows] == [photo.name for photo in photos]
    assert all(len(caption.split()) >= 3 and float(score) < 0 for _, caption, score in rows)
    items = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert [(item["name"], item["caption"]) for item in items] == [(row[0], row[1]) for row in rows]
    assert {item["source"] for item in items} == {"upload"}
    assert [path.name for path in tmp_path.iterdir()] == ["captions.jsonl"]


def test_a_bad_photo_fails_alone_whatever_servers_the_environment_names(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "good.jpg").write_bytes(jpeg_bytes(1))
    (photos / "bad.jpg").write_bytes(jpeg_bytes(2)[:300])
    servers = {
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "DATABASE_URL": "postgresql://127.0.0.1:1/none",
        "CAPTIONFLEET_BUCKET": "none",
    }
    ran = captionfleet(tmp_path, "demo", photos, **servers)
    assert ran.status == 1, ran.complaints
    assert [line.split("\t")[0] for line in ran.output.splitlines()] == ["good.jpg"]
    assert "bad.jpg: " in ran.complaints
    assert "(image_corrupt)" in ran.complaints
