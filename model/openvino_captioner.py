"""The captioner's CPU run time: the exported graphs on OpenVINO, without torch."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from model.artifact import Artifact
from model.beam_captioner import BeamCaptioner, Language, search_defaults
from model.captioner import Pixels
from model.cpu_runtime import cpu_settings, infer, one_line
from model.decoding import Floats, Ids, NextWords
from model.errors import CheckpointInvalid

_MICRO_BATCH = 8
"""Larger batches gain nothing in the encoder and cost memory."""


def load_openvino(
    artifact: Artifact, cache_dir: Path | None, threads: int | None, precision: str = "auto"
) -> BeamCaptioner:
    """Compile an artifact for this machine's CPU; a cache folder makes the next start quicker.

    ``precision`` is f32, bf16 or auto: bf16 where the CPU has units for it. The captioner's device says it.
    """
    description = artifact.description
    try:
        language = Language.of(
            description["vocabulary"], description["function_words"], description["unfinished_ends"]
        )
        defaults = search_defaults(description["decoding"])
        name, preprocessing = artifact.name, artifact.preprocessing
    except (KeyError, TypeError) as error:
        raise CheckpointInvalid(f"{artifact.folder}: captioner.json lacks or garbles {error}") from error
    model = _OpenVinoModel(artifact.folder, cache_dir, threads, precision)
    return BeamCaptioner(name, artifact.digest, model.device, preprocessing, language, defaults, model)


class _OpenVinoModel:
    def __init__(self, folder: Path, cache_dir: Path | None, threads: int | None, precision: str) -> None:
        import openvino as ov

        core = ov.Core()
        settings = cpu_settings(core, cache_dir, threads, precision)
        self.device = f"cpu, {settings['INFERENCE_PRECISION_HINT']}"
        try:
            self._encoder, self._decoder = (
                core.compile_model(folder / f"{part}.xml", "CPU", settings).create_infer_request()
                for part in ("encoder", "decoder")
            )
        except RuntimeError as error:
            raise CheckpointInvalid(
                f"{folder}: OpenVINO cannot compile the graphs: {one_line(error)}"
            ) from error
        self._memory = np.zeros((0, 0, 0, 0, 0), dtype=np.float32)
        self._past = np.zeros((0, 0, 0, 0), dtype=np.float32)
        self._memories, self._pasts = _Buffers(), _Buffers()
        self._said = 0

    def see(self, images: Pixels) -> None:
        parts = [self._encode(images[at : at + _MICRO_BATCH]) for at in range(0, len(images), _MICRO_BATCH)]
        self._memory = parts[0]
        if len(parts) > 1:
            layers, _, *rest = parts[0].shape
            self._memory = self._memories.next((layers, len(images), *rest))
            np.concatenate(parts, 1, out=self._memory)

    def _encode(self, images: Pixels) -> Floats:
        (memory,) = infer(self._encoder, [np.ascontiguousarray(images)])
        return np.array(memory, dtype=np.float32)

    def start(self, images: int, length: int) -> None:
        layers, _, heads, _, size = self._memory.shape
        self._past = self._pasts.next((length, layers, images, heads * size))
        self._said = 0

    def step(self, tokens: Ids) -> NextWords:
        position = np.array([self._said], dtype=np.int64)
        inputs = [np.ascontiguousarray(tokens), position, self._memory, self._past[: self._said]]
        scores, ids, end, new = infer(self._decoder, inputs)
        self._past[self._said] = new
        self._said += 1
        return NextWords(scores, ids.astype(np.int64), end)

    def reorder(self, images: Ids, parents: Ids) -> None:
        kept = self._memory.shape[1]
        beams = self._past.shape[2] // kept
        rows = (images[:, None] * beams + parents).ravel()
        if len(images) < kept:
            self._memory = self._memories.taken(self._memory, images, 1, len(self._memory))
        if len(rows) != self._past.shape[2] or (rows != np.arange(len(rows))).any():
            self._past = self._pasts.taken(self._past, rows, 2, self._said)


class _Buffers:
    """Two blocks of memory that take turns: fresh memory for every step would cost more than the copying."""

    def __init__(self) -> None:
        self._blocks = [np.zeros(0, dtype=np.float32) for _ in range(2)]

    def next(self, shape: tuple[int, ...]) -> Floats:
        """Return an array that does not overlap the one before; what it holds is left over."""
        self._blocks.reverse()
        size = math.prod(shape)
        if self._blocks[0].size < size:
            self._blocks[0] = np.zeros(size, dtype=np.float32)
        return self._blocks[0][:size].reshape(shape)

    def taken(self, array: Floats, chosen: Ids, axis: int, count: int) -> Floats:
        """Copy the ``chosen`` slices along ``axis`` of an array's first ``count`` entries."""
        fresh = self.next((*array.shape[:axis], len(chosen), *array.shape[axis + 1 :]))
        # Without "clip" NumPy writes into a buffer of its own first.
        np.take(array[:count], chosen, axis, out=fresh[:count], mode="clip")
        return fresh
