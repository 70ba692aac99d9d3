"""What the encoder makes of a photo collection, computed once into a memory-mapped file, resumable."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.augmentation import view
from model.captioner import Pixels, Preprocessing
from model.dataset import CaptionedImage
from model.disk import reserve
from model.encoder_base import GridEncoder, weights_digest
from model.errors import ImageError, TrainingError
from model.graphs import encoder_graph, trunk_graph
from model.images import read_image

Cache = NDArray[np.float16]
"""(views, photos, …): the features, or what the encoder's trunk makes of the pictures."""
MAX_PIXELS = 50_000_000
_MICRO_BATCH = 8
_SAVED_EVERY = 32
Encode = Callable[[Pixels], NDArray[np.float32]]


@dataclass(frozen=True)
class _Plan:
    """All that determines the file: the photos, the encoder, what is kept of it, how many views."""

    images: Path
    photos: Sequence[CaptionedImage]
    encoder: GridEncoder
    encoder_name: str
    kind: str
    views: int

    @property
    def shape(self) -> tuple[int, ...]:
        inner: tuple[int, ...] = (self.encoder.positions, self.encoder.channels)
        if self.kind == "trunk":
            inner = self.encoder.trunk_shape
        return (self.views, len(self.photos), *inner)

    def identity(self) -> str:
        names = [(photo.name, photo.split) for photo in self.photos]
        text = json.dumps([names, self.encoder_name, self.kind, self.shape, weights_digest(self.encoder)])
        return hashlib.sha256(text.encode()).hexdigest()

    def batches(self) -> list[tuple[int, list[int]]]:
        """Return (view, photos) in the order of computing; only training sees other views than the plain."""
        every = list(range(len(self.photos)))
        train = [number for number in every if self.photos[number].split == "train"]
        return [
            (number, wanted[at : at + _MICRO_BATCH])
            for number in range(self.views)
            for wanted in (train if number else every,)
            for at in range(0, len(wanted), _MICRO_BATCH)
        ]


def image_cache(
    images: Path,
    photos: Sequence[CaptionedImage],
    encoder: GridEncoder,
    encoder_name: str,
    folder: Path,
    *,
    kind: str,
    views: int,
    on_progress: Callable[[int, int], None],
    device: str = "cpu",
) -> Cache:
    """Return fp16 tensors of all photos, read-only; ``kind`` is "features" or "trunk".

    A GPU as ``device`` computes them with torch, the CPU with OpenVINO, which is three times faster there.
    Views other than the first, plain one exist of train photos only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plan = _Plan(images, photos, encoder, encoder_name, kind, views)
    table, progress = folder / "features.npy", folder / "features.json"
    identity = plan.identity()
    done = _batches_done(table, progress, identity)
    if done == 0:
        # Before the old table goes: a kill in between must not leave a note that vouches for an empty one.
        _note(progress, {"identity": identity, "batches": 0})
        np.lib.format.open_memmap(table, mode="w+", dtype=np.float16, shape=plan.shape).flush()
        reserve(table, table.stat().st_size)
    for finished, total in _fill(plan, table, progress, identity, done, device):
        on_progress(finished, total)
    found: Cache = np.load(table, mmap_mode="r")
    return found


def _batches_done(table: Path, progress: Path, identity: str) -> int:
    if not (table.exists() and progress.exists()):
        return 0
    state = json.loads(progress.read_text(encoding="utf-8"))
    return int(state["batches"]) if state["identity"] == identity else 0


def _note(progress: Path, state: dict[str, Any]) -> None:
    fresh = progress.with_suffix(".new")
    fresh.write_text(json.dumps(state))
    fresh.replace(progress)  # a kill leaves the old file or the new one


def _fill(
    plan: _Plan, table: Path, progress: Path, identity: str, done: int, device: str
) -> Iterator[tuple[int, int]]:
    batches = plan.batches()
    if done == len(batches):
        return
    rows = np.lib.format.open_memmap(table, mode="r+")
    encode: Encode | None = None  # compiled once the first photos could be read
    for number, (seen, photos) in enumerate(batches[done:], start=done + 1):
        names = [plan.photos[photo].name for photo in photos]
        pixels = np.stack(
            [view(read_pixels(plan.images / name, plan.encoder.size), seen, name) for name in names]
        )
        encode = encode or _encode_on(device, plan.encoder, plan.kind)
        rows[seen, photos] = encode(pixels)
        if number == len(batches) or number % _SAVED_EVERY == 0:
            rows.flush()
            _note(progress, {"identity": identity, "batches": number})
        yield number, len(batches)


def _encode_on(device: str, encoder: GridEncoder, kind: str) -> Encode:
    if device == "cpu":
        return compiled_encoder(encoder, kind)
    moved = copy.deepcopy(encoder).to(device)
    seen = moved.trunk if kind == "trunk" else moved

    def encode(pixels: Pixels) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = seen(torch.from_numpy(pixels).to(device)).float().cpu().numpy()
        return found

    return encode


def compiled_encoder(encoder: GridEncoder, kind: str) -> Encode:
    """Compile the encoder for this CPU, three times faster than torch; (n, size, size, 3) to float32."""
    import openvino as ov

    graph = trunk_graph(encoder) if kind == "trunk" else encoder_graph(encoder)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = ov.Core().compile_model(graph, "CPU", settings)
    return lambda pixels: compiled([np.ascontiguousarray(pixels)])[0]


def read_pixels(path: Path, size: int) -> Pixels:
    """Read a photo as uint8 (size, size, 3); raise ``TrainingError`` that names it if it cannot be read."""
    try:
        return read_image(path.read_bytes(), Preprocessing(size, size), MAX_PIXELS).pixels
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}") from error
    except ImageError as error:
        raise TrainingError(f"{path}: {error}") from error
