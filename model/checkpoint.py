"""Training checkpoints: one safetensors file and one JSON that says everything needed to use it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from model.encoder import ENCODERS, build_encoder
from model.encoder_base import GridEncoder
from model.errors import CheckpointInvalid
from model.network import CaptionNetwork, NetworkShape
from model.tokenizer import Tokenizer

FORMAT = 1
WEIGHTS, DESCRIPTION = "model.safetensors", "checkpoint.json"


@dataclass
class Checkpoint:
    """A trained captioner: encoder, network, tokenizer, decoding defaults and where it all comes from."""

    name: str
    encoder_name: str
    encoder: GridEncoder
    network: CaptionNetwork
    tokenizer: Tokenizer
    decoding: dict[str, Any]
    notes: dict[str, Any] = field(default_factory=dict)
    """Data, licences, metrics, training command, code version."""


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the checkpoint into a folder, replacing one that is there; each file appears whole."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"encoder.{key}": value for key, value in checkpoint.encoder.state_dict().items()}
    tensors |= {f"network.{key}": value for key, value in checkpoint.network.state_dict().items()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{WEIGHTS}.new")
    description = {
        "format": FORMAT,
        "name": checkpoint.name,
        "encoder": checkpoint.encoder_name,
        "network": dataclasses.asdict(checkpoint.network.shape),
        "preprocessing": preprocessing(checkpoint.encoder),
        "decoding": checkpoint.decoding,
        "notes": checkpoint.notes,
        "vocabulary": checkpoint.tokenizer.vocabulary,
    }
    (folder / f"{DESCRIPTION}.new").write_text(json.dumps(description, indent=1), encoding="utf-8")
    for name in (WEIGHTS, DESCRIPTION):
        (folder / f"{name}.new").replace(folder / name)


def preprocessing(encoder: GridEncoder) -> dict[str, Any]:
    """Say how pictures become the encoder's input."""
    return {"width": encoder.size, "height": encoder.size, "resample": "bicubic", "layout": "uint8 RGB NHWC"}


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint; raise ``CheckpointInvalid`` if it is missing, damaged or does not fit this code."""
    described = _description(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointInvalid(f"{folder / WEIGHTS} cannot be read: {error}") from error
    try:
        return _assemble(described, tensors)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointInvalid(f"{folder}: weights and description do not fit: {reason}") from error


def _description(folder: Path) -> dict[str, Any]:
    try:
        described: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointInvalid(f"{folder} is no checkpoint: {DESCRIPTION} cannot be read") from error
    except ValueError as error:
        raise CheckpointInvalid(f"{folder / DESCRIPTION} is not JSON") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise CheckpointInvalid(f"{folder / DESCRIPTION}: not of format {FORMAT}")
    if described.get("encoder") not in ENCODERS:
        raise CheckpointInvalid(f"{folder}: unknown encoder {described.get('encoder')!r}")
    return described


def _assemble(described: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Checkpoint:
    encoder = build_encoder(described["encoder"])
    network = CaptionNetwork(NetworkShape(**described["network"])).eval()
    tokenizer = Tokenizer(described["vocabulary"])
    if len(tokenizer) != network.shape.vocabulary:
        raise ValueError(f"{len(tokenizer)} words for {network.shape.vocabulary} embeddings")
    if described["preprocessing"] != preprocessing(encoder):
        raise ValueError("the preprocessing is not this encoder's")
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
