"""Self-critical training twice and the mean of both: where each begins, and going on after a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.config import read_config
from model.progress import Progress
from model.training import train
from model.training_phases import phases

from .conftest import World


class Stopped(Exception):
    pass


def _config(world: World, folder: Path) -> Path:
    path = folder / "merged.toml"
    text = world.config.read_text().replace("epochs = 10", "epochs = 2")
    section = text[text.index("[self_critical]") : text.index("[decoding]")]
    path.write_text(text + section.replace("[self_critical]", "[untuned_critical]\ndropout = 0.2"))
    return path


def test_a_run_ends_with_the_mean_of_two_models_and_goes_on_after_a_kill(
    world: World, trained: Path, tmp_path: Path
) -> None:
    config = _config(world, tmp_path)
    assert [(phase.name, phase.origin) for phase in phases(read_config(str(config)))] == [
        ("cross_entropy", None),
        ("untuned_critical", "cross_entropy"),
        ("fine_tune", "cross_entropy"),
        ("self_critical", "fine_tune"),
    ]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for run in (whole, broken):
        run.mkdir()
        for name in ("features.npy", "features.json"):
            shutil.copy(trained / name, run)

    def stop(progress: Progress) -> None:
        if progress.stage == "epoch 5" and progress.done == 2:
            raise Stopped

    train(world.images, world.captions, str(config), whole, on_progress=lambda _: None)
    with pytest.raises(Stopped):
        train(world.images, world.captions, str(config), broken, on_progress=stop)
    train(world.images, world.captions, str(config), broken, on_progress=lambda _: None)
    first, second = (
        load_file(whole / f"{name}.safetensors") for name in ("untuned_critical", "self_critical")
    )
    state = load_file(whole / "state.safetensors")
    moved = 0
    for name, value in first.items():
        torch.testing.assert_close(state[f"weight/{name}"], (value + second[name]) / 2)
        moved += not torch.equal(value, second[name])
    assert moved == len(first)
    # Though the mean of two such small models scores less on dev than one of them.
    kept = json.loads((whole / "checkpoint/checkpoint.json").read_text())["notes"]
    assert kept["training"][-1]["phase"] == "merged"
    assert kept["epoch"] == len(kept["training"]) == 6
    again = load_file(broken / "state.safetensors")
    assert all(torch.equal(state[name], again[name]) for name in state)
