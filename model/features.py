"""Encoder features of a photo collection, computed once into a memory-mapped file, resumable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.captioner import Pixels, Preprocessing
from model.encoder import load_pretrained
from model.encoder_base import GridEncoder
from model.errors import ImageError, TrainingError
from model.graphs import encoder_graph
from model.images import read_image

Features = NDArray[np.float16]
MAX_PIXELS = 50_000_000
_MICRO_BATCH = 8
Encode = Callable[[Pixels], NDArray[np.float32]]


def feature_table(
    images: Path,
    names: Sequence[str],
    encoder_name: str,
    folder: Path,
    *,
    flipped: bool,
    on_progress: Callable[[int, int], None],
) -> Features:
    """Return fp16 features (images, views, positions, channels), read-only; views are plain and mirrored."""
    encoder = load_pretrained(encoder_name)
    folder.mkdir(parents=True, exist_ok=True)
    shape = (len(names), 2 if flipped else 1, encoder.positions, encoder.channels)
    table, progress = folder / "features.npy", folder / "features.json"
    identity = _identity(names, encoder_name, shape)
    done = _rows_done(table, progress, identity)
    if done == 0:
        np.lib.format.open_memmap(table, mode="w+", dtype=np.float16, shape=shape).flush()
    if done < len(names):
        paths = [images / name for name in names]
        _fill(table, progress, identity, encoder, paths, done, on_progress)
    found: Features = np.load(table, mmap_mode="r")
    return found


def _identity(names: Sequence[str], encoder_name: str, shape: tuple[int, ...]) -> str:
    text = json.dumps([list(names), encoder_name, shape])
    return hashlib.sha256(text.encode()).hexdigest()


def _rows_done(table: Path, progress: Path, identity: str) -> int:
    if not (table.exists() and progress.exists()):
        return 0
    state = json.loads(progress.read_text())
    return int(state["rows"]) if state["identity"] == identity else 0


def _fill(
    table: Path,
    progress: Path,
    identity: str,
    encoder: GridEncoder,
    paths: list[Path],
    done: int,
    on_progress: Callable[[int, int], None],
) -> None:
    rows = np.lib.format.open_memmap(table, mode="r+")
    encode: Encode | None = None  # compiled once the first photos could be read
    for start in range(done, len(paths), _MICRO_BATCH):
        batch = paths[start : start + _MICRO_BATCH]
        pixels = np.stack([_read(path, encoder.size) for path in batch])
        encode = encode or compiled_encoder(encoder)
        for view in range(rows.shape[1]):
            rows[start : start + len(batch), view] = encode(pixels[:, :, ::-1] if view else pixels)
        finished = start + len(batch)
        if finished == len(paths) or start // _MICRO_BATCH % 32 == 31:
            rows.flush()
            progress.write_text(json.dumps({"identity": identity, "rows": finished}))
        on_progress(finished, len(paths))


def compiled_encoder(encoder: GridEncoder) -> Encode:
    """Compile the encoder for this CPU, three times faster than torch; (n, size, size, 3) to float32."""
    import openvino as ov

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = ov.Core().compile_model(encoder_graph(encoder), "CPU", settings)
    return lambda pixels: compiled([np.ascontiguousarray(pixels)])[0]


def _read(path: Path, size: int) -> Pixels:
    try:
        return read_image(path.read_bytes(), Preprocessing(size, size), MAX_PIXELS).pixels
    except ImageError as error:
        raise TrainingError(f"{path}: {error}") from error
