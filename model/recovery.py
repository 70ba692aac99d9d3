"""From an exported artifact back to a checkpoint: the weights are read out of the graphs that use them.

So that a shipped model can be trained on without its weights lying in the repository twice. The weights are
those of the artifact, rounded to 16 bits; norms of the encoder come back folded into the convolutions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from model.artifact import Artifact
from model.checkpoint import Checkpoint
from model.encoder import EfficientNetLite0, build_encoder
from model.encoder_top import unfold
from model.errors import CheckpointInvalid
from model.network import CaptionNetwork, NetworkShape
from model.tokenizer import PAD, START, UNKNOWN, Tokenizer

if TYPE_CHECKING:
    import openvino as ov

_CONVOLUTION = {
    "bn0": ("expand_conv", "conv_stem"), "bn1": ("depthwise_conv", "conv_head"), "bn2": ("project_conv",)
}  # fmt: skip

Constants = dict[tuple[str, int], Tensor]
"""The constant that an operation reads, by the operation's name and the number of the input."""


def recover_checkpoint(artifact: Artifact) -> Checkpoint:
    """Rebuild the checkpoint that an artifact was exported from, else raise ``CheckpointInvalid``."""
    import openvino as ov

    described = artifact.description
    try:
        graphs = [ov.Core().read_model(artifact.folder / f"{part}.xml") for part in ("encoder", "decoder")]
        image, words = map(_constants, graphs)
        encoder = build_encoder(described["encoder"])
        if not isinstance(encoder, EfficientNetLite0):
            raise ValueError(f"its encoder {described['encoder']} is not kept in a form to train on")
        _fill_encoder(encoder, image)
        heads = graphs[1].input("memory").get_partial_shape()[2].get_length()
        network = _network(image | words, heads)
        vocabulary = Tokenizer(described["vocabulary"])
        licences = described.get("licences", {})
        notes = {"recovered_from": artifact.digest, "licences": licences, **described["notes"]}
        name = artifact.name
        decoding = described["decoding"]
    except (KeyError, ValueError, RuntimeError) as error:
        raise CheckpointInvalid(f"{artifact.folder} cannot be trained on: {error}") from error
    return Checkpoint(name, described["encoder"], encoder, network, vocabulary, decoding, notes)


def _constants(graph: ov.Model) -> Constants:
    found: Constants = {}
    for operation in graph.get_ordered_ops():
        for number in range(operation.get_input_size()):
            source: Any = operation.input_value(number).get_node()
            if source.get_type_name() == "Convert":
                source = source.input_value(0).get_node()
            if source.get_type_name() == "Constant" and operation.get_type_name() != "Convert":
                data = torch.from_numpy(np.array(source.get_data(), dtype=np.float32))
                found[operation.get_friendly_name(), number] = data
        if operation.get_type_name() == "Add":
            # A folded norm adds to its convolution, which has no name of its own.
            before = operation.input_value(0).get_node().get_friendly_name()
            if (before, 1) in found:
                found[operation.get_friendly_name(), 0] = found[before, 1]
    return found


def _fill_encoder(encoder: EfficientNetLite0, constants: Constants) -> None:
    for name, norm in encoder.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            owner, _, last = name.rpartition(".")
            block = encoder.get_submodule(owner)
            conv = next(getattr(block, c) for c in _CONVOLUTION[last] if hasattr(block, c))
            use = f"__module.encoder.{name}/aten::batch_norm/BatchNormInference"
            unfold(constants[use, 0], constants[use, 1], conv, norm)


def _network(constants: Constants, heads: int) -> CaptionNetwork:
    weights = dict(_weights(constants))
    layers = {kind: _layers(weights, kind) for kind in ("encoder", "decoder")}
    vocabulary, width = weights["embed.weight"].shape
    positions = len(weights["grid_place"])
    shape = NetworkShape(
        vocabulary,
        positions,
        weights["project.weight"].shape[1],
        width,
        heads,
        weights["decoder.0.feedforward.rise.bias"].shape[0],
        layers["encoder"],
        layers["decoder"],
        len(weights["place"]) - 1,
    )
    network = CaptionNetwork(shape).eval()
    network.load_state_dict(weights)
    return network


def _weights(constants: Constants) -> Iterator[tuple[str, Tensor]]:
    kinds = {
        ("linear/MatMul", 1): "weight", ("linear/Add", 1): "bias", ("layer_norm/Multiply_1", 1): "weight",
        ("layer_norm/Add", 1): "bias", ("embedding/Gather", 0): "weight",
    }  # fmt: skip
    for (use, number), value in constants.items():
        matched = re.fullmatch(r"__module\.network\.(.+)/aten::(.+)", use)
        kind = kinds.get((matched[2], number)) if matched else None
        if matched and kind:
            yield f"{matched[1]}.{kind}", value.flatten() if kind == "bias" or "norm" in matched[2] else value
    width = constants["__module.network.embed/aten::embedding/Gather", 0].shape[1]
    # The exporter adds up what is added in a row: the projection's bias and the grid's places.
    yield "project.bias", torch.zeros(width)
    yield "grid_place", constants["aten::add/Add", 1][0]
    yield "place", constants["aten::index/Gather", 0]
    yield "bias", _word_bias(constants)


def _word_bias(constants: Constants) -> Tensor:
    vocabulary = len(constants["__module.network.embed/aten::embedding/Gather", 0])
    uses = [
        v for (use, n), v in constants.items() if use.startswith("aten::add/Add") and v.numel() == vocabulary
    ]
    bias = uses[-1].flatten().clone()
    bias[[PAD, START, UNKNOWN]] = 0  # what keeps these from being said is added to it in the graph
    return bias


def _layers(weights: dict[str, Tensor], kind: str) -> int:
    return len({name.split(".")[1] for name in weights if name.startswith(f"{kind}.")})
