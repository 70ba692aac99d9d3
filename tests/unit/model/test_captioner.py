"""The exported captioner: parity with torch, batches, options, damage, and what it does without torch."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.captioner import DecodingOptions, Pixels
from model.errors import CheckpointInvalid, InvalidOptions, ModelOutOfMemory
from model.loading import WEIGHTS, load_captioner, shipped_models

from .conftest import COLOURS

ROOT = Path(__file__).resolve().parents[3]
TOLERANCE = 0.06  # 16-bit weights against 32-bit ones, in log-probability


def _pictures(count: int) -> Pixels:
    """Cut-outs of the sample photos, different enough to be captioned differently."""
    order = random.Random(0)
    photos = [Image.open(path).convert("RGB") for path in sorted((ROOT / "examples/photos").glob("*.jpg"))]
    cut = []
    for number in range(count):
        photo = photos[number % len(photos)]
        left, top = order.uniform(0, photo.width / 3), order.uniform(0, photo.height / 3)
        box = (left, top, left + photo.width / 1.5, top + photo.height / 1.5)
        cut.append(np.asarray(photo.resize((224, 224), Image.Resampling.BICUBIC, box)))
    return np.stack(cut) if cut else np.zeros((0, 224, 224, 3), dtype=np.uint8)


def _plain(colour: str) -> Pixels:
    return np.full((1, 224, 224, 3), COLOURS[colour], dtype=np.uint8)


def test_graphs_agree_with_torch_at_every_step(trained: Path, artifact: Path) -> None:
    torch_model = load_captioner(str(trained / "checkpoint"))._model  # type: ignore[attr-defined]
    graphs = load_captioner(str(artifact), threads=1)._model  # type: ignore[attr-defined]
    models = (torch_model, graphs)
    pixels = _pictures(3)
    for model in models:
        model.see(pixels)
        model.start(3, 51)
    tokens = np.ones((3, 1), dtype=np.int64)
    rows = np.arange(3)
    order = np.random.default_rng(1)
    for place in range(50):
        plain, fast = (model.step(tokens) for model in models)
        dense = [np.take_along_axis(found.scores, found.ids.argsort(-1), -1) for found in (plain, fast)]
        possible = dense[0] > -1e6
        assert np.abs(dense[0] - dense[1])[possible].max() < TOLERANCE, f"step {place}"
        assert np.abs(plain.end - fast.end).max() < TOLERANCE
        parents = np.zeros((3, 3), dtype=np.int64) if place == 0 else order.integers(0, 3, (3, 3))
        for model in models:
            model.reorder(rows, parents)
        tokens = order.integers(4, plain.scores.shape[-1] - 1, (3, 3))


def test_both_captioners_say_what_they_see(trained: Path, artifact: Path) -> None:
    for model in (artifact, trained / "checkpoint"):
        captioner = load_captioner(str(model))
        said = {c: captioner.caption(_plain(c), DecodingOptions())[0][0].text for c in COLOURS}
        assert sum(colour in text.split() for colour, text in said.items()) >= 3, said


@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_of_32_says_what_its_images_say_alone(beams: int) -> None:
    captioner = load_captioner("small", threads=1)
    pixels, options = _pictures(32), DecodingOptions(num_beams=beams, num_captions=beams)
    together = captioner.caption(pixels, options)
    alone = [captioner.caption(pixels[n : n + 1], options)[0] for n in range(32)]
    assert [[c.text for c in one] for one in together] == [[c.text for c in one] for one in alone]
    scores = [[c.score for one in found for c in one] for found in (together, alone)]
    assert scores[0] == pytest.approx(scores[1], abs=2e-3)
    assert len({one[0].text for one in together}) > 10
    assert captioner.caption(pixels, options) == together, "not deterministic"


def test_the_same_seed_says_the_same_of_an_image_in_every_batch(artifact: Path) -> None:
    captioner = load_captioner(str(artifact), threads=1)
    options = captioner.resolve(DecodingOptions(temperature=1.5, seed=7, num_captions=3))
    assert (options.num_beams, options.top_p, options.seed) == (1, 0.9, 7)
    pixels = _pictures(6)
    together = [{c.text for c in one} for one in captioner.caption(pixels, options)]
    assert [{c.text for c in one} for one in captioner.caption(pixels[::-1], options)] == together[::-1]
    other = captioner.caption(pixels, captioner.resolve(DecodingOptions(temperature=1.5, num_captions=3)))
    assert [{c.text for c in one} for one in other] != together


def test_options_are_resolved_and_bounded(artifact: Path) -> None:
    captioner = load_captioner(str(artifact))
    assert captioner.resolve(DecodingOptions()) == DecodingOptions(3, 1, 20, 2, length_penalty=1.0)
    assert captioner.resolve(DecodingOptions(num_captions=5)).num_beams == 5
    assert captioner.resolve(DecodingOptions(max_length=1)).min_length == 1
    for options, message in [
        (DecodingOptions(num_beams=6), "num_beams must be a whole number from 1 to 5"),
        (DecodingOptions(num_beams=0), "num_beams"),
        (DecodingOptions(num_beams=2, num_captions=3), "num_captions must be a whole number from 1 to 2"),
        (DecodingOptions(length_penalty=2.5), "length_penalty must be a number from 0 to 2"),
        (DecodingOptions(top_p=0.0), "top_p must be a number from 0.01 to 1"),
        (DecodingOptions(temperature=float("nan")), "temperature must be a number from 0.1 to 2"),
        (DecodingOptions(top_p=0.9, num_beams=3), "give one or the other"),
        (DecodingOptions(top_p=0.9, num_captions=6), "num_captions must be a whole number from 1 to 5"),
        (DecodingOptions(top_p=0.9, seed=-1), "seed must be a whole number from 0 to 2147483647"),
        (DecodingOptions(seed=1), "a seed is for sampling"),
        (DecodingOptions(max_length=51), "max_length must be a whole number from 1 to 50"),
        (DecodingOptions(max_length=5, min_length=6), "min_length must be a whole number from 0 to 5"),
        (DecodingOptions(prompt="a photo of"), "takes no prompt"),
    ]:
        with pytest.raises(InvalidOptions, match=message):
            captioner.resolve(options)


def test_captions_are_as_many_and_as_long_as_asked(artifact: Path) -> None:
    captioner = load_captioner(str(artifact))
    found = captioner.caption(_pictures(2), DecodingOptions(num_beams=4, num_captions=4, max_length=3))
    assert [len(one) for one in found] == [4, 4]
    assert all(len(c.text.split()) <= 3 for one in found for c in one)
    assert all(len({c.text for c in one}) == 4 for one in found)
    assert captioner.caption(_pictures(0), DecodingOptions()) == []


def _tampered(artifact: Path, folder: Path, damage: str) -> str:
    shutil.copytree(artifact, folder)
    weights, description = folder / "decoder.bin", folder / "captioner.json"
    if damage == "changed":
        data = bytearray(weights.read_bytes())
        data[1000] ^= 1
        weights.write_bytes(data)
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "missing":
        weights.unlink()
    elif damage == "not json":
        description.write_text(description.read_text()[:500])
    elif damage == "future":
        description.write_text(json.dumps(json.loads(description.read_text()) | {"format": 9}))
    elif damage == "no vocabulary":
        values = json.loads(description.read_text())
        del values["vocabulary"]
        description.write_text(json.dumps(values))
    return str(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("changed", "decoder.bin is damaged"),
        ("truncated", "decoder.bin is damaged"),
        ("missing", "decoder.bin is missing"),
        ("not json", "captioner.json is damaged"),
        ("future", "format 9"),
        ("no vocabulary", "lacks or garbles 'vocabulary'"),
    ],
)
def test_a_damaged_artifact_is_refused_in_one_line(
    artifact: Path, tmp_path: Path, damage: str, message: str
) -> None:
    with pytest.raises(CheckpointInvalid, match=message) as caught:
        load_captioner(_tampered(artifact, tmp_path / "copy", damage))
    assert "\n" not in str(caught.value)


def test_models_that_are_not_there_are_refused(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match=r"no model 'large'.*small"):
        load_captioner("large")
    with pytest.raises(CheckpointInvalid, match="is no checkpoint"):
        load_captioner(str(tmp_path))
    with pytest.raises(CheckpointInvalid, match="runs on cpu, not on cuda"):
        load_captioner(str(artifact), "cuda")


@pytest.mark.parametrize("warm", [False, True])
def test_a_batch_beyond_memory_is_named(artifact: Path, warm: bool) -> None:
    # In a process of its own, so that the limit ends with it.
    program = f"""
import resource, numpy as np
from model.loading import load_captioner
from model.captioner import DecodingOptions
from model.errors import ModelOutOfMemory
captioner = load_captioner({str(artifact)!r}, threads=1)
pixels = np.zeros((8, 224, 224, 3), dtype=np.uint8)
if {warm}:
    captioner.caption(pixels[:2], DecodingOptions(num_beams=5))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), -1))
try:
    captioner.caption(pixels, DecodingOptions(num_beams=5))
except ModelOutOfMemory as error:
    print("named:", error)
"""
    if sys.platform != "linux":
        pytest.skip("limits the address space, which only Linux enforces")
    result = _python(program)
    assert result.stdout.startswith("named:"), result.stderr[-500:]
    assert ModelOutOfMemory.__name__ not in result.stderr


@pytest.mark.parametrize("full", ["cat", "new_zeros", "flatten"])
def test_a_device_without_memory_is_named_whatever_it_is_asked(
    trained: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    import torch

    captioner = load_captioner(str(trained / "checkpoint"))
    pixels = np.zeros((2, 224, 224, 3), dtype=np.uint8)
    model = captioner._model  # type: ignore[attr-defined]

    def no_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def ask() -> None:
        if full == "flatten":
            model.reorder(np.array([0, 1]), np.array([[0], [0]]))
        else:
            captioner.caption(pixels, DecodingOptions(num_beams=2))

    model.see(pixels)
    model.start(2, 4)
    with monkeypatch.context() as patch:
        patch.setattr(torch if full == "cat" else torch.Tensor, full, no_memory)
        with pytest.raises(ModelOutOfMemory):
            ask()
    assert len(captioner.caption(pixels, DecodingOptions(num_beams=2))) == 2


def test_the_shipped_model_runs_without_torch_and_is_small() -> None:
    assert "small" in shipped_models()
    size = sum(path.stat().st_size for path in (WEIGHTS / "small").iterdir())
    assert size <= 30e6
    result = _python(
        "import sys, numpy as np\n"
        "from model.loading import load_captioner\n"
        "from model.captioner import DecodingOptions\n"
        "captioner = load_captioner('small')\n"
        "print(captioner.caption(np.zeros((1, 224, 224, 3), np.uint8), DecodingOptions())[0][0].text)\n"
        "heavy = {'torch', 'safetensors', 'flask', 'celery', 'sqlalchemy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    assert result.returncode == 0, result.stderr[-500:]
    assert len(result.stdout.split()) >= 3


def test_a_compile_cache_is_filled_and_changes_nothing(artifact: Path, tmp_path: Path) -> None:
    pixels = _pictures(2)
    plain = load_captioner(str(artifact)).caption(pixels, DecodingOptions())
    for _ in range(2):
        cached = load_captioner(str(artifact), cache_dir=tmp_path / "cache").caption(
            pixels, DecodingOptions()
        )
        assert cached == plain
    assert list((tmp_path / "cache").iterdir())


def _python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
