"""Shows that a configuration learns: it must learn 50 photos by heart, from random encoder weights.

``python -m benchmarks.overfit IMAGES CAPTIONS [CONFIG ...]`` takes the first 50 train photos with
one caption each and prints the BLEU-4 of what the trained model says of them; one that learns exceeds 0.9.
"""

from __future__ import annotations

import csv
import re
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import describe_machine
from model.captioner import DecodingOptions
from model.config import CONFIGS
from model.dataset import read_captions, select
from model.evaluation import evaluate
from model.training import train

PHOTOS = 50
# Nothing that keeps a network from learning by heart, and no more epochs or width than that takes.
CHANGES = {
    "views": "1",
    "min_count": "1",
    "width": "256",
    "dropout": "0.0",
    "label_smoothing": "0.0",
    "weight_decay": "0.0",
    "epochs": "120",
    "patience": "0",
    "batch_images": "10",
    "captions_per_image": "1",
    "warmup_steps": "20",
    "average": "0.9",
}


def overfit(config: str, images: Path, captions: Path, folder: Path) -> float:
    """Train on 50 photos and return the BLEU-4 of their captions; the dev split is the same photos again."""
    data = folder / "data"
    data.mkdir(parents=True)
    photos = select(read_captions(captions, images), "train")[:PHOTOS]
    with (folder / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "split", "caption"])
        for photo in photos:
            for split in ("train", "dev"):
                target = data / f"{split}-{Path(photo.name).name}"
                target.symlink_to((images / photo.name).resolve())
                writer.writerow([target.name, split, photo.captions[0]])
    text = (CONFIGS / f"{config}.toml").read_text(encoding="utf-8")
    for name, value in CHANGES.items():
        text = re.sub(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
    settings = folder / f"{config}.toml"
    settings.write_text(text, encoding="utf-8")
    checkpoint = train(data, folder / "captions.csv", str(settings), folder / "run", weights="random")
    greedy = DecodingOptions(num_beams=1, min_length=1, max_length=30)
    found = evaluate(
        str(checkpoint), data, folder / "captions.csv", "train", options=greedy, with_meteor=False
    )
    return float(found.scores["BLEU-4"] or 0)


def main(images: str, captions: str, *configs: str) -> None:
    """Print a line per configuration."""
    print(describe_machine())
    for config in configs or ("resnet50-gru", "inception-gru"):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            score = overfit(config, Path(images), Path(captions), Path(folder))
        print(f"{config}: BLEU-4 {score:.3f} after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
