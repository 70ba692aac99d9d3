"""Every way to call the commands wrongly ends with status 2 and one line; so do settings that cannot work."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import sys
from pathlib import Path

import pytest

from tests.pictures import jpeg_bytes
from tests.processes import reserve_port
from tests.unit.cli.conftest import Run

LOCKED = "/sys" if sys.platform == "linux" else "/System"
EVALUATE = "evaluate --images . --captions list.csv"
DISTRIBUTED = {
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "DATABASE_URL": "postgresql://127.0.0.1:1/none",
    "CAPTIONFLEET_BUCKET": "none",
}


@pytest.fixture(autouse=True)
def _files(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg_bytes(1))
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("s3_uri\n")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "bad.jsonl").write_text("{}\n")
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.jsonl")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("nonesuch", "No such command 'nonesuch'."),
        ("jobs --nonesuch", "No such option: --nonesuch"),
        ("caption", "Missing argument 'PATH...'."),
        ("caption no/such", "no/such does not exist"),
        ("caption empty", "no images in empty; looked for .apng .avif"),
        ("caption pipe", "pipe is neither a file nor a folder"),
        ("caption photo.jpg -o out.xlsx", "out.xlsx: results are written as .jsonl, .csv, .parquet, .zip"),
        ("caption photo.jpg -o no/such/out.csv", "no/such/out.csv cannot be written: no such folder"),
        ("caption photo.jpg -o folder.jsonl", "folder.jsonl cannot be written: it is a folder"),
        (f"caption photo.jpg -o {LOCKED}/x.jsonl", f"{LOCKED}/x.jsonl cannot be written: "),
        ("caption photo.jpg --sidecar xml", "Invalid value for '--sidecar'"),
        ("caption photo.jpg --num-beams 9", "Invalid value for '--num-beams'"),
        (f"caption photo.jpg --prompt {'x' * 1025}", "the options: prompt: string should have at most 1024"),
        ("caption photo.jpg --resume", "--resume needs `-o FILE.jsonl` or --sidecar"),
        ("caption photo.jpg --resume -o x.csv", "--resume needs `-o FILE.jsonl` or --sidecar"),
        ("caption photo.jpg --resume --in-place", "--resume needs `-o FILE.jsonl` or --sidecar"),
        ("caption photo.jpg --resume --sidecar txt --overwrite", "choose one"),
        ("caption photo.jpg --write-metadata out --in-place", "choose one"),
        ("caption photo.jpg --write-metadata .", "the copy of photo.jpg would take its place"),
        ("caption photo.jpg --write-metadata list.csv", "list.csv is not a folder"),
        ("caption photo.jpg --resume -o bad.jsonl", "line 1 of bad.jsonl is not a result"),
        ("watch photo.jpg", "photo.jpg is not a folder"),
        ("watch empty -o x.csv", "results are appended to a .jsonl file"),
        ("watch empty -o bad.jsonl", "line 1 of bad.jsonl is not a result"),
        ("watch empty -o pipe.jsonl", "pipe.jsonl cannot be written: it is no file"),
        ("watch empty --sidecar xml", "Invalid value for '--sidecar'"),
        ("demo no/such", "no/such does not exist"),
        ("demo empty", "no images in empty"),
        ("submit no/such", "no/such does not exist"),
        ("submit empty", "no images in empty"),
        ("submit photo.jpg -o x.jsonl", "--output needs --wait"),
        ("submit photo.jpg list.csv", "a manifest is submitted alone"),
        ("submit no.csv", "no.csv cannot be read: no such file or directory"),
        ("submit photo.jpg s3://bucket/a.jpg", "files here and images elsewhere are submitted as separate"),
        ("submit https://x/a.jpg s3://bucket/folder/", "s3://bucket/folder/ names no object"),
        ("submit s3://bucket s3://b/a.jpg", "s3://bucket names no object"),
        ("submit photo.jpg photos.tar.gz", "an archive is submitted alone"),
        ("submit photo.jpg --glob *.jpg", "select objects under an s3://bucket/prefix/"),
        ("submit https://x/a.jpg --suffix .jpg", "select objects under an s3://bucket/prefix/"),
        ("results job_1 -o x.xml", "x.xml: results are written as .jsonl, .csv, .parquet, .zip"),
        ("results job_1 -o no/x.csv", "no/x.csv cannot be written: no such folder"),
        ("serve --port 99999", "Invalid value for '--port'"),
        (f"{EVALUATE} -o no/such/x.json", "no/such/x.json cannot be written: no such folder"),
        (f"{EVALUATE} --page no/x.html", "no/x.html cannot be written: no such folder"),
        (f"{EVALUATE} -o empty", "empty cannot be written: it is a folder"),
        (f"{EVALUATE} --page {LOCKED}/x.html", f"{LOCKED}/x.html cannot be written: "),
        (f"{EVALUATE} small --results x.csv", "scores captions that are there: leave MODEL out"),
        (
            f"{EVALUATE} --results x.csv --num-beams 1 --limit 3 --device cpu",
            "scores captions that are there: leave --num-beams, --limit, --device out",
        ),
        (
            "train --images . --captions list.csv --from small --encoder-weights random",
            "--from brings its own encoder weights",
        ),
        ("api", "REDIS_URL is not set"),
        ("worker", "REDIS_URL is not set"),
    ],
)
def test_a_command_called_wrongly(run: Run, arguments: str, error: str) -> None:
    ran = run(*arguments.split())
    assert ran.status == 2
    assert error in ran.error
    assert ran.output == ""


@pytest.mark.parametrize(
    ("command", "settings", "error"),
    [
        ("caption photo.jpg --model huge", {}, "there is no model 'huge'; there is: small"),
        (
            "caption photo.jpg --num-captions 3 --num-beams 2",
            {},
            "num_captions is larger than options.num_beams",
        ),
        ("train --images empty --captions list.csv", {}, "list.csv lacks the column image"),
        ("evaluate --images no --captions list.csv", {}, "the image folder no does not exist"),
    ],
)
def test_what_cannot_be_done(run: Run, command: str, settings: dict[str, str], error: str) -> None:
    ran = run(*command.split(), **settings)
    assert ran.status == 1
    assert error in ran.error


@pytest.mark.parametrize(
    ("command", "settings", "error"),
    [
        ("jobs", {"CAPTIONFLEET_URL": "ftp://x"}, "CAPTIONFLEET_URL: "),
        ("jobs", {"CAPTIONFLEET_LOG_LEVEL": "loud"}, "CAPTIONFLEET_LOG_LEVEL: "),
        ("serve", {"CAPTIONFLEET_PORT": "http"}, "CAPTIONFLEET_PORT: "),
        ("serve", DISTRIBUTED, "REDIS_URL is set, which is distributed mode"),
        ("serve", {"REDIS_URL": "redis://127.0.0.1:1"}, "REDIS_URL is set, so DATABASE_URL must name"),
        ("worker --model huge", DISTRIBUTED, "CAPTIONFLEET_MODELS has no 'huge'"),
        ("migrate", {"CAPTIONFLEET_DATA_DIR": "photo.jpg"}, "CAPTIONFLEET_DATA_DIR: "),
        ("migrate", {"CAPTIONFLEET_DATA_DIR": f"{LOCKED}/captionfleet"}, "CAPTIONFLEET_DATA_DIR: "),
        ("caption photo.jpg --device quantum", {}, "runs on cpu, not on quantum"),
        ("caption photo.jpg", {"CAPTIONFLEET_MODELS": "mine=empty"}, "empty"),
        ("export empty out", {}, "empty is no checkpoint"),
    ],
)
def test_settings_that_cannot_work(run: Run, command: str, settings: dict[str, str], error: str) -> None:
    ran = run(*command.split(), **settings)
    assert ran.status == 2
    assert error in ran.error


def test_a_port_in_use(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = run("serve", "--port", port)
    assert ran.status == 2
    assert ran.error.startswith(f"CAPTIONFLEET_PORT={port} on 127.0.0.1 cannot be used: ")
    assert not (tmp_path / "data").exists()
    found = re.search(r"; another one is free: `--port (\d+)`, or CAPTIONFLEET_PORT=\1$", ran.error)
    assert found, ran.error
    socket.create_server(("127.0.0.1", int(found[1]))).close()


def test_an_address_of_another_machine(run: Run) -> None:
    ran = run("serve", "--host", "no.such.host.invalid")
    assert ran.status == 2
    assert ran.error.startswith("CAPTIONFLEET_HOST=no.such.host.invalid is no address of this machine")


def test_a_server_that_is_not_there(run: Run) -> None:
    nowhere = f"http://127.0.0.1:{reserve_port()}"
    for command in ("jobs", "status job_1", "submit photo.jpg", "results job_1", "delete job_1"):
        ran = run(*command.split(), CAPTIONFLEET_URL=nowhere)
        assert ran.status == 1
        assert f"captionfleet: error: no Captionfleet server answers at {nowhere} (" in ran.complaints
        assert ran.complaints.endswith("start one with `captionfleet serve` or set CAPTIONFLEET_URL\n")


def test_a_name_that_no_network_knows(run: Run) -> None:
    ran = run("jobs", CAPTIONFLEET_URL="http://no.such.host.invalid")
    assert ran.status == 1
    assert ran.error.startswith("no Captionfleet server answers at http://no.such.host.invalid (")


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        ("train --images . --captions list.csv", "torch", "train"),
        ("export a b", "torch", "train"),
        ("evaluate --images . --captions list.csv", "pycocoevalcap", "evaluate"),
    ],
)
def test_an_extra_that_is_not_installed(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str, package: str, extra: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ran = run(*command.split())
    assert ran.status == 1
    assert ran.error == f"this command needs the package {package}: pip install -e '.[{extra}]'"


def test_no_command_is_help(run: Run) -> None:
    ran = run()
    assert ran.status == 2
    assert "caption" in ran.output
    assert ran.complaints == ""


def test_the_version(run: Run) -> None:
    ran = run("--version")
    assert (ran.status, ran.output.split()[0]) == (0, "captionfleet")
