"""One scene in every format and colour representation people have."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from model.captioner import Preprocessing

PREPROCESSING = Preprocessing(width=48, height=32)
SIZE = (120, 80)
LONGEST_SIGNATURE = 12
"""Bytes by which every format is recognised."""
CORNERS = ((200, 40, 40), (30, 160, 60), (40, 60, 190), (230, 200, 60))
"""Colours of the scene's quadrants: top left, top right, bottom left, bottom right."""


def scene(size: tuple[int, int] = SIZE) -> Image.Image:
    """Four quadrants of different colours: turned, mirrored or inverted, it is another picture."""
    image = Image.new("RGB", size, CORNERS[0])
    draw = ImageDraw.Draw(image)
    width, height = size
    draw.rectangle((width // 2, 0, width, height // 2 - 1), CORNERS[1])
    draw.rectangle((0, height // 2, width // 2 - 1, height), CORNERS[2])
    draw.rectangle((width // 2, height // 2, width, height), CORNERS[3])
    return image


def squashed(image: Image.Image) -> NDArray[np.int16]:
    """What a lossless decoder must make of ``image``."""
    size = (PREPROCESSING.width, PREPROCESSING.height)
    return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC)).astype(np.int16)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encode ``image`` as ``kind``; HEIC by pillow_heif, all else by Pillow."""
    buffer = io.BytesIO()
    if kind == "HEIC":
        pillow_heif.from_pillow(image).save(buffer, **options)
    else:
        image.save(buffer, kind, **options)
    return buffer.getvalue()


def ycck_jpeg(image: Image.Image) -> bytes:
    """An Adobe YCCK JPEG, as Photoshop writes CMYK: stored inverted, transformed, marked with transform 2."""
    stored = Image.eval(image, lambda value: 255 - value).convert("YCbCr")
    # Pillow writes CMYK inverted, so channels inverted here are stored as they are; K is stored as 255.
    channels = [Image.eval(channel, lambda value: 255 - value) for channel in stored.split()]
    cmyk = Image.merge("CMYK", (*channels, Image.new("L", image.size, 0)))
    data = bytearray(encode(cmyk, "JPEG", quality=95, subsampling=0))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def png_chunk(name: bytes, body: bytes) -> bytes:
    """One PNG chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(size: tuple[int, int], depth: int, colour: int, body: bytes, *extra: bytes) -> bytes:
    """A PNG from raw rows (each led by its filter byte), for what Pillow itself cannot write."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    chunks = (png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", zlib.compress(body)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + png_chunk(b"IEND", b"")


def png16(values: NDArray[np.uint16], *extra: bytes) -> bytes:
    """A 16-bit PNG of gray (height, width) or RGB (height, width, 3) values."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(values.shape[1::-1], 16, 2 if values.ndim == 3 else 0, rows, *extra)


def deep(image: Image.Image) -> NDArray[np.uint16]:
    """The picture's values spread over 16 bits."""
    return np.asarray(image).astype(np.uint16) * 257


def animated(kind: str, **options: object) -> bytes:
    """An animation whose first frame is the scene."""
    first = scene()
    later = [first.rotate(180), Image.new("RGB", SIZE, "black")]
    return encode(first, kind, save_all=True, append_images=later, duration=100, loop=0, **options)


def many() -> dict[str, bytes]:
    """One valid file of each format and main variant, by name."""
    image, gray = scene(), scene().convert("L")
    return {
        "jpeg": encode(image, "JPEG", quality=95),
        "jpeg-progressive": encode(image, "JPEG", progressive=True),
        "jpeg-cmyk": encode(image.convert("CMYK"), "JPEG"),
        "png": encode(image, "PNG"),
        "png-palette": encode(image.convert("P"), "PNG"),
        "png-16": png16(deep(gray)),
        "apng": animated("PNG"),
        "gif": animated("GIF"),
        "bmp": encode(image, "BMP"),
        "webp": encode(image, "WEBP"),
        "webp-lossless": encode(image.convert("RGBA"), "WEBP", lossless=True),
        "webp-animated": animated("WEBP"),
        "tiff": encode(image, "TIFF"),
        "tiff-lzw": encode(image, "TIFF", compression="tiff_lzw"),
        "tiff-jpeg": encode(image, "TIFF", compression="jpeg"),
        "avif": encode(image, "AVIF"),
        "heic": encode(image, "HEIC"),
    }
