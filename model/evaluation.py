"""Scoring a captioner, or captions that are already there, against the references of a captions file."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.beam_captioner import BeamCaptioner
from model.captioner import Caption, Captioner, DecodingOptions, Pixels
from model.dataset import CaptionedImage, read_captions, select
from model.errors import ImageError, TrainingError
from model.gallery import MOST_PHOTOS, write_page
from model.images import read_image
from model.loading import load_captioner
from model.progress import Progress, console_progress
from model.results import matched, read_results
from model.scores import Scores, fluency, reference_scores, text_statistics

_BATCH = 32
_PAGE_BEAMS = 3


@dataclass(frozen=True)
class Evaluation:
    """What was scored, the figures, and the captions themselves by file name."""

    model: str
    split: str
    options: dict[str, Any]
    scores: Scores
    statistics: Scores
    raw_fluency: Scores
    """Fluency of what the built-in network says where nothing keeps it from repeating or breaking off."""
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
    page: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_scores: Callable[[Evaluation], None] | None = None,
) -> Evaluation:
    """Caption the photos of a split and score them; ``model`` as for ``load_captioner``.

    ``page`` is an HTML file to write, with the first photos, their references, greedy and beam captions;
    ``on_scores`` has the figures before that begins.
    Raises ``TrainingError`` if the data is unusable, ``CheckpointInvalid`` or ``InvalidOptions`` else.
    """
    photos = select(read_captions(captions, images), split)[:limit]
    captioner = load_captioner(model, device, threads=threads)
    resolved = captioner.resolve(options or DecodingOptions())
    report = on_progress or console_progress()
    captioned, seconds, unblocked = _caption_all(captioner, images, photos, resolved, report)
    said = _texts(captioned)
    references = {photo.name: photo.captions for photo in photos}
    confidence = {name: caption.score for name, caption in captioned.items()}
    found = Evaluation(
        captioner.name,
        split,
        dataclasses.asdict(resolved),
        reference_scores(said, references, with_meteor=with_meteor, confidence=confidence),
        text_statistics(list(said.values())),
        fluency(unblocked) if unblocked else {},
        round(len(photos) / seconds, 2),
        said,
    )
    if on_scores is not None:
        on_scores(found)
    if page is not None:
        columns = _columns(captioner, images, photos[:MOST_PHOTOS], resolved, said, report)
        _write_page(page, found, images, photos, columns)
    report(Progress("finished", 1, 1))
    return found


def evaluate_results(
    results: Path,
    captions: Path,
    images: Path,
    split: str = "dev",
    *,
    with_meteor: bool = True,
    page: Path | None = None,
    on_scores: Callable[[Evaluation], None] | None = None,
) -> Evaluation:
    """Score a results file of any model (``read_results``); failed items count as empty captions.

    Photos of the split that the file does not name are not scored; ``missing`` says how many they are.
    ``page`` and ``on_scores`` as for ``evaluate``.
    """
    photos = {photo.name: photo for photo in select(read_captions(captions, images), split)}
    said = matched(read_results(results), photos)
    if not said:
        raise TrainingError(f"{results} holds no photo of the split {split!r}")
    references = {name: photos[name].captions for name in said}
    scores = reference_scores(said, references, with_meteor=with_meteor)
    texts = list(said.values())
    statistics = text_statistics(texts) | {"missing": len(photos) - len(said)}
    found = Evaluation(results.name, split, {}, scores, statistics, {}, None, said)
    if on_scores is not None:
        on_scores(found)
    if page is not None:
        _write_page(page, found, images, [photos[name] for name in said], {results.name: said})
    return found


def _columns(
    captioner: Captioner,
    images: Path,
    photos: Sequence[CaptionedImage],
    options: DecodingOptions,
    said: dict[str, str],
    report: Callable[[Progress], None],
) -> dict[str, dict[str, str]]:
    """Captions by greedy and by beam search; one of the two is what was scored, where it can be."""
    columns: dict[str, dict[str, str]] = {}
    beams = max(options.num_beams or 1, _PAGE_BEAMS)
    for name, wanted in (("greedy", 1), (f"{beams} beams", beams)):
        chosen = captioner.resolve(dataclasses.replace(options, num_beams=wanted, num_captions=1))
        same = chosen == options
        columns[name] = (
            said if same else _texts(_caption_all(captioner, images, photos, chosen, report, raw=False)[0])
        )
    return columns


def _write_page(
    page: Path,
    found: Evaluation,
    images: Path,
    photos: Sequence[CaptionedImage],
    columns: dict[str, dict[str, str]],
) -> None:
    shown = photos[:MOST_PHOTOS]
    title = f"{found.model}: {len(shown)} of {len(photos)} photos of {found.split}"
    try:
        write_page(page, title, found.table(), images, shown, columns)
    except OSError as error:
        raise TrainingError(f"the page {page} cannot be written: {error.strerror}") from error


def _caption_all(
    captioner: Captioner,
    images: Path,
    photos: Sequence[CaptionedImage],
    options: DecodingOptions,
    report: Callable[[Progress], None],
    *,
    raw: bool = True,
) -> tuple[dict[str, Caption], float, list[str]]:
    plain = captioner.without_blocking() if raw and isinstance(captioner, BeamCaptioner) else None
    said: dict[str, Caption] = {}
    unblocked: list[str] = []
    seconds = 0.0
    for start in range(0, len(photos), _BATCH):
        batch = photos[start : start + _BATCH]
        pixels = np.stack([_pixels(images / photo.name, captioner) for photo in batch])
        began = time.perf_counter()
        found = captioner.caption(pixels, options)
        seconds += time.perf_counter() - began
        said |= {photo.name: one[0] for photo, one in zip(batch, found, strict=True)}
        if plain:
            unblocked += [one[0].text for one in plain.caption(pixels, options)]
        report(Progress("captions", len(said), len(photos)))
    return said, seconds, unblocked


def _texts(captioned: dict[str, Caption]) -> dict[str, str]:
    return {name: caption.text for name, caption in captioned.items()}


def _pixels(path: Path, captioner: Captioner) -> Pixels:
    try:
        return read_image(path.read_bytes(), captioner.preprocessing).pixels
    except ImageError as error:
        raise TrainingError(f"{path}: {error}") from error
