"""From any colour representation to 8-bit RGB on white, scaled on the way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_GRAY_TAG, _WHITE_IS_ZERO, _BITS_TAG = 262, 0, 258


def squash_to_rgb(picture: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """Squash a loaded picture to ``size`` (width, height), as RGB; transparent parts become white."""
    if picture.mode.startswith(("I", "F")):
        picture = _eight_bit_gray(picture)
    if picture.has_transparency_data:
        # Pillow weighs colours by their opacity while it resizes, so scaling first is right, and cheaper.
        small = _convert(picture, "RGBA").resize(size, resample)
        canvas = Image.new("RGBA", size, "white")
        canvas.alpha_composite(small)
        return canvas.convert("RGB")
    if picture.mode == "L":
        return picture.resize(size, resample).convert("RGB")
    return _convert(picture, "RGB").resize(size, resample)


def _convert(picture: Image.Image, mode: str) -> Image.Image:
    if picture.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(picture, lab, rgb, outputMode="RGB")
        if converted is None:
            raise ValueError("conversion from LAB failed")
        return converted
    if picture.mode == "La":
        picture = picture.convert("LA")
    return picture if picture.mode == mode else picture.convert(mode)


def _eight_bit_gray(picture: Image.Image) -> Image.Image:
    """Scale 16-bit gray by its bit depth, other deep gray from its own darkest to its brightest value."""
    values = np.asarray(picture)
    tags = getattr(picture, "tag_v2", {})
    if not picture.mode.startswith("I;16"):
        return Image.fromarray(_stretched(values))
    gray = (values >> (4 if tags.get(_BITS_TAG) == (12,) else 8)).astype(np.uint8)
    if tags.get(_GRAY_TAG) == _WHITE_IS_ZERO:
        gray = ~gray
    transparent = picture.info.get("transparency")
    if transparent is None:
        return Image.fromarray(gray)
    alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
    return Image.merge("LA", (Image.fromarray(gray), Image.fromarray(alpha)))


def _stretched(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    finite = np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    if high <= low:
        return np.zeros(finite.shape, np.uint8)
    return ((finite - low) * (255.0 / (high - low)) + 0.5).astype(np.uint8)
