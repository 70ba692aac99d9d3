"""The cache of what the encoder sees: filled where it stopped, and never taken for another run's."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from model import features
from model.dataset import CaptionedImage, read_captions
from model.encoder_base import GridEncoder

from .conftest import make_world


class MeanColour(GridEncoder):
    """Sees one thing of a picture, so that a cache is computed in no time."""

    size, positions, channels, trunk_shape = 32, 1, 3, (3,)

    def trunk(self, pixels: Tensor) -> Tensor:
        """Map pixels (n, 32, 32, 3) to (n, 3)."""
        return pixels.float().mean((1, 2))


Compute = Callable[..., features.Cache]
TRAIN, DEV = 16, 2


@pytest.fixture
def compute(tmp_path: Path) -> Compute:
    world = make_world(tmp_path, train=TRAIN, dev=DEV)
    photos = read_captions(world.captions, world.images)

    def run(
        folder: Path, *, name: str = "mean", stop_at: int | None = None, done: list[int] | None = None
    ) -> features.Cache:
        def progress(number: int, _total: int) -> None:
            if done is not None:
                done.append(number)
            if number == stop_at:
                raise KeyboardInterrupt

        return _cache(world.images, photos, name, folder, progress)

    return run


def _cache(
    images: Path,
    photos: list[CaptionedImage],
    name: str,
    folder: Path,
    progress: Callable[[int, int], None],
) -> features.Cache:
    encoder = MeanColour().eval()
    return features.image_cache(
        images, photos, encoder, name, folder, kind="trunk", views=4, on_progress=progress
    )


def test_a_cache_that_was_stopped_half_way_is_filled(
    compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "_SAVED_EVERY", 4)
    done: list[int] = []
    with contextlib.suppress(KeyboardInterrupt):
        compute(tmp_path / "stopped", stop_at=6, done=done)
    found = compute(tmp_path / "stopped", done=done)
    # What was noted as done, two batches before the end, is not computed again.
    assert done == [*range(1, 7), *range(5, 10)]
    assert np.array_equal(found, compute(tmp_path / "whole"))
    compute(tmp_path / "stopped", done=done)
    assert len(done) == 11


def test_only_training_sees_other_views_than_the_plain_one(compute: Compute, tmp_path: Path) -> None:
    found = compute(tmp_path)
    assert found.shape == (4, TRAIN + DEV, 3)
    seen = (found > 0).any(-1)
    assert seen[0].all()
    assert seen[1:, :TRAIN].all()
    assert not seen[1:, TRAIN:].any()


def test_a_cache_that_another_run_began_to_replace_is_computed_again(
    compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = np.array(compute(tmp_path))
    replaced: list[Path] = []

    def killed(path: Path, _size: int) -> None:
        replaced.append(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(features, "reserve", killed)
        with pytest.raises(KeyboardInterrupt):
            compute(tmp_path, name="other")
    assert not np.load(replaced[0], mmap_mode="r").any()
    assert json.loads((tmp_path / "features.json").read_text())["batches"] == 0
    assert np.array_equal(compute(tmp_path), whole)
