"""From any colour representation to 8-bit RGB on white, scaled on the way."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageCms

_GRAY_TAG, _WHITE_IS_ZERO, _BITS_TAG = 262, 0, 258


Box = tuple[float, float, float, float]


def squash_to_rgb(
    picture: Image.Image, size: tuple[int, int], resample: Image.Resampling, box: Box | None = None
) -> Image.Image:
    """Squash a loaded picture, or a box of it, to ``size`` (width, height), as RGB on white."""
    if picture.mode in ("I", "F"):
        return _stretched(picture, size, resample, box).convert("RGB")
    if picture.mode.startswith("I;16"):
        picture = _eight_bit_gray(picture)
    if picture.has_transparency_data:
        # Pillow weighs colours by their opacity while it resizes, so scaling first is right, and cheaper.
        small = _convert(picture, "RGBA").resize(size, resample, box)
        canvas = Image.new("RGBA", size, "white")
        canvas.alpha_composite(small)
        return canvas.convert("RGB")
    if picture.mode == "L":
        return picture.resize(size, resample, box).convert("RGB")
    return _convert(picture, "RGB").resize(size, resample, box)


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
    """Scale 12- or 16-bit gray by its bit depth; a transparent value becomes an alpha channel."""
    values = np.asarray(picture)
    tags = getattr(picture, "tag_v2", {})
    gray = (values >> (4 if tags.get(_BITS_TAG) == (12,) else 8)).astype(np.uint8)
    if tags.get(_GRAY_TAG) == _WHITE_IS_ZERO:
        gray = ~gray
    transparent = picture.info.get("transparency")
    if transparent is None:
        return Image.fromarray(gray)
    alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
    return Image.merge("LA", (Image.fromarray(gray), Image.fromarray(alpha)))


def _stretched(
    picture: Image.Image, size: tuple[int, int], resample: Image.Resampling, box: Box | None
) -> Image.Image:
    """Squash gray of no known range (floats, 32-bit integers), from its darkest value to its brightest."""
    small = np.asarray(picture.convert("F").resize(size, resample, box))
    finite = small[np.isfinite(small)]
    bounds = np.array(picture.getextrema(), np.float64)
    if not np.isfinite(bounds).all() and finite.size:
        bounds = np.array([finite.min(), finite.max()], np.float64)
    spread = bounds[1] - bounds[0]
    if not spread > 0:
        return Image.new("L", size)
    scaled = (np.nan_to_num(small.astype(np.float64), nan=bounds[0]) - bounds[0]) * (255 / spread)
    return Image.fromarray(np.clip(scaled + 0.5, 0, 255).astype(np.uint8))
