"""Other views of a photo for training: mirrored, cropped and recoloured, the same ones every time."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageEnhance

from model.captioner import Pixels

_SMALLEST_SIDE = 0.75
"""A crop keeps at least this share of either side, so that the captions stay true."""
_COLOUR = 0.25
"""Brightness, contrast and saturation change by up to this share."""


def view(pixels: Pixels, number: int, name: str) -> Pixels:
    """Return a view of uint8 RGB pixels (height, width, 3): 0 is plain, 1 mirrored, others are drawn.

    ``name`` and ``number`` seed the draw. Crops are scaled back to the whole size.
    """
    if number == 0:
        return pixels
    if number == 1:
        return np.ascontiguousarray(pixels[:, ::-1])
    draw = random.Random(f"{name}/{number}")  # noqa: S311 - a picture, not a secret
    picture = _recoloured(_cropped(Image.fromarray(pixels), draw), draw)
    if draw.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(picture)


def _cropped(picture: Image.Image, draw: random.Random) -> Image.Image:
    width, height = (side * draw.uniform(_SMALLEST_SIDE, 1) for side in picture.size)
    left, top = draw.uniform(0, picture.width - width), draw.uniform(0, picture.height - height)
    box = (left, top, left + width, top + height)
    return picture.resize(picture.size, Image.Resampling.BICUBIC, box=box)


def _recoloured(picture: Image.Image, draw: random.Random) -> Image.Image:
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = change(picture).enhance(draw.uniform(1 - _COLOUR, 1 + _COLOUR))
    return picture
