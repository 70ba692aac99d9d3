"""Photos that the JPEG decoder scales down are captioned like photos that are decoded in full."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from model.captioner import DecodingOptions
from model.images import read_image
from model.loading import load_captioner

PHOTOS = sorted((Path(__file__).resolve().parents[3] / "examples" / "photos").glob("*.jpg"))
BICUBIC = Image.Resampling.BICUBIC


def test_scaling_in_the_decoder_changes_next_to_no_caption() -> None:
    captioner = load_captioner("small", threads=1)
    size = (captioner.preprocessing.width, captioner.preprocessing.height)
    scaled, full = [], []
    for path in PHOTOS:
        file = io.BytesIO()
        Image.open(path).convert("RGB").resize((1024, 768), BICUBIC).save(file, "JPEG", quality=92)
        scaled.append(read_image(file.getvalue(), captioner.preprocessing).pixels)
        full.append(np.asarray(Image.open(file).convert("RGB").resize(size, BICUBIC)))
    assert all((one != other).any() for one, other in zip(scaled, full, strict=True)), "nothing was scaled"
    found = [captioner.caption(np.stack(pixels), DecodingOptions()) for pixels in (scaled, full)]
    (texts, other), scores = (
        ([[one[0].text for one in f] for f in found]),
        [[o[0].score for o in f] for f in found],
    )
    assert sum(one == two for one, two in zip(texts, other, strict=True)) >= len(PHOTOS) - 2
    assert abs(np.mean(scores[0]) - np.mean(scores[1])) < 0.02
