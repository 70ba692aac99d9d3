"""`captionfleet keys` on both databases."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run


def _round_trip(run: Run, settings: dict[str, str]) -> None:
    made = run(
        "keys", "create", "--owner", "ada", "--label", "laptop", "--grant", "s3://pics/ada/", **settings
    )
    assert made.status == 0, made.complaints
    (key,) = made.output.splitlines()
    key_id = key.split("_")[2]
    assert key.startswith("cf_live_")
    assert key not in made.complaints

    assert run("keys", "grant", "ada", "s3://more", "--write", **settings).status == 0
    listed = run("keys", "list", **settings).output
    assert key not in listed
    rows = [line.split("\t") for line in listed.splitlines()]
    wanted = [key_id, "ada", "laptop", "submit read", "", "never", "never", "valid"]
    assert [row for row in rows if len(row) == 8] == [wanted]
    assert [row for row in rows if len(row) == 3] == [
        ["ada", "read and write", "s3://more/"],
        ["ada", "read", "s3://pics/ada/"],
    ]

    shown = json.loads(run("keys", "list", "--json", **settings).output)
    assert [(one["id"], one["scopes"], one["state"]) for one in shown["keys"]] == [
        (key_id, ["submit", "read"], "valid")
    ]
    assert datetime.fromisoformat(shown["keys"][0]["created_at"]).tzinfo is not None
    assert {"owner": "ada", "bucket": "more", "prefix": "", "writable": True} in shown["grants"]

    assert run("keys", "ungrant", "ada", "s3://more", **settings).status == 0
    gone = run("keys", "ungrant", "ada", "s3://more", **settings)
    assert gone.error == "ada has no grant for s3://more; see `captionfleet keys list`"
    assert run("keys", "revoke", key_id, **settings).status == 0
    listed = run("keys", "list", **settings).output
    assert "\trevoked\n" in listed
    assert "s3://more" not in listed


def test_a_key_is_limited_replaced_and_ends(run: Run) -> None:
    asked = (
        "--scope",
        "read",
        "--expires",
        "90d",
        "--limit",
        "requests=5/second",
        "--limit",
        "concurrent_jobs=2",
    )
    key_id = run("keys", "create", "--owner", "ada", *asked).output.split("_")[2]
    [row] = [line.split("\t") for line in run("keys", "list").output.splitlines()]
    assert row[3:5] == ["read", "requests=5/second concurrent_jobs=2"]
    assert row[5].startswith("20")
    changes = ("--limit", "requests=default", "--limit", "images_per_day=none")
    shown = run("keys", "limits", key_id, *changes).complaints
    assert f"Key {key_id} of ada: concurrent_jobs=2 images_per_day=none" in shown
    successor = run("keys", "rotate", key_id, "--grace", "1h").output.split("_")[2]
    rows = {row[0]: row for row in (line.split("\t") for line in run("keys", "list").output.splitlines())}
    assert rows[key_id][7] == f"valid, replaced by {successor}"
    assert rows[successor][3:5] == ["read", "concurrent_jobs=2 images_per_day=none"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--expires", "soon"), "'soon' is no time"),
        (("--limit", "images=5"), "unknown field images"),
        (("--limit", "images_per_day=-5"), "images_per_day"),
        (("--limit", "requests=many"), "requests"),
        (("--limit", "requests"), "NAME=VALUE"),
        (("--scope", "root"), "root"),
    ],
)
def test_what_makes_no_key_is_refused_in_one_line(run: Run, words: tuple[str, ...], complaint: str) -> None:
    refused = run("keys", "create", "--owner", "ada", *words)
    assert refused.status != 0
    assert complaint in refused.error
    assert run("keys", "list").output == ""


def test_in_sqlite_before_the_first_server(run: Run, tmp_path: Path) -> None:
    empty = run("keys", "list")
    assert "captionfleet keys create" in empty.complaints
    _round_trip(run, {})
    assert (tmp_path / "data" / "captionfleet.db").exists()


def test_in_postgresql(run: Run, postgres_url: str, tmp_path: Path) -> None:
    settings = {
        "DATABASE_URL": postgres_url,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "CAPTIONFLEET_BUCKET": "none",
    }
    empty = run("keys", "list", **settings)
    assert empty.status == 2
    assert empty.error.endswith("run `captionfleet migrate`")
    assert run("migrate", **settings).status == 0
    _round_trip(run, settings)
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_does_not_answer(run: Run) -> None:
    settings = {
        "DATABASE_URL": "postgresql://127.0.0.1:1/none",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "CAPTIONFLEET_BUCKET": "none",
    }
    for command in (("keys", "list"), ("migrate",)):
        ran = run(*command, **settings)
        assert ran.status == 1
        assert ran.error.startswith("the database does not answer: ")


def test_a_file_that_is_no_database(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "captionfleet.db").write_bytes(b"not a database " * 1000)
    for command in (("keys", "list"), ("migrate",)):
        ran = run(*command)
        assert ran.status == 1
        assert "file is not a database" in ran.error


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("revoke", "nonesuch"), "there is no key nonesuch"),
        (("grant", "ada", "https://photos"), "'https://photos' is not of the form s3://bucket/prefix"),
        (("create", "--owner", " "), "the owner is empty"),
        (("create",), "Missing option '--owner'."),
    ],
)
def test_what_cannot_be(run: Run, arguments: tuple[str, ...], error: str) -> None:
    ran = run("keys", *arguments)
    assert ran.status in (1, 2)
    assert error in ran.error
