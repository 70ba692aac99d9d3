"""The recurrent caption network: two GRUs over grid features, the first one looking, the second one speaking.

Top-down attention (Anderson et al., CVPR 2018) with gated recurrent units (Cho et al., EMNLP 2014). Without
attention the grid is pooled to one vector, as captioners did before. It trains and decodes through the same
calls as ``CaptionNetwork``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.network import Packing, PooledDropout, attend
from model.tokenizer import PAD, START, UNKNOWN


@dataclass(frozen=True)
class RecurrentShape:
    """Sizes that determine the weights; stored in every checkpoint."""

    vocabulary: int
    positions: int
    channels: int
    width: int = 512
    attends: bool = True
    max_length: int = 50


class GatedUnit(nn.Module):
    """One step of a gated recurrent unit; plain products, so that it exports to any run time."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.read, self.keep = nn.Linear(inputs, 3 * width), nn.Linear(width, 3 * width)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """Map input (..., inputs) and state (..., width) to the next state."""
        new_reset, new_update, new = self.read(x).chunk(3, -1)
        old_reset, old_update, old = self.keep(state).chunk(3, -1)
        update = torch.sigmoid(new_update + old_update)
        proposed = torch.tanh(new + torch.sigmoid(new_reset + old_reset) * old)
        return proposed + update * (state - proposed)


class RecurrentNetwork(nn.Module):
    """Grid features to word scores; input and output embeddings share their weights."""

    def __init__(self, shape: RecurrentShape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.dropout = PooledDropout(dropout)
        self.project, self.grid_norm = nn.Linear(shape.channels, width), nn.LayerNorm(width)
        self.key, self.query = nn.Linear(width, width), nn.Linear(width, width)
        self.embed = nn.Embedding(shape.vocabulary, width)
        self.place = nn.Parameter(torch.zeros(shape.max_length + 1, width))
        self.look, self.speak = GatedUnit(3 * width, width), GatedUnit(2 * width, width)
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(shape.vocabulary))
        banned = torch.zeros(shape.vocabulary)
        banned[[PAD, START, UNKNOWN]] = -1e9
        self.register_buffer("banned", banned, persistent=False)
        self.banned: Tensor
        nn.init.normal_(self.embed.weight, std=width**-0.5)

    def grid(self, features: Tensor) -> Tensor:
        """Map features (n, positions, channels) to the grid (n, positions or 1, width) for decoding."""
        seen = features if self.shape.attends else features.mean(1, keepdim=True)
        found: Tensor = self.grid_norm(self.dropout(self.project(seen)))
        return found

    def memory(self, features: Tensor) -> Tensor:
        """Keys and values of the grid: (2, n, 1, positions or 1, width)."""
        return self._memory(self.grid(features))

    def _memory(self, grid: Tensor) -> Tensor:
        return torch.stack([self.key(grid), grid]).unsqueeze(2)

    def _advance(self, x: Tensor, memory: Tensor, looked: Tensor, spoke: Tensor) -> tuple[Tensor, Tensor]:
        """Advance one token: all of (images, captions, width)."""
        overall = memory[1].mean(2).expand_as(x)
        looked = self.look(torch.cat([spoke, overall, x], -1), looked)
        query = self.query(looked).unsqueeze(1)
        seen = attend(query, memory[0], memory[1], self.shape.width).squeeze(1)
        return looked, self.speak(torch.cat([seen, looked], -1), spoke)

    def _scores(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.norm(x), self.embed.weight, self.bias)

    def forward(self, grid: Tensor, tokens: Tensor, packing: Packing) -> Tensor:
        """Map packed input tokens (tokens,) to unnormalised scores of the next word (tokens, vocabulary)."""
        words = packing.spread(self.embed(tokens)).view(packing.images, packing.captions, packing.length, -1)
        words = self.dropout(words + self.place[: packing.length])
        memory = self._memory(grid)
        looked = spoke = words.new_zeros(packing.images, packing.captions, self.shape.width)
        said = []
        for place in range(packing.length):
            looked, spoke = self._advance(words[:, :, place], memory, looked, spoke)
            said.append(spoke)
        flat = torch.stack(said, 2).flatten(0, 2)[packing.index]
        return self._scores(self.dropout(flat))

    def step(self, tokens: Tensor, position: Tensor, memory: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Score the next word of every beam.

        tokens (images, beams); position (1,); memory of ``memory``; past (t, 2, rows, width), of which the
        last two states count; rows are images times beams.
        Returns log-probabilities (images, beams, vocabulary) and the new states (2, rows, width).
        """
        x = self.embed(tokens) + self.place[position]
        begin = torch.zeros_like(x).flatten(0, 1).expand(1, 2, -1, -1)
        looked, spoke = torch.cat([begin, past])[-1].view(2, *x.shape).unbind(0)
        looked, spoke = self._advance(x, memory, looked, spoke)
        scores = (self._scores(spoke) + self.banned).log_softmax(-1)
        return scores, torch.stack([looked, spoke]).flatten(1, 2)
