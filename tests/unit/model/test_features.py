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

    size, positions, channels = 32, 1, 3

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (n, 32, 32, 3) to (n, 1, 3)."""
        return pixels.float().mean((1, 2)).unsqueeze(1)


Compute = Callable[..., features.Cache]
PHOTOS = 18


@pytest.fixture
def compute(tmp_path: Path) -> Compute:
    world = make_world(tmp_path, train=16, dev=2)
    photos = read_captions(world.captions, world.images)

    def run(
        *, name: str = "mean", stop_at: int | None = None, done: list[int] | None = None
    ) -> features.Cache:
        def progress(number: int, _total: int) -> None:
            if done is not None:
                done.append(number)
            if number == stop_at:
                raise KeyboardInterrupt

        return _cache(world.images, photos, name, tmp_path, progress)

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
        images, photos, encoder, name, folder, kind="features", views=4, on_progress=progress
    )


def test_a_cache_that_was_stopped_half_way_is_filled(
    compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "_SAVED_EVERY", 4)
    done: list[int] = []
    with contextlib.suppress(KeyboardInterrupt):
        compute(stop_at=6, done=done)
    found = compute(done=done)
    # What was noted as done, two batches before the end, is not computed again.
    assert done == [*range(1, 7), *range(5, 10)]
    assert found.shape == (4, PHOTOS, 1, 3)
    assert (found[:, :16] > 0).any(-1).all()
    compute(done=done)
    assert len(done) == 11


def test_a_cache_that_another_run_began_to_replace_is_computed_again(
    compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = np.array(compute())
    replaced: list[Path] = []

    def killed(path: Path, _size: int) -> None:
        replaced.append(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(features, "reserve", killed)
        with pytest.raises(KeyboardInterrupt):
            compute(name="other")
    assert not np.load(replaced[0], mmap_mode="r").any()
    assert json.loads((tmp_path / "features.json").read_text())["batches"] == 0
    assert np.array_equal(compute(), whole)
