"""Training checkpoints: one safetensors file and one JSON that says everything needed to use it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from model.config import MODEL_NAME
from model.encoder import ENCODERS, build_encoder
from model.encoder_base import GridEncoder
from model.errors import CheckpointInvalid
from model.networks import Network, build_network, describe_shape, parse_shape
from model.tokenizer import Tokenizer

FORMAT = 2
WEIGHTS, DESCRIPTION = "model.safetensors", "checkpoint.json"
_NEEDED = ("name", "encoder", "network", "preprocessing", "decoding", "notes", "vocabulary", "files")


@dataclass
class Checkpoint:
    """A trained captioner: encoder, network, tokenizer, decoding defaults and where it all comes from."""

    name: str
    encoder_name: str
    encoder: GridEncoder
    network: Network
    tokenizer: Tokenizer
    decoding: dict[str, Any]
    notes: dict[str, Any] = field(default_factory=dict)
    """Data, licences, metrics, training command, code version."""


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the checkpoint into a folder, replacing one that is there; each file appears whole.

    The description names the sha256 of the weights, so that files of two checkpoints are never mixed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"encoder.{key}": value for key, value in checkpoint.encoder.state_dict().items()}
    tensors |= {f"network.{key}": value for key, value in checkpoint.network.state_dict().items()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{WEIGHTS}.new")
    digest = _sha256(folder / f"{WEIGHTS}.new")
    description = {
        "format": FORMAT,
        "name": checkpoint.name,
        "encoder": checkpoint.encoder_name,
        "network": describe_shape(checkpoint.network.shape),
        "preprocessing": preprocessing(checkpoint.encoder),
        "decoding": checkpoint.decoding,
        "notes": checkpoint.notes,
        "files": {WEIGHTS: digest},
        "vocabulary": checkpoint.tokenizer.vocabulary,
    }
    (folder / f"{DESCRIPTION}.new").write_text(json.dumps(description, indent=1), encoding="utf-8")
    for name in (WEIGHTS, DESCRIPTION):
        (folder / f"{name}.new").replace(folder / name)


def preprocessing(encoder: GridEncoder) -> dict[str, Any]:
    """Say how pictures become the encoder's input."""
    return {"width": encoder.size, "height": encoder.size, "resample": "bicubic", "layout": "uint8 RGB NHWC"}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint; raise ``CheckpointInvalid`` if it is missing, damaged or does not fit this code."""
    described = _description(folder)
    try:
        found = _sha256(folder / WEIGHTS)
        if found != described["files"][WEIGHTS]:
            raise CheckpointInvalid(
                f"{folder / WEIGHTS} is damaged or of another checkpoint: "
                f"its sha256 is not the one in {DESCRIPTION}"
            )
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointInvalid(f"{folder / WEIGHTS} cannot be read: {error}") from error
    try:
        return _assemble(described, tensors)
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointInvalid(f"{folder}: weights and description do not fit: {reason}") from error


def _description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    try:
        described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointInvalid(f"{folder} is no checkpoint: {DESCRIPTION} cannot be read") from error
    except ValueError as error:
        raise CheckpointInvalid(f"{path} is not JSON") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        version = described.get("format") if isinstance(described, dict) else None
        raise CheckpointInvalid(
            f"{path} has format {version!r}; this version of Captionfleet reads format {FORMAT}"
        )
    missing = [name for name in _NEEDED if name not in described]
    if missing:
        raise CheckpointInvalid(f"{path} is damaged: it lacks {', '.join(missing)}")
    _check_names(described, path)
    return described


def _check_names(described: dict[str, Any], path: Path) -> None:
    # Whoever made the file chose these; none of them may lead out of the folder or forge a line in a log.
    if not isinstance(described["name"], str) or not MODEL_NAME.fullmatch(described["name"]):
        raise CheckpointInvalid(f"{path}: {described['name']!r} is no name of a model")
    if not isinstance(described["files"], dict) or list(described["files"]) != [WEIGHTS]:
        raise CheckpointInvalid(f"{path}: files must name {WEIGHTS} alone")
    if described["encoder"] not in ENCODERS:
        raise CheckpointInvalid(f"{path}: unknown encoder {described['encoder']!r}")


def _assemble(described: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Checkpoint:
    encoder = build_encoder(described["encoder"])
    network = build_network(parse_shape(described["network"])).eval()
    tokenizer = Tokenizer(described["vocabulary"])
    if len(tokenizer) != network.shape.vocabulary:
        raise ValueError(f"{len(tokenizer)} words for {network.shape.vocabulary} embeddings")
    if described["preprocessing"] != preprocessing(encoder):
        raise ValueError("the preprocessing is not this encoder's")
    strangers = [key for key in tensors if not key.startswith(("encoder.", "network."))]
    if strangers:
        raise ValueError(f"unknown tensors: {', '.join(strangers[:3])}")
    encoder.load_state_dict(_part(tensors, "encoder."))
    network.load_state_dict(_part(tensors, "network."))
    return Checkpoint(
        described["name"],
        described["encoder"],
        encoder,
        network,
        tokenizer,
        described["decoding"],
        described["notes"],
    )


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
