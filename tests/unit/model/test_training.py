"""Training on a tiny world: it learns, goes on after a kill, and says what is wrong with its input."""

from __future__ import annotations

import csv
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import cuda, equal

from model.captioner import DecodingOptions
from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import CONFIGS, read_config
from model.curve import training_curve
from model.encoder import load_pretrained
from model.errors import CheckpointInvalid, TrainingError
from model.images import read_image
from model.loading import load_captioner
from model.starting_point import load_start
from model.torch_captioner import torch_captioner
from model.training import train
from model.training_phases import phases

from .conftest import COLOURS, World, make_world, shorten

ROOT = Path(__file__).resolve().parents[3]


def _log(output: Path) -> list[dict[str, str]]:
    with (output / "log.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_it_learns_what_the_pictures_show(trained: Path) -> None:
    log = _log(trained)
    assert [row["phase"] for row in log] == ["cross_entropy"] * 10 + ["fine_tune", "self_critical"]
    assert float(log[9]["train_loss"]) < 0.6 * float(log[0]["train_loss"])
    assert max(float(row["dev_cider_d"]) for row in log) > 3.0


def _command(world: World, output: Path, *more: str) -> list[str]:
    program = "from cli.main import main; main()"
    where = ["--images", str(world.images), "--captions", str(world.captions), "--output", str(output)]
    return [sys.executable, "-c", program, "train", *where, "--config", str(world.config), *more]


def _kill_after(world: World, output: Path, rows: int) -> None:
    """Start the command and kill it with SIGKILL in the epoch after ``rows`` whole ones."""
    process = subprocess.Popen(_command(world, output), cwd=ROOT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (output / "log.csv").exists() or len(_log(output)) < rows:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(_log(output)) < 12


def test_a_killed_run_goes_on_with_the_same_curve(world: World, trained: Path, tmp_path: Path) -> None:
    for name in ("features.npy", "features.json"):
        shutil.copy(trained / name, tmp_path)
    for rows in (2, 11):  # in the first phase, in the last one
        _kill_after(world, tmp_path, rows)
    train(world.images, world.captions, str(world.config), tmp_path, on_progress=lambda _: None)
    assert _log(tmp_path) == _log(trained)
    ours, theirs = (load_file(run / "checkpoint/model.safetensors") for run in (tmp_path, trained))
    assert all(equal(ours[name], theirs[name]) for name in theirs)


def test_the_curve_is_drawn(trained: Path) -> None:
    picture = ElementTree.parse(trained / "curve.svg").getroot()
    lines = [line.get("points", "").split() for line in picture.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len(line) for line in lines] == [11, 11, 12]
    words = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {"cross_entropy", "fine_tune", "self_critical", "train_loss", "dev_loss", "dev_cider_d"} <= words


def test_rewards_are_not_drawn_as_losses() -> None:
    phased = ("cross_entropy", "untuned_critical", "fine_tune", "self_critical", "merged")
    rows = [
        {
            "epoch": number,
            "phase": phase,
            "train_loss": -7.5 if phase.endswith(("critical", "merged")) else 2.5,
            "dev_loss": 3.5,
            "dev_cider_d": 0.5 + number,
        }
        for number, phase in enumerate(phased, start=1)
    ]
    picture = ElementTree.fromstring(training_curve(rows))
    words = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {"2.5", "3.5", "1.5", "5.5", *phased} <= words
    assert not any(text and text.startswith("-") for text in words)


@pytest.mark.skipif(sys.platform != "linux", reason="file size limits are Linux's here")
@pytest.mark.parametrize(("megabytes", "left"), [(1, set()), (8, {"features.npy", "features.json"})])
def test_a_full_disk_is_named_and_the_run_goes_on_after(
    world: World, trained: Path, tmp_path: Path, megabytes: int, left: set[str]
) -> None:
    for name in left:
        shutil.copy(trained / name, tmp_path)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (megabytes << 20, megabytes << 20))

    ran = subprocess.run(
        _command(world, tmp_path), cwd=ROOT, capture_output=True, text=True, preexec_fn=limit, timeout=120
    )
    assert ran.returncode == 1
    assert f"{tmp_path} cannot take more (File too large): make room and run the same command" in ran.stderr
    assert "Traceback" not in ran.stderr
    config = shorten(world, epochs=1)
    shutil.rmtree(tmp_path / "checkpoint", ignore_errors=True)
    train(world.images, world.captions, str(config), tmp_path, on_progress=lambda _: None)
    assert (tmp_path / "checkpoint" / "checkpoint.json").exists()


RECURRENT = """[network]
kind = "gru"
width = 32
attends = true
max_length = 50
dropout = 0.1
"""


def _changed(world: World, tmp_path: Path, *changes: tuple[str, str], recurrent: bool = False) -> str:
    text = shorten(world, epochs=2).read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    if recurrent:
        text = text[: text.index("[network]")] + RECURRENT + text[text.index("[cross_entropy]") :]
    path = tmp_path / "changed.toml"
    path.write_text(text)
    return str(path)


LIVE = ('cache = "trunk"', 'cache = "none"')
FEATURES = ('cache = "trunk"', 'cache = "features"')
NO_TOP = ("encoder_learning_rate = 1e-3", "encoder_learning_rate = 0")
TOP = ("encoder_learning_rate = 0", "encoder_learning_rate = 1e-3")


@pytest.mark.parametrize(
    ("changes", "options", "encoder_learns"),
    [
        ((LIVE, TOP), {}, True),
        ((LIVE,), {}, False),
        ((FEATURES, NO_TOP), {"half": True, "recurrent": True}, False),
    ],
    ids=["live, encoder trained", "live, encoder frozen", "gru, bfloat16"],
)
def test_every_way_of_training_learns_and_makes_a_captioner(
    tmp_path: Path, changes: tuple[tuple[str, str], ...], options: dict[str, bool], encoder_learns: bool
) -> None:
    world = make_world(tmp_path, train=16, dev=4)
    config = _changed(world, tmp_path, *changes, recurrent=options.pop("recurrent", False))
    run = tmp_path / "run"
    checkpoint = train(world.images, world.captions, config, run, on_progress=lambda _: None, **options)
    log = _log(run)
    assert float(log[-1]["train_loss"]) < float(log[0]["train_loss"])
    found, published = load_checkpoint(checkpoint).encoder, load_pretrained("efficientnet-lite0")
    same = equal(found.conv_stem.weight, published.conv_stem.weight)
    assert same != encoder_learns
    said = load_captioner(str(checkpoint)).caption(np.zeros((1, 224, 224, 3), np.uint8), DecodingOptions())
    assert isinstance(said[0][0].text, str)
    assert (run / "features.npy").exists() == (FEATURES in changes)


def test_a_phase_ends_when_dev_stops_gaining(tmp_path: Path) -> None:
    world = make_world(tmp_path, train=8, dev=4)
    text = world.config.read_text().replace("learning_rate = 5e-3", "learning_rate = 0.0")
    world.config.write_text(text.replace("epochs = 10", "epochs = 10\npatience = 2"))
    train(world.images, world.captions, str(world.config), tmp_path / "run", on_progress=lambda _: None)
    phases = [row["phase"] for row in _log(tmp_path / "run")]
    assert phases == ["cross_entropy"] * 3 + ["fine_tune", "self_critical"]
    log = (tmp_path / "run" / "log.csv").read_text()
    train(world.images, world.captions, str(world.config), tmp_path / "run", on_progress=lambda _: None)
    assert (tmp_path / "run" / "log.csv").read_text() == log, "a finished run was trained on"


def _scaled(folder: Path, checkpoint: Path, factor: float) -> Path:
    """Save a checkpoint of the same name whose network has other weights."""
    found = load_checkpoint(checkpoint)
    with torch.no_grad():
        for value in found.network.parameters():
            value.mul_(factor)
    save_checkpoint(found, folder)
    return folder


def test_every_phase_has_its_own_weight_decay_and_may_come_first(
    world: World, trained: Path, tmp_path: Path
) -> None:
    text = world.config.read_text().replace("[cross_entropy]\nepochs = 10", "[cross_entropy]\nepochs = 0")
    critical = text[text.index("[self_critical]") : text.index("[decoding]")]
    text = text.replace("[self_critical]\nepochs = 1", "[self_critical]\nepochs = 0")
    text += critical.replace("[self_critical]", "[untuned_critical]")
    config = tmp_path / "untuned.toml"
    # Times the learning rate this halves the weights with every step.
    config.write_text(
        text[: (at := text.index("[fine_tune]"))] + text[at:].replace("decay = 0.01", "decay = 500")
    )
    assert [phase.origin for phase in phases(read_config(str(config)))] == [None, "start"]
    for name in ("features.npy", "features.json"):
        shutil.copy(trained / name, tmp_path)
    train(world.images, world.captions, str(config), tmp_path, on_progress=lambda _: None)
    assert [row["phase"] for row in _log(tmp_path)] == ["untuned_critical", "fine_tune"]
    began, ended = load_file(tmp_path / "start.safetensors"), load_file(tmp_path / "state.safetensors")
    name = "network.embed.weight"
    assert ended[f"weight/{name}"].norm() < 0.2 * began[name].norm()


def test_a_configuration_without_epochs_is_refused(world: World, tmp_path: Path) -> None:
    config = shorten(world, epochs=0)
    with pytest.raises(TrainingError, match="tiny-1 has no phase with epochs"):
        train(world.images, world.captions, str(config), tmp_path, on_progress=lambda _: None)


def test_a_model_is_trained_on_with_new_words(world: World, trained: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    rows = [f"{n}.png,{'dev' if n > 38 else 'train'},a violet fence in the sun" for n in range(41)]
    own.write_text("image,split,caption\n" + "\n".join(rows))
    still = _changed(world, tmp_path, ("learning_rate = 5e-3", "learning_rate = 0.0"))
    before = load_checkpoint(trained / "checkpoint")
    run = tmp_path / "run"
    folder = train(
        world.images, own, still, run, start=str(trained / "checkpoint"), on_progress=lambda _: None
    )
    after = load_checkpoint(folder)
    known = len(before.tokenizer)
    assert after.tokenizer.vocabulary == (*before.tokenizer.vocabulary, "fence", "violet")
    assert after.notes["from"]["name"] == "tiny-1"
    assert "Apache" in after.notes["from"]["notes"]["licences"]["encoder"]
    for name, value in before.network.state_dict().items():
        assert equal(after.network.state_dict()[name][: len(value)], value), name
    assert (after.network.bias[known:] == before.network.bias.min()).all()
    other = _scaled(tmp_path / "other", trained / "checkpoint", 1.01)
    with pytest.raises(TrainingError, match="another configuration, data or start"):
        train(world.images, own, still, run, start=str(other), on_progress=lambda _: None)
    captioner = load_captioner(str(folder))
    for colour in COLOURS:
        pixels = np.full((1, 224, 224, 3), COLOURS[colour], dtype=np.uint8)
        old = load_captioner(str(trained / "checkpoint")).caption(pixels, DecodingOptions())
        assert captioner.caption(pixels, DecodingOptions())[0][0].text == old[0][0].text


def test_a_shipped_model_can_be_trained_on(tmp_path: Path) -> None:
    recovered = load_start("small")
    ours, shipped = torch_captioner(recovered, "0", "cpu"), load_captioner("small", threads=1)
    photos = sorted((ROOT / "examples/photos").glob("*.jpg"))[:4]
    pixels = np.stack([read_image(path.read_bytes(), shipped.preprocessing).pixels for path in photos])
    for mine, theirs in zip(*(c.caption(pixels, DecodingOptions()) for c in (ours, shipped)), strict=True):
        assert mine[0].text == theirs[0].text
        assert mine[0].score == pytest.approx(theirs[0].score, abs=2e-3)
    save_checkpoint(recovered, tmp_path)
    kept = load_checkpoint(tmp_path)
    assert kept.name == recovered.name
    # What is trained on it stays under the terms of what it was trained on.
    assert "Flickr8k" in kept.notes["licences"]["data"]


def test_devices_and_starts_that_are_not_there_are_named(world: World, tmp_path: Path) -> None:
    if not cuda.is_available():
        with pytest.raises(TrainingError, match="the device 'cuda' cannot be used"):
            train(world.images, world.captions, "small", tmp_path, device="cuda")
    with pytest.raises(TrainingError, match="the device 'gpu' cannot be used"):
        train(world.images, world.captions, "small", tmp_path, device="gpu")
    with pytest.raises(CheckpointInvalid, match="no model 'large'"):
        train(world.images, world.captions, "small", tmp_path, start="large")


def test_every_configuration_that_ships_can_be_read() -> None:
    names = sorted(path.stem for path in CONFIGS.glob("*.toml"))
    assert names == ["finetune", "inception-gru", "resnet50-gru", "small", "transformer"]
    assert len({read_config(name).name for name in names}) == len(names)
    assert all(phases(read_config(name)) for name in names)


def test_another_run_is_refused_before_anything_of_this_one_is_replaced(
    world: World, trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    kept = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    other = tmp_path / "other.toml"
    other.write_text(world.config.read_text().replace("views = 3", "views = 2"))
    own = tmp_path / "own.csv"
    own.write_text(world.captions.read_text().replace("The wall is red .", "The red is wall ."))
    runs: list[tuple[Path, Path, dict[str, Any]]] = [
        (world.captions, other, {}),
        (own, world.config, {}),
        (world.captions, world.config, {"start": str(trained / "checkpoint")}),
        (world.captions, world.config, {"weights": "random"}),
        (world.captions, world.config, {"half": True}),
    ]
    for captions, config, options in runs:
        with pytest.raises(TrainingError, match="another configuration, data or start"):
            train(world.images, captions, str(config), run, on_progress=lambda _: None, **options)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == kept


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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch_images = 5", "batch_images = 0", r"\[cross_entropy\] batch_images cannot be 0"),
        ("learning_rate = 5e-3", "learning_rate = -1", r"\[cross_entropy\] learning_rate cannot be -1"),
        ("learning_rate = 5e-3", "learning_rate = nan", r"\[cross_entropy\] learning_rate cannot be nan"),
        ("dropout = 0.1", "dropout = 1", r"\[network\] dropout cannot be 1"),
        ("heads = 2", "heads = 5", r"\[network\] width must be a multiple of heads"),
        ("num_beams = 3", "num_beams = 9", r"\[decoding\] num_beams must be a whole number from 1 to 5"),
        ("max_length = 50", "max_length = 49", r"\[network\] max_length must be 50 or more"),
        ("max_length = 20", "max_length = 51", r"\[decoding\] max_length must be .* from 1 to 50"),
        ('name = "tiny-1"', 'name = "tiny-\xe9"', "name must be letters"),
        ("seed = 3", "seed = ", "Invalid value"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_at_once(
    world: World, tmp_path: Path, old: str, new: str, message: str
) -> None:
    config = tmp_path / "wrong.toml"
    config.write_text(world.config.read_text().replace(old, new), encoding="utf-8")
    with pytest.raises(TrainingError, match=message):
        read_config(str(config))


def test_a_configuration_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_bytes(b"name = \xff")
    with pytest.raises(TrainingError, match=r"wrong\.toml: .*utf-8"):
        read_config(str(tmp_path / "wrong.toml"))


def test_a_damaged_photo_is_named(tmp_path: Path) -> None:
    world = make_world(tmp_path, train=4, dev=1)
    (world.images / "1.png").write_bytes(b"not a picture")
    with pytest.raises(TrainingError, match=r"1\.png: "):
        train(world.images, world.captions, str(world.config), tmp_path / "out", on_progress=lambda _: None)
    (world.images / "1.png").unlink()
    (world.images / "1.png").mkdir()
    with pytest.raises(TrainingError, match=r"1\.png cannot be read: Is a directory"):
        train(world.images, world.captions, str(world.config), tmp_path / "out", on_progress=lambda _: None)


def test_an_output_that_cannot_be_a_folder_is_named(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(TrainingError, match=r"cannot be written to .*: choose another output folder"):
            train(world.images, world.captions, str(world.config), output, on_progress=lambda _: None)
