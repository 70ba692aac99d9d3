"""What generation says beside the words: log-probabilities of the chosen tokens, and chances to choose by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

CANDIDATES = 64
"""Likeliest tokens kept of every step: beam search of 5 beams and sampling choose among these."""


class Recorder:
    """A logits processor that changes nothing and keeps the likeliest tokens of every step.

    All scores of all steps, which transformers offers, would take gigabytes for large vocabularies.
    """

    def __init__(self) -> None:
        self.prompt_length = 0
        self._scores: list[Tensor] = []
        self._ids: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Record one step: tokens so far (rows, length), logits or log-probabilities (rows, vocabulary)."""
        if not self._ids:
            self.prompt_length = input_ids.shape[1]
        best = scores.float().log_softmax(-1).topk(min(CANDIDATES, scores.shape[-1]))
        self._scores.append(best.values)
        self._ids.append(best.indices)
        return scores

    def mean_scores(self, tokens: Tensor, rows: Tensor) -> list[float]:
        """Return the mean log-probability of each caption's tokens (captions, steps).

        ``rows`` says which row of the batch each token was chosen in, -1 after the end. A token that was
        never likely, or not a number, makes the score NaN.
        """
        steps = tokens.shape[1]
        at = (torch.arange(steps, device=tokens.device)[:, None], rows.T.clamp(min=0))
        matches = torch.stack(self._ids[:steps])[at] == tokens.T[:, :, None]
        chosen = torch.where(matches, torch.stack(self._scores[:steps])[at], 0.0).sum(-1)
        chosen = torch.where(matches.any(-1), chosen, torch.nan)
        said = rows.T >= 0
        total = torch.where(said, chosen, 0.0).sum(0) / said.sum(0).clamp(min=1)
        return [float(value) for value in total.cpu()]


class Drawn:
    """A logits processor that leaves one token, drawn from the nucleus (Holtzman et al., ICLR 2020).

    Every row has chances of its own, so what is generated beside it does not matter.
    """

    def __init__(self, seeds: Sequence[Sequence[int]], top_p: float, temperature: float) -> None:
        """Take one seed, of any number of parts, per row."""
        self._chances = [np.random.default_rng(seed) for seed in seeds]
        self._top_p, self._temperature = top_p, temperature

    def __call__(self, _input_ids: Tensor, scores: Tensor) -> Tensor:
        """Draw by the Gumbel trick and forbid every other token."""
        scaled = (scores.float() / self._temperature).log_softmax(-1)
        best = scaled.topk(min(CANDIDATES, scores.shape[-1]))
        chance = best.values.exp()
        outside = chance.cumsum(-1) - chance >= self._top_p
        noise = np.stack([one.gumbel(size=best.values.shape[1]) for one in self._chances])
        noisy = best.values + torch.as_tensor(noise, device=scores.device, dtype=torch.float32)
        place = noisy.masked_fill(outside, -torch.inf).argmax(-1, keepdim=True)
        drawn = torch.full_like(scores, -torch.inf)
        return drawn.scatter(1, best.indices.gather(1, place), 0.0)


def rows_until_end(tokens: Tensor, ends: Sequence[int]) -> Tensor:
    """Say for captions without beams which row each token is of: their own, -1 after the first end token."""
    ended = torch.isin(tokens, torch.tensor(list(ends), device=tokens.device)).long()
    after = ended.cumsum(-1) - ended > 0
    own = torch.arange(len(tokens), device=tokens.device)[:, None].expand_as(tokens)
    return own.masked_fill(after, -1)


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Return every token that ends a caption of this model."""
    parts = [model, *(getattr(model, name, None) for name in ("text_decoder", "language_model"))]
    configs = [getattr(part, "generation_config", None) for part in parts]
    configs += [model.config, getattr(model.config, "text_config", None)]
    found: set[int] = set()
    for config in (*configs, tokenizer):
        for name in ("eos_token_id", "sep_token_id"):
            value = getattr(config, name, None)
            found.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
    return sorted(found)
