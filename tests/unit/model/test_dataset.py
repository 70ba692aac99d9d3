"""Every data set layout, as its publisher lays it out, read and trained on; and what can be wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.dataset import CaptionedImage, read_captions
from model.errors import TrainingError
from model.training import train

from .conftest import World, make_world, shorten

Layout = Callable[[Path, "list[CaptionedImage]"], tuple[Path, Path]]


def _rename(images: Path, photos: list[CaptionedImage], names: Callable[[CaptionedImage], str]) -> Path:
    root = images.with_name("data")
    for photo in photos:
        target = root / names(photo)
        target.parent.mkdir(parents=True, exist_ok=True)
        (images / photo.name).rename(target)
    return root


def flickr8k(images: Path, photos: list[CaptionedImage]) -> tuple[Path, Path]:
    text = images.with_name("Flickr8k_text")
    text.mkdir()
    lines = [f"{p.name}#{n}\t{c}" for p in photos for n, c in enumerate(p.captions)]
    lines.append("2258277193_586949ec62.jpg.1#0\tpeople waiting for the subway")  # as in the published file
    (text / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    for split in ("train", "dev", "test"):
        names = [p.name for p in photos if p.split == split]
        (text / f"Flickr_8k.{split}Images.txt").write_text("\n".join(names) + "\n")
    return images, text / "Flickr8k.token.txt"


def flickr30k_results(images: Path, photos: list[CaptionedImage]) -> tuple[Path, Path]:
    lines = ["image_name| comment_number| comment"]
    lines += [f'{p.name}| {n}| {c} "' for p in photos for n, c in enumerate(p.captions)]
    lines[3] = lines[3].replace("| 2| ", "| 2   ")  # as line 19,999 of the published file
    (images.parent / "results.csv").write_text("\n".join(lines) + "\n")
    return images, images.parent / "results.csv"


def flickr30k_tokens(images: Path, photos: list[CaptionedImage]) -> tuple[Path, Path]:
    file = images.parent / "results_20130124.token"
    file.write_text("".join(f"{p.name}#{n}\t{c}\n" for p in photos for n, c in enumerate(p.captions)))
    return images, file


def coco(images: Path, photos: list[CaptionedImage]) -> tuple[Path, Path]:
    folder = {"train": "train2017", "dev": "val2017"}
    ids = {photo.name: number for number, photo in enumerate(photos, start=391895)}
    root = _rename(images, photos, lambda p: f"{folder[p.split]}/{ids[p.name]:012d}.png")
    (root / "annotations").mkdir()
    for split, part in folder.items():
        chosen = [photo for photo in photos if photo.split == split]
        document = {
            "info": {"year": 2017},
            "licenses": [],
            "images": [{"id": ids[p.name], "file_name": f"{ids[p.name]:012d}.png"} for p in chosen],
            "annotations": [
                {"image_id": ids[p.name], "id": 9, "caption": c + "\n"} for p in chosen for c in p.captions
            ],
        }
        (root / "annotations" / f"captions_{part}.json").write_text(json.dumps(document))
    return root, root / "annotations" / "captions_train2017.json"


def karpathy(images: Path, photos: list[CaptionedImage]) -> tuple[Path, Path]:
    root = _rename(images, photos, lambda p: f"val2014/COCO_val2014_{p.name}")
    names = {"train": "restval", "dev": "val"}
    rows = [
        {
            "filepath": "val2014",
            "filename": f"COCO_val2014_{p.name}",
            "split": "train" if number == 0 else names[p.split],
            "sentences": [{"raw": c, "tokens": c.split()} for c in p.captions],
        }
        for number, p in enumerate(photos)
    ]
    (root / "dataset_coco.json").write_text(json.dumps({"images": rows, "dataset": "coco"}))
    return root, root / "dataset_coco.json"


def tsv_without_splits(images: Path, photos: list[CaptionedImage]) -> tuple[Path, Path]:
    file = images.parent / "captions.tsv"
    lines = [f"{p.name}\t{c}" for p in photos for c in p.captions]
    file.write_text("\ufeffimage\tcaption\r\n" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    return images, file


def nested_csv(images: Path, photos: list[CaptionedImage]) -> tuple[Path, Path]:
    root = _rename(images, photos, lambda p: f"{p.split}/{p.name}")
    lines = [f'"{p.split}/{p.name}","{c}, they say",{p.split}' for p in photos for c in p.captions]
    (root / "mine.csv").write_text("\n".join(["file_name,caption,split", *lines]) + "\n")
    return root, root / "mine.csv"


WITH_SPLITS: list[Layout] = [flickr8k, coco, karpathy, nested_csv]
WITHOUT: list[Layout] = [flickr30k_results, flickr30k_tokens, tsv_without_splits]


@pytest.mark.parametrize("layout", WITH_SPLITS + WITHOUT, ids=lambda layout: layout.__name__)
def test_a_layout_is_read_and_trained_on(tmp_path: Path, layout: Layout) -> None:
    world = make_world(tmp_path, train=24, dev=4)
    photos = read_captions(world.captions, world.images)
    images, captions = layout(world.images, photos)
    found = read_captions(captions, images)
    assert all((images / photo.name).is_file() for photo in found)
    assert [len(photo.captions) for photo in found] == [3] * 28
    assert [photo.captions[0][:6] for photo in found] == [photo.captions[0][:6] for photo in photos]
    splits = {split: sum(photo.split == split for photo in found) for split in ("train", "dev")}
    if layout in WITH_SPLITS:
        assert splits == {"train": 24, "dev": 4}
    else:
        assert sum(splits.values()) == 28
        assert 1 <= splits["dev"] <= 8
    config = shorten(world, epochs=1)
    checkpoint = train(images, captions, str(config), tmp_path / "run", on_progress=lambda _: None)
    assert (checkpoint / "model.safetensors").is_file()


def test_photos_keep_their_split_when_others_are_added(tmp_path: Path) -> None:
    world = make_world(tmp_path, train=40, dev=0)
    lines = [f"{n}.png,a wall in the sun" for n in range(40)]
    world.captions.write_text("image,caption\n" + "\n".join(lines[:20]))
    first = {photo.name: photo.split for photo in read_captions(world.captions, world.images)}
    world.captions.write_text("image,caption\n" + "\n".join(lines))
    second = {photo.name: photo.split for photo in read_captions(world.captions, world.images)}
    assert first.items() <= second.items()
    assert 0 < sum(split == "dev" for split in second.values()) < 12


def _read(world: World, name: str, content: str | bytes) -> Any:
    file = world.captions.with_name(name)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_captions(file, world.images)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", "photo,text\n0.png,a wall\n", "lacks the column image; .*the first line has: photo, text"),
        ("c.csv", "", "lacks the column image; .*nothing"),
        ("c.csv", "image,caption\n0.png,a wall, red\n", r"c\.csv:2: 3 columns instead of 2"),
        ("c.csv", "image,caption\n0.png,\n", r"c\.csv:2: empty caption"),
        ("c.csv", "image,caption\n,a wall\n", r"c\.csv:2: empty image name"),
        ("c.csv", "image,caption\n../c.csv,a wall\n", "does not lie in the image folder"),
        ("c.csv", "image,caption\n/etc/passwd,a wall\n", "does not lie in the image folder"),
        ("c.csv", b"image,caption\n0.png,caf\xe9\n", "is not UTF-8 text: .* at byte 23"),
        ("c.csv", "image,split,caption\n0.png,practice,a wall\n", "unknown split 'practice'; use train"),
        ("t.txt", "0.png#0\ta wall\n0.png a wall\n", r"t\.txt:2: expected IMAGE#NUMBER, a tab"),
        ("d.json", "{", "d.json is not JSON"),
        ("d.json", "[]", "neither a COCO captions file nor one of Karpathy's"),
        ("d.json", '{"images": [{"filename": "0.png"}]}', "neither a COCO .*'split'"),
        (
            "d.json",
            '{"images": [], "annotations": [{"image_id": 7, "caption": "a wall"}]}',
            "annotation 0: there is no image 7",
        ),
    ],
)
def test_a_garbled_file_is_named_with_its_place(world: World, name: str, content: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        _read(world, name, content)
