"""The captioner on torch, for checkpoints: evaluation in training, GPUs, parity with the exported graphs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from model.beam_captioner import BeamCaptioner, Language, search_defaults
from model.captioner import Pixels, Preprocessing
from model.checkpoint import DESCRIPTION, WEIGHTS, Checkpoint, load_checkpoint
from model.decoding import Ids, NextWords
from model.device_memory import memory_errors
from model.english import FUNCTION_WORDS, UNFINISHED_ENDS
from model.errors import CheckpointInvalid
from model.graphs import NextWords as NextWordsModule

_MICRO_BATCH = 8


def load_torch(folder: Path, device: str, threads: int | None) -> BeamCaptioner:
    """Load a training checkpoint onto a device ("cpu", "cuda", "cuda:1")."""
    checkpoint = load_checkpoint(folder)
    if threads is not None:
        torch.set_num_threads(threads)
    digest = hashlib.sha256()
    for name in (DESCRIPTION, WEIGHTS):
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return torch_captioner(checkpoint, digest.hexdigest(), device)


def torch_captioner(checkpoint: Checkpoint, digest: str, device: str) -> BeamCaptioner:
    """Make a captioner of a checkpoint in memory."""
    try:
        model = _TorchModel(checkpoint, torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise CheckpointInvalid(f"the device {device!r} cannot be used: {error}") from error
    language = Language.of(list(checkpoint.tokenizer.vocabulary), list(FUNCTION_WORDS), list(UNFINISHED_ENDS))
    preprocessing = Preprocessing(checkpoint.encoder.size, checkpoint.encoder.size)
    defaults = search_defaults(checkpoint.decoding)
    return BeamCaptioner(checkpoint.name, digest, device, preprocessing, language, defaults, model)


class _TorchModel:
    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self._device = device
        self._encoder = checkpoint.encoder.to(device).eval()
        self._network = checkpoint.network.to(device).eval()
        self._next = NextWordsModule(self._network)
        self._memory = self._past = torch.empty(0)
        self._said = 0

    @memory_errors()
    @torch.inference_mode()
    def see(self, images: Pixels) -> None:
        # The last batch's are in the way of this one's, all the more if they did not fit.
        self._memory = self._past = torch.empty(0)
        parts = [self._encode(images[at : at + _MICRO_BATCH]) for at in range(0, len(images), _MICRO_BATCH)]
        self._memory = torch.cat(parts, 1)

    def _encode(self, images: Pixels) -> Tensor:
        pixels = torch.tensor(images).to(self._device)
        return self._network.memory(self._encoder(pixels))

    @memory_errors()
    def start(self, images: int, length: int) -> None:
        self._past = self._memory.new_zeros(length, len(self._memory), images, self._network.shape.width)
        self._said = 0

    @memory_errors()
    @torch.inference_mode()
    def step(self, tokens: Ids) -> NextWords:
        position = torch.tensor([self._said], device=self._device)
        given = torch.tensor(tokens).to(self._device)
        scores, ids, end, new = self._next(given, position, self._memory, self._past[: self._said])
        self._past[self._said] = new
        self._said += 1
        return NextWords(scores.cpu().numpy(), ids.long().cpu().numpy(), end.cpu().numpy())

    @memory_errors()
    @torch.inference_mode()
    def reorder(self, images: Ids, parents: Ids) -> None:
        kept = torch.tensor(images).to(self._device)
        beams = self._past.shape[2] // self._memory.shape[1]
        rows = (kept[:, None] * beams + torch.tensor(parents).to(self._device)).flatten()
        self._memory, self._past = self._memory[:, kept], self._past[:, :, rows]
