"""A checkpoint comes back as it was written; anything else in its place is refused in one line."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.artifact import read_artifact
from model.checkpoint import Checkpoint, _sha256, load_checkpoint, save_checkpoint
from model.encoder import build_encoder
from model.errors import CheckpointInvalid
from model.loading import WEIGHTS
from model.network import NetworkShape
from model.networks import Shape, build_network
from model.recurrent import RecurrentShape
from model.tokenizer import Tokenizer

VOCABULARY = ["a", "red", "wall"]
DECODING = {"num_beams": 2, "num_captions": 1, "max_length": 8, "min_length": 1}


def _save(folder: Path, shape: Shape) -> Checkpoint:
    torch.manual_seed(0)
    encoder = build_encoder("efficientnet-lite0")
    network = build_network(shape).eval()
    words, notes = Tokenizer(VOCABULARY), {"data": "walls"}
    made = Checkpoint("tiny-1", "efficientnet-lite0", encoder, network, words, DECODING, notes)
    save_checkpoint(made, folder)
    return made


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    _save(folder, NetworkShape(7, 49, 1280, 16, 2, 16, 1, 1))
    return folder


@pytest.mark.parametrize(
    "shape",
    [NetworkShape(7, 49, 1280, 16, 2, 16, 1, 1), RecurrentShape(7, 49, 1280, 16, attends=False)],
    ids=["transformer", "gru"],
)
def test_a_checkpoint_comes_back(tmp_path: Path, shape: Shape) -> None:
    made = _save(tmp_path, shape)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.json", "model.safetensors"]
    found = load_checkpoint(tmp_path)
    assert (found.name, found.network.shape, found.notes) == (made.name, shape, made.notes)
    assert found.tokenizer.vocabulary == tuple(VOCABULARY)
    for mine, theirs in ((found.network, made.network), (found.encoder, made.encoder)):
        weights = theirs.state_dict()
        assert all(torch.equal(value, weights[key]) for key, value in mine.state_dict().items())


def _rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors and make the digest fit, as someone would who means harm."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    _describe(folder, files={"model.safetensors": _sha256(folder / "model.safetensors")})


def _describe(folder: Path, **changes: Any) -> None:
    path = folder / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _flip(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)


def _other_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({key: value + 1 for key, value in tensors.items()}, folder / "model.safetensors")


class _Harmful:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path("harmed").write_text, ("x",)


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(_Harmful()))
    _describe(folder, files={"model.safetensors": _sha256(folder / "model.safetensors")})


def _without(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "checkpoint.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != name}))

    return damage


def _network(folder: Path, **changes: Any) -> None:
    _describe(folder, network=json.loads((folder / "checkpoint.json").read_text())["network"] | changes)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed byte": (_flip, r"model\.safetensors is damaged or of another checkpoint"),
    "weights of another": (_other_weights, "is damaged or of another checkpoint"),
    "cut off": (lambda f: (f / "model.safetensors").write_bytes(b""), "is damaged or of another"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors cannot be read"),
    "no description": (lambda f: (f / "checkpoint.json").unlink(), "is no checkpoint"),
    "not json": (lambda f: (f / "checkpoint.json").write_text("{"), "is not JSON"),
    "a list": (lambda f: (f / "checkpoint.json").write_text("[]"), "has format None"),
    "older version": (lambda f: _describe(f, format=1), "has format 1; this version .* reads format 2"),
    "newer version": (lambda f: _describe(f, format=3), "has format 3"),
    "no vocabulary": (_without("vocabulary"), "it lacks vocabulary"),
    "no digest": (_without("files"), "it lacks files"),
    "a pickle": (_pickled, "cannot be read"),
    "missing tensor": (
        lambda f: _rewrite(f, lambda tensors: tensors.pop("network.bias")),
        "do not fit: .*Missing key.*bias",
    ),
    "extra tensor": (
        lambda f: _rewrite(f, lambda tensors: tensors.update({"more": torch.zeros(1)})),
        "unknown tensors: more",
    ),
    "wrong shape": (
        lambda f: _rewrite(f, lambda tensors: tensors.update({"network.bias": torch.zeros(9)})),
        "do not fit: .*size mismatch for bias",
    ),
    "another width": (lambda f: _network(f, width=32), "do not fit: .*size mismatch"),
    "absurd width": (lambda f: _network(f, width=1 << 40), "width of the network is"),
    "too short": (lambda f: _network(f, max_length=49), "ends at 49 words, and requests may ask for 50"),
    "another kind": (lambda f: _network(f, kind="rnn"), "unknown kind of network 'rnn'"),
    "fewer words": (lambda f: _describe(f, vocabulary=["a"]), "5 words for 7 embeddings"),
    "another size": (lambda f: _describe(f, preprocessing={"width": 8}), "preprocessing is not this"),
    "unknown encoder": (lambda f: _describe(f, encoder="../x"), "unknown encoder '../x'"),
    "a name that climbs": (lambda f: _describe(f, name="../../up"), "'../../up' is no name of a model"),
    "a name of two lines": (lambda f: _describe(f, name="a\nb"), "is no name of a model"),
    "a file that climbs": (
        lambda f: _describe(f, files={"model.safetensors": "0", "../../etc/passwd": "0"}),
        r"files must name model\.safetensors alone",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_anything_else_is_refused_in_one_line(saved: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    harm, message = DAMAGES[damage]
    harm(folder)
    with pytest.raises(CheckpointInvalid, match=message) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)
    assert not Path("harmed").exists()


def test_an_artifact_may_not_list_files_of_its_own_choice(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(WEIGHTS / "small", folder)
    path = folder / "captioner.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"files": described["files"] | {"../decoder.bin": "0"}}))
    with pytest.raises(CheckpointInvalid, match=r"it must list encoder\.xml"):
        read_artifact(folder)
