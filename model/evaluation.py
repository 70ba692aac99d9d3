"""Scoring a captioner, or captions that are already there, against the references of a captions file."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.beam_captioner import BeamCaptioner
from model.captioner import Captioner, DecodingOptions, Pixels
from model.dataset import CaptionedImage, read_captions, select
from model.errors import ImageError, TrainingError
from model.images import read_image
from model.loading import load_captioner
from model.progress import Progress, console_progress
from model.scores import Scores, fluency, reference_scores, text_statistics

_BATCH = 32


@dataclass(frozen=True)
class Evaluation:
    """What was scored, the figures, and the captions themselves by file name."""

    model: str
    split: str
    options: dict[str, Any]
    scores: Scores
    statistics: Scores
    raw_fluency: Scores
    """Fluency of what the network says without repeat blocking; empty for a results file."""
    captions_per_second: float | None
    captions: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return dataclasses.asdict(self)

    def table(self) -> list[tuple[str, str]]:
        """Return the figures as (name, value) rows for a reader."""
        figures = self.scores | self.statistics
        figures |= {f"raw {name}": value for name, value in self.raw_fluency.items()}
        figures["captions/s"] = self.captions_per_second
        return [(name, "-" if value is None else str(value)) for name, value in figures.items()]


def evaluate(
    model: str,
    images: Path,
    captions: Path,
    split: str = "dev",
    *,
    options: DecodingOptions | None = None,
    device: str = "cpu",
    threads: int | None = None,
    limit: int | None = None,
    with_meteor: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
) -> Evaluation:
    """Caption the photos of a split and score them; ``model`` as for ``load_captioner``.

    Raises ``TrainingError`` if the data is unusable, ``CheckpointInvalid`` or ``InvalidOptions`` else.
    """
    photos = select(read_captions(captions, images), split)[:limit]
    captioner = load_captioner(model, device, threads=threads)
    resolved = captioner.resolve(options or DecodingOptions())
    report = on_progress or console_progress()
    said, seconds, unblocked = _caption_all(captioner, images, photos, resolved, report)
    report(Progress("finished", 1, 1))
    return Evaluation(
        captioner.name,
        split,
        dataclasses.asdict(resolved),
        reference_scores(said, {photo.name: photo.captions for photo in photos}, with_meteor=with_meteor),
        text_statistics(list(said.values())),
        fluency(unblocked) if unblocked else {},
        round(len(photos) / seconds, 2),
        said,
    )


def evaluate_results(
    results: Path, captions: Path, images: Path, split: str = "dev", *, with_meteor: bool = True
) -> Evaluation:
    """Score a results file of a job (JSON lines with ``name``, ``caption``); failed items are empty."""
    photos = {photo.name: photo for photo in select(read_captions(captions, images), split)}
    said = {name: caption for name, caption in _results(results) if name in photos}
    if not said:
        raise TrainingError(f"{results} holds no photo of the split {split!r}")
    references = {name: photos[name].captions for name in said}
    scores = reference_scores(said, references, with_meteor=with_meteor)
    statistics = text_statistics(list(said.values()))
    return Evaluation(results.name, split, {}, scores, statistics, {}, None, said)


def _results(path: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise TrainingError(f"the results file {path} cannot be read") from error
    for number, line in enumerate(lines, start=1):
        try:
            item = json.loads(line)
            yield Path(item["name"]).name, item.get("caption") or ""
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{path}:{number}: not a results line") from error


def _caption_all(
    captioner: Captioner,
    images: Path,
    photos: Sequence[CaptionedImage],
    options: DecodingOptions,
    report: Callable[[Progress], None],
) -> tuple[dict[str, str], float, list[str]]:
    plain = captioner.without_blocking() if isinstance(captioner, BeamCaptioner) else None
    said: dict[str, str] = {}
    unblocked: list[str] = []
    seconds = 0.0
    for start in range(0, len(photos), _BATCH):
        batch = photos[start : start + _BATCH]
        pixels = np.stack([_pixels(images / photo.name, captioner) for photo in batch])
        began = time.perf_counter()
        found = captioner.caption(pixels, options)
        seconds += time.perf_counter() - began
        said |= {photo.name: one[0].text for photo, one in zip(batch, found, strict=True)}
        if plain:
            unblocked += [one[0].text for one in plain.caption(pixels, options)]
        report(Progress("captions", len(said), len(photos)))
    return said, seconds, unblocked


def _pixels(path: Path, captioner: Captioner) -> Pixels:
    try:
        return read_image(path.read_bytes(), captioner.preprocessing).pixels
    except ImageError as error:
        raise TrainingError(f"{path}: {error}") from error
