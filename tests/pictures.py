"""Small valid pictures, a different one for each seed."""

from __future__ import annotations

import io
import random

from PIL import Image


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Make an RGB picture of ``size`` (width, height) pixels: soft colour patches chosen by ``seed``."""
    patches = Image.frombytes("RGB", (4, 3), random.Random(seed).randbytes(36))
    return patches.resize(size, Image.Resampling.BILINEAR)


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """Encode a picture in one of Pillow's formats."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg_bytes(seed: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """Make the bytes of a small JPEG, about 800 bytes at the default size."""
    return encode(picture(seed, size), "JPEG", quality=85)


def png_bytes(seed: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """Make the bytes of a small PNG."""
    return encode(picture(seed, size), "PNG")
