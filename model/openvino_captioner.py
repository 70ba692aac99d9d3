"""The captioner's CPU run time: the exported graphs on OpenVINO, without torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.artifact import Artifact
from model.beam_captioner import BeamCaptioner, Language, search_defaults
from model.captioner import Pixels
from model.decoding import Floats, Ids, NextWords
from model.errors import CheckpointInvalid, ModelOutOfMemory

if TYPE_CHECKING:
    import openvino as ov

_MICRO_BATCH = 8
"""Larger batches gain nothing in the encoder and cost memory."""
_MEMORY_WORDS = ("memory", "bad_alloc", "allocate")


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
        settings = _settings(core, cache_dir, threads, precision)
        self.device = f"cpu, {settings['INFERENCE_PRECISION_HINT']}"
        try:
            self._encoder, self._decoder = (
                core.compile_model(folder / f"{part}.xml", "CPU", settings).create_infer_request()
                for part in ("encoder", "decoder")
            )
        except RuntimeError as error:
            raise CheckpointInvalid(
                f"{folder}: OpenVINO cannot compile the graphs: {_line(error)}"
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
        (memory,) = _infer(self._encoder, [np.ascontiguousarray(images)])
        return np.array(memory, dtype=np.float32)

    def start(self, images: int, length: int) -> None:
        layers, _, heads, _, size = self._memory.shape
        self._past = self._pasts.next((length, layers, images, heads * size))
        self._said = 0

    def step(self, tokens: Ids) -> NextWords:
        position = np.array([self._said], dtype=np.int64)
        inputs = [np.ascontiguousarray(tokens), position, self._memory, self._past[: self._said]]
        scores, ids, end, new = _infer(self._decoder, inputs)
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


def _infer(request: ov.InferRequest, inputs: list[Any]) -> list[Any]:
    import openvino as ov

    for number, array in enumerate(inputs):
        request.set_input_tensor(number, ov.Tensor(array, shared_memory=True))
    _mark(request)
    try:
        request.infer()
    except RuntimeError as error:
        if any(word in str(error).lower() for word in _MEMORY_WORDS):
            raise ModelOutOfMemory(f"the batch does not fit into memory: {_line(error)}") from error
        raise
    found = [tensor.data for tensor in request.output_tensors]
    # OpenVINO's threads do not report that memory ran out: outputs stay empty or those of the call before.
    if any(not array.size or np.isnan(array.flat[-1]) for array in found):
        raise ModelOutOfMemory("the batch does not fit into memory")
    return found


def _mark(request: ov.InferRequest) -> None:
    for tensor in request.output_tensors:
        if tensor.size and tensor.data.dtype == np.float32:
            tensor.data.fill(np.nan)


def _settings(core: ov.Core, cache_dir: Path | None, threads: int | None, precision: str) -> dict[str, Any]:
    if precision == "auto":
        # Only CPUs with bfloat16 units gain from it; elsewhere it would be emulated or refused.
        fast = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        precision = "bf16" if fast else "f32"
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    if cache_dir is not None:
        cache_dir.mkdir(parents=True, exist_ok=True)
        settings["CACHE_DIR"] = str(cache_dir)
    return settings


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
