"""Training on a tiny world: it learns, goes on after a kill, and says what is wrong with its input."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import equal

from model.errors import TrainingError
from model.progress import Progress
from model.training import train

from .conftest import World, make_world


class Killed(Exception):
    pass


def _log(output: Path) -> list[dict[str, str]]:
    with (output / "log.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_it_learns_what_the_pictures_show(trained: Path) -> None:
    log = _log(trained)
    assert [row["phase"] for row in log] == ["cross_entropy"] * 20 + ["fine_tune", "self_critical"]
    assert float(log[19]["train_loss"]) < 0.6 * float(log[0]["train_loss"])
    assert max(float(row["dev_cider_d"]) for row in log) > 3.0


def test_a_killed_run_goes_on_with_the_same_curve(world: World, trained: Path, tmp_path: Path) -> None:
    for name in ("features.npy", "features.json"):
        shutil.copy(trained / name, tmp_path)
    for killed_in in (19, 21, 22):  # one in each phase

        def kill(progress: Progress, stage: str = f"epoch {killed_in}") -> None:
            if progress.stage == stage and progress.done == 2:
                raise Killed

        with pytest.raises(Killed):
            train(world.images, world.captions, str(world.config), tmp_path, on_progress=kill)
        assert len(_log(tmp_path)) == killed_in - 1
    train(world.images, world.captions, str(world.config), tmp_path, on_progress=lambda _: None)
    assert _log(tmp_path) == _log(trained)
    ours, theirs = (load_file(run / "checkpoint/model.safetensors") for run in (tmp_path, trained))
    assert all(equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_of_another_configuration_is_not_continued(world: World, trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    other = tmp_path / "other.toml"
    other.write_text(world.config.read_text().replace("width = 32", "width = 64"))
    with pytest.raises(TrainingError, match="another configuration"):
        train(world.images, world.captions, str(other), run, on_progress=lambda _: None)


def _broken(folder: Path, captions: str) -> tuple[Path, Path]:
    world = make_world(folder, train=2, dev=1)
    world.captions.write_text(captions)
    return world.images, world.captions


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ("image,split,caption\nmissing.png,train,a wall\n", "1 of 1 images are missing.*missing.png"),
        ("image,split,caption\n0.png,train,a red wall\n", "no rows of the split 'dev'"),
        ("image,split,caption\n0.png,train,a red wall\n0.png,dev,a red wall\n", "two splits"),
        ("image,split,caption\n", "holds no captions"),
        (
            "image,split,caption\n0.png,train,wall\n1.png,dev,wall\n",
            "train has no caption of three or more words",
        ),
    ],
)
def test_unusable_data_is_named(tmp_path: Path, captions: str, message: str) -> None:
    images, file = _broken(tmp_path, captions)
    with pytest.raises(TrainingError, match=message):
        train(images, file, "small", tmp_path / "out", on_progress=lambda _: None)


def test_missing_folders_and_configurations_are_named(world: World, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(TrainingError, match=r"image folder .*nowhere does not exist"):
        train(nowhere, world.captions, "small", tmp_path)
    with pytest.raises(TrainingError, match=r"captions file .*nowhere does not exist"):
        train(world.images, nowhere, "small", tmp_path)
    with pytest.raises(TrainingError, match=r"no configuration 'huge'; there is .*small"):
        train(world.images, world.captions, "huge", tmp_path)
    broken = tmp_path / "broken.toml"
    broken.write_text(world.config.read_text().replace("heads = 2", "hats = 2"))
    with pytest.raises(TrainingError, match=r"\[network\] missing or unknown: hats, heads"):
        train(world.images, world.captions, str(broken), tmp_path)


def test_a_damaged_photo_is_named(tmp_path: Path) -> None:
    world = make_world(tmp_path, train=4, dev=1)
    (world.images / "1.png").write_bytes(b"not a picture")
    with pytest.raises(TrainingError, match=r"1\.png: "):
        train(world.images, world.captions, str(world.config), tmp_path / "out", on_progress=lambda _: None)
