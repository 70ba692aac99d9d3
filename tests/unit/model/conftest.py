"""A tiny captioning world: coloured pictures, captions that name the colour, a network trained on them."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (40, 40, 220), "yellow": (230, 220, 30)}

CONFIG = """
name = "tiny-1"
seed = 3
[encoder]
name = "efficientnet-lite0"
cache = "trunk"
views = 3
[tokenizer]
min_count = 2
[network]
width = 32
heads = 2
feedforward = 64
encoder_layers = 1
decoder_layers = 2
max_length = 50
dropout = 0.1
[cross_entropy]
epochs = 10
batch_images = 5
captions_per_image = 3
learning_rate = 5e-3
encoder_learning_rate = 0
warmup_steps = 4
label_smoothing = 0.1
weight_decay = 0.01
average = 0.9
[fine_tune]
epochs = 1
batch_images = 8
captions_per_image = 3
learning_rate = 1e-3
encoder_learning_rate = 1e-3
warmup_steps = 1
label_smoothing = 0.1
weight_decay = 0.01
average = 0.9
[self_critical]
epochs = 1
decay_epochs = 1
batch_images = 8
samples = 3
temperature = 0.7
bleu = 0.5
fluency_penalty = 0.5
learning_rate = 1e-4
encoder_learning_rate = 1e-4
cross_entropy = 0.05
average = 0.9
[decoding]
num_beams = 3
num_captions = 1
max_length = 20
min_length = 2
"""


@dataclass(frozen=True)
class World:
    images: Path
    captions: Path
    config: Path


def make_world(folder: Path, train: int = 40, dev: int = 8) -> World:
    images = folder / "images"
    images.mkdir(parents=True)
    order = random.Random(5)
    with (folder / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "split", "caption"])
        for number in range(train + dev):
            colour, rgb = list(COLOURS.items())[number % 4]
            shade = tuple(max(0, min(255, value + order.randint(-20, 20))) for value in rgb)
            Image.new("RGB", (64, 48), shade).save(images / f"{number}.png")
            split = "train" if number < train else "dev"
            for text in (
                f"a {colour} wall in the sun .",
                f"The wall is {colour} .",
                f"{colour} paint on a wall",
            ):
                writer.writerow([f"{number}.png", split, text])
    config = folder / "tiny.toml"
    config.write_text(CONFIG)
    return World(images, folder / "captions.csv", config)


def shorten(world: World, epochs: int) -> Path:
    """Write beside a world's configuration one of a few epochs of cross-entropy alone; return its path."""
    short = world.config.with_name("short.toml")
    text = world.config.read_text().replace("epochs = 10", f"epochs = {epochs}")
    for phase in ("fine_tune", "self_critical"):
        text = text.replace(f"[{phase}]\nepochs = 1", f"[{phase}]\nepochs = 0")
    short.write_text(text)
    return short


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """On a busy machine torch's threads wait for each other far longer than these tiny networks take."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def trained(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of one whole training run."""
    from model.training import train

    output = tmp_path_factory.mktemp("run")
    train(world.images, world.captions, str(world.config), output, on_progress=lambda _: None)
    return output


@pytest.fixture(scope="session")
def artifact(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported artifact of that run."""
    from model.export import export

    return export(trained / "checkpoint", tmp_path_factory.mktemp("artifact"))
