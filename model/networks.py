"""The caption networks that ship, and how a checkpoint describes them."""

from __future__ import annotations

import dataclasses
from typing import Any

from model.network import CaptionNetwork, NetworkShape
from model.options import MAX_LENGTH
from model.recurrent import RecurrentNetwork, RecurrentShape

Network = CaptionNetwork | RecurrentNetwork
Shape = NetworkShape | RecurrentShape


def build_network(shape: Shape, dropout: float = 0.0) -> Network:
    """Make a network of a shape with fresh weights."""
    if isinstance(shape, RecurrentShape):
        return RecurrentNetwork(shape, dropout)
    return CaptionNetwork(shape, dropout)


def describe_shape(shape: Shape) -> dict[str, Any]:
    """Return a shape as plain data, its kind included."""
    kind = "gru" if isinstance(shape, RecurrentShape) else "transformer"
    return {"kind": kind, **dataclasses.asdict(shape)}


def parse_shape(values: dict[str, Any]) -> Shape:
    """Read what ``describe_shape`` wrote; raises ``ValueError`` or ``TypeError`` on anything else."""
    sizes = dict(values)
    kind = sizes.pop("kind", "transformer")
    kinds: dict[str, type[Shape]] = {"gru": RecurrentShape, "transformer": NetworkShape}
    if kind not in kinds:
        raise ValueError(f"unknown kind of network {kind!r}")
    for name, value in sizes.items():
        # Sizes are read before the weights are: an absurd one must not fill the memory.
        if not isinstance(value, int) or not 0 <= value <= 1 << 20:
            raise ValueError(f"{name} of the network is {value!r}")
    shape = kinds[kind](**sizes)
    if shape.max_length < MAX_LENGTH:
        message = f"the network ends at {shape.max_length} words, and requests may ask for {MAX_LENGTH}"
        raise ValueError(message)
    return shape
