"""The caption network: a transformer decoder (Vaswani et al., 2017; pre-norm) over grid features.

Training runs over packed tokens: linear layers see only real tokens, attention sees padded blocks. Decoding
runs ``step`` with a cache of keys and values; both share all weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.tokenizer import END, PAD, START, UNKNOWN


@dataclass(frozen=True)
class NetworkShape:
    """Sizes that determine the weights; stored in every checkpoint."""

    vocabulary: int
    positions: int = 49
    channels: int = 1280
    width: int = 256
    heads: int = 4
    feedforward: int = 1024
    encoder_layers: int = 1
    decoder_layers: int = 3
    max_length: int = 50


class PooledDropout(nn.Module):
    """Dropout that cuts its masks from a pool at a random offset; drawing fresh masks costs more on a CPU."""

    pool_size = 1 << 23

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.pool: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Zero a share ``rate`` of the elements while training and scale the rest up."""
        if not self.training or self.rate == 0:
            return x
        if 2 * x.numel() > self.pool_size:
            return nn.functional.dropout(x, self.rate)
        if self.pool is None or self.pool.device != x.device:
            kept = torch.full((self.pool_size,), 1 - self.rate, device=x.device)
            self.pool = torch.bernoulli(kept) / (1 - self.rate)
        offset = int(torch.randint(self.pool_size - x.numel(), ()))
        return x * self.pool[offset : offset + x.numel()].view(x.shape)


def attend(query: Tensor, key: Tensor, value: Tensor, size: int, blocked: Tensor | None = None) -> Tensor:
    """Plain attention over (n, heads, length, size); ``blocked`` is added to the scores."""
    scores = query @ key.transpose(-1, -2) * size**-0.5
    if blocked is not None:
        scores = scores + blocked
    mixed: Tensor = scores.softmax(-1) @ value
    return mixed


class FeedForward(nn.Module):
    """The two-layer perceptron of a transformer block, with its norm."""

    def __init__(self, width: int, inner: int, dropout: PooledDropout) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.rise, self.fall = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's output to x."""
        added: Tensor = self.dropout(self.fall(torch.relu(self.rise(self.norm(x)))))
        return x + added


class EncoderLayer(nn.Module):
    """Self-attention among the grid positions of an image, then a feed-forward block."""

    def __init__(self, shape: NetworkShape, dropout: PooledDropout) -> None:
        super().__init__()
        self.heads, self.size, self.dropout = shape.heads, shape.width // shape.heads, dropout
        self.norm = nn.LayerNorm(shape.width)
        self.joint, self.out = nn.Linear(shape.width, 3 * shape.width), nn.Linear(shape.width, shape.width)
        self.feedforward = FeedForward(shape.width, shape.feedforward, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, positions, width) to the same shape."""
        n, positions, width = x.shape
        joint = self.joint(self.norm(x)).view(n, positions, 3, self.heads, self.size)
        query, key, value = joint.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(query, key, value, self.size).transpose(1, 2).reshape(n, positions, width)
        return self.feedforward(x + self.dropout(self.out(mixed)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Packing:
    """Where packed tokens lie in padded (images, captions, length) blocks."""

    images: int
    captions: int
    length: int
    index: Tensor
    """Flat position of each real token in the padded block, int64 (tokens,)."""
    causal: Tensor
    """Added to self-attention scores, (length, length)."""

    def spread(self, x: Tensor) -> Tensor:
        """Scatter (tokens, width) into zeros of (images * captions * length, width)."""
        block = x.new_zeros(self.images * self.captions * self.length, x.shape[-1])
        return block.index_copy(0, self.index, x)


class DecoderLayer(nn.Module):
    """Self-attention over the caption so far, attention over the image, then a feed-forward block."""

    def __init__(self, shape: NetworkShape, dropout: PooledDropout) -> None:
        super().__init__()
        width = shape.width
        self.heads, self.size, self.dropout = shape.heads, width // shape.heads, dropout
        self.norm, self.joint, self.out = (
            nn.LayerNorm(width),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )
        self.cross_norm, self.cross_query = nn.LayerNorm(width), nn.Linear(width, width)
        self.cross_joint, self.cross_out = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.feedforward = FeedForward(width, shape.feedforward, dropout)

    def memory(self, grid: Tensor) -> Tensor:
        """Map the grid (n, positions, width) to keys and values (2, n, heads, positions, size)."""
        n, positions, _ = grid.shape
        joint: Tensor = self.cross_joint(grid).view(n, positions, 2, self.heads, self.size)
        return joint.permute(2, 0, 3, 1, 4)

    def forward(self, x: Tensor, grid: Tensor, packing: Packing) -> Tensor:
        """Map packed tokens (tokens, width) to the same shape."""
        rows, width = packing.images * packing.captions, x.shape[-1]
        joint = packing.spread(self.joint(self.norm(x))).view(rows, packing.length, 3, self.heads, self.size)
        query, key, value = joint.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(query, key, value, self.size, packing.causal).transpose(1, 2).reshape(-1, width)
        x = x + self.dropout(self.out(mixed[packing.index]))
        query = packing.spread(self.cross_query(self.cross_norm(x)))
        query = query.view(packing.images, -1, self.heads, self.size).transpose(1, 2)
        key, value = self.memory(grid).unbind(0)
        mixed = attend(query, key, value, self.size).transpose(1, 2).reshape(-1, width)
        x = x + self.dropout(self.cross_out(mixed[packing.index]))
        return self.feedforward(x)  # type: ignore[no-any-return]

    def step(self, x: Tensor, memory: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Advance one token: x (images, beams, width), past (t, 2, rows, width); also the new key, value."""
        images, beams, width = x.shape
        query, key, value = self.joint(self.norm(x)).view(-1, 3, width).unbind(1)
        new = torch.stack([key, value])
        both = torch.cat([past, new.unsqueeze(0)]).view(-1, 2, images * beams, self.heads, self.size)
        # One query per row: products and sums are quicker here than matrix products over transposed keys.
        scores = (both[:, 0] * query.view(-1, self.heads, self.size)).sum(-1, keepdim=True) * self.size**-0.5
        mixed = (scores.softmax(0) * both[:, 1]).sum(0).view(images, beams, width)
        x = x + self.out(mixed)
        query = (
            self.cross_query(self.cross_norm(x)).view(images, beams, self.heads, self.size).transpose(1, 2)
        )
        mixed = attend(query, memory[0], memory[1], self.size).transpose(1, 2).reshape(images, beams, width)
        x = x + self.cross_out(mixed)
        return self.feedforward(x), new


class CaptionNetwork(nn.Module):
    """Grid features to word scores; input and output embeddings share their weights."""

    def __init__(self, shape: NetworkShape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.dropout = PooledDropout(dropout)
        self.project = nn.Linear(shape.channels, shape.width)
        self.grid_place = nn.Parameter(torch.zeros(shape.positions, shape.width))
        self.encoder = nn.ModuleList(EncoderLayer(shape, self.dropout) for _ in range(shape.encoder_layers))
        self.grid_norm = nn.LayerNorm(shape.width)
        self.embed = nn.Embedding(shape.vocabulary, shape.width)
        self.place = nn.Parameter(torch.zeros(shape.max_length + 1, shape.width))
        self.decoder = nn.ModuleList(DecoderLayer(shape, self.dropout) for _ in range(shape.decoder_layers))
        self.norm = nn.LayerNorm(shape.width)
        self.bias = nn.Parameter(torch.zeros(shape.vocabulary))
        banned = torch.zeros(shape.vocabulary)
        banned[[PAD, START, UNKNOWN]] = -1e9
        self.register_buffer("banned", banned, persistent=False)
        self.banned: Tensor
        for weight in (self.embed.weight, self.grid_place, self.place):
            nn.init.normal_(weight, std=0.02)

    def grid(self, features: Tensor) -> Tensor:
        """Map features (n, positions, channels) to the grid (n, positions, width) for decoding."""
        x = self.dropout(self.project(features)) + self.grid_place
        for layer in self.encoder:
            x = layer(x)
        return self.grid_norm(x)  # type: ignore[no-any-return]

    def memory(self, features: Tensor) -> Tensor:
        """Keys and values of every decoder layer for an image: (2 * layers, n, heads, positions, size)."""
        grid = self.grid(features)
        return torch.cat([layer.memory(grid) for layer in self.decoder])  # type: ignore[operator]

    def _scores(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.norm(x), self.embed.weight, self.bias)

    def forward(self, grid: Tensor, tokens: Tensor, packing: Packing) -> Tensor:
        """Map packed input tokens (tokens,) to unnormalised scores of the next word (tokens, vocabulary)."""
        place = self.place[packing.index % packing.length]
        x = self.dropout(self.embed(tokens) + place)
        for layer in self.decoder:
            x = layer(x, grid, packing)
        return self._scores(x)

    def step(self, tokens: Tensor, position: Tensor, memory: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Score the next word of every beam.

        tokens (images, beams); position (1,); memory of ``memory``; past (t, 2 * layers, rows, width);
        rows are images times beams.
        Returns log-probabilities (images, beams, vocabulary), new keys and values (2 * layers, rows, width).
        """
        x = self.embed(tokens) + self.place[position]
        new = []
        for number, layer in enumerate(self.decoder):
            part = slice(2 * number, 2 * number + 2)
            x, added = layer.step(x, memory[part], past[:, part])  # type: ignore[operator]
            new.append(added)
        return (self._scores(x) + self.banned).log_softmax(-1), torch.cat(new)


def pack(
    captions: list[list[list[int]]], limit: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor, Packing]:
    """Pack token ids per image and caption into inputs (with start), targets (with end) and their places.

    Every image has the same number of captions; targets are cut after ``limit`` tokens.
    """
    flat = [caption for image in captions for caption in image]
    targets = [[*caption, END][: max(limit, 1)] for caption in flat]
    inputs = [[START, *target[:-1]] for target in targets]
    length = max(map(len, inputs))
    index = [row * length + place for row, tokens in enumerate(inputs) for place in range(len(tokens))]
    causal = torch.full((length, length), -1e9).triu(1)
    place = torch.tensor(index, device=device)
    packing = Packing(len(captions), len(captions[0]), length, place, causal.to(device))
    return _joined(inputs).to(device), _joined(targets).to(device), packing


def _joined(rows: list[list[int]]) -> Tensor:
    return torch.tensor([token for row in rows for token in row])
