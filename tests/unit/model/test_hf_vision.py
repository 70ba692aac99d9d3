"""The compiled encoder of a Hugging Face captioner: in its place, the same, and never in the way."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from model import hf_captioner, hf_vision
from model.captioner import DecodingOptions
from model.cpu_runtime import infer
from model.loading import load_captioner
from tests.checkpoints import make_checkpoint

ROOT = Path(__file__).parents[3]
PLACES = {"blip": "vision_model", "git": "git.image_encoder", "vit-gpt2": "encoder"}


@pytest.fixture(autouse=True)
def plain_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU that has no units for 16 bits."""
    monkeypatch.setattr(hf_captioner, "_best_dtype", lambda _: torch.float32)


def _load(family: str, folder: Path) -> Any:
    return load_captioner(f"hf:{make_checkpoint(family, folder / family)}", threads=1)


def _vision(captioner: Any, family: str) -> nn.Module:
    found: nn.Module = captioner._model.get_submodule(PLACES[family])
    return found


@pytest.mark.parametrize("family", PLACES)
def test_the_compiled_encoder_sees_what_torch_sees(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = _vision(_load(family, tmp_path), family)
    monkeypatch.setattr(hf_captioner, "compile_vision", lambda *_: None)
    plain = _vision(_load(family, tmp_path), family)
    pictures = torch.from_numpy(np.random.default_rng(5).normal(size=(3, 3, 32, 32)).astype(np.float32))
    with torch.no_grad():
        first = compiled(pixel_values=pictures).last_hidden_state
        expected = plain(pixel_values=pictures).last_hidden_state
        torch.testing.assert_close(first, expected, atol=1e-4, rtol=1e-4)
        # What was returned is not written over by the next picture.
        kept = first.clone()
        compiled(pixel_values=-pictures)
    assert torch.equal(first, kept)
    assert not list(compiled.parameters()), "its weights are not kept twice"


@pytest.mark.parametrize("family", PLACES)
def test_captions_are_the_same_with_it(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = _load(family, tmp_path)
    monkeypatch.setattr(hf_captioner, "compile_vision", lambda *_: None)
    plain = _load(family, tmp_path)
    side = ours.preprocessing
    pictures = np.random.default_rng(6).integers(0, 256, (3, side.height, side.width, 3), dtype=np.uint8)
    options = DecodingOptions(num_beams=3, num_captions=2, max_length=6)
    seen, expected = ours.caption(pictures, options), plain.caption(pictures, options)
    assert [[c.text for c in one] for one in seen] == [[c.text for c in one] for one in expected]


def _raise(*_: Any, **__: Any) -> Any:
    raise RuntimeError("an operation without a name")


def _elsewhere(original: Any, *given: Any) -> Any:
    return [array + 0.1 for array in original(*given)]


@pytest.mark.parametrize("trouble", [_raise, partial(_elsewhere, infer)], ids=["raises", "differs"])
def test_an_encoder_that_cannot_be_compiled_stays_in_torch(
    trouble: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_vision, "infer", trouble)
    captioner = _load("blip", tmp_path)
    assert list(_vision(captioner, "blip").parameters())
    side = captioner.preprocessing
    grey = np.full((1, side.height, side.width, 3), 127, dtype=np.uint8)
    assert len(captioner.caption(grey, DecodingOptions(max_length=4))[0]) == 1


def test_the_converter_reports_its_use_to_nobody() -> None:
    reports = "import model; from openvino.tools.ovc import convert_impl; print(convert_impl.tm.__name__)"
    run = subprocess.run(
        [sys.executable, "-c", reports], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
