"""OpenVINO on a CPU: how graphs are compiled and run, and how it is seen that memory ran out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.errors import ModelOutOfMemory

if TYPE_CHECKING:
    import openvino as ov

_MEMORY_WORDS = ("memory", "bad_alloc", "allocate")


def infer(request: ov.InferRequest, inputs: list[Any]) -> list[Any]:
    """Run a graph on arrays; return its outputs, which the next call overwrites.

    Raises ``ModelOutOfMemory`` where the batch does not fit.
    """
    import openvino as ov

    for number, array in enumerate(inputs):
        request.set_input_tensor(number, ov.Tensor(array, shared_memory=True))
    _mark(request)
    try:
        request.infer()
    except RuntimeError as error:
        if any(word in str(error).lower() for word in _MEMORY_WORDS):
            raise ModelOutOfMemory(f"the batch does not fit into memory: {one_line(error)}") from error
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


def cpu_settings(
    core: ov.Core, cache_dir: Path | None, threads: int | None, precision: str
) -> dict[str, Any]:
    """Return how to compile for this CPU; ``precision`` auto: bf16 where the CPU has units for it."""
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


def one_line(error: BaseException) -> str:
    """Return an error's words in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]
