"""Drawing captions from the torch network, as training needs them: greedy for dev, sampled for rewards."""

from __future__ import annotations

import torch
from torch import Tensor

from model.networks import Network
from model.tokenizer import END, START


@torch.no_grad()
def draw(
    network: Network,
    features: Tensor,
    samples: int,
    length: int,
    temperature: float | None,
    generator: torch.Generator | None = None,
) -> list[list[list[int]]]:
    """Draw ``samples`` captions per image, greedy without a temperature; at most ``length`` tokens."""
    memory = network.memory(features)
    images, rows = len(features), len(features) * samples
    past = memory.new_zeros(length, len(memory), rows, network.shape.width)
    tokens = torch.full((images, samples), START, device=features.device)
    drawn: list[Tensor] = []
    alive = torch.ones_like(tokens, dtype=torch.bool)
    for place in range(length):
        position = torch.tensor([place], device=features.device)
        scores, past[place] = network.step(tokens, position, memory, past[:place])
        tokens = _choose(scores, temperature, generator)
        drawn.append(torch.where(alive, tokens, END))
        alive &= tokens != END
        if not alive.any():
            break
    return [[_until_end(row) for row in image] for image in torch.stack(drawn, -1).tolist()]


def _choose(scores: Tensor, temperature: float | None, generator: torch.Generator | None) -> Tensor:
    if temperature is None:
        return scores.argmax(-1)
    # By the inverse of the distribution function: torch.multinomial draws a number for every word instead.
    sums = (scores / temperature).softmax(-1).cumsum(-1)
    drawn = torch.rand((*sums.shape[:-1], 1), device=sums.device, generator=generator) * sums[..., -1:]
    return torch.searchsorted(sums, drawn, right=True).squeeze(-1).clamp_(max=sums.shape[-1] - 1)


def _until_end(row: list[int]) -> list[int]:
    return row[: row.index(END)] if END in row else row
