"""From the bytes of an image file to network input; every kind of bad file ends as an ``ImageError``."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageFile

from model.captioner import Pixels, Preprocessing
from model.errors import CorruptImage, ImageError, ImageTooLarge, UnsupportedImage
from model.image_colours import Box, squash_to_rgb
from model.image_formats import image_format, open_image

DEFAULT_MAX_PIXELS = 100_000_000

# Scaling by the JPEG transform down to no less than this times the target: 49 dB from a full decode and the
# same CIDEr, at half its time and less (docs/performance.md). 12-megapixel photos of 4:3 come at an eighth.
_DRAFT_FACTOR = 1.6
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
# How Pillow's plugins word that a well-formed file uses a variant they cannot read.
_VARIANT = re.compile(r"unsupported|not supported|unknown pixel mode|cannot handle", re.I)
# Pillow's plugins run into these, rather than check, where a header is shorter than it says.
_SHORT = (struct.error, IndexError, KeyError, TypeError, EOFError)
_MEMORY = re.compile(r"out of memory|insufficient memory|cannot allocate|memory allocation", re.I)


@dataclass(frozen=True)
class DecodedImage:
    """Network input of one image, and how large the image was."""

    pixels: Pixels
    """uint8 RGB of shape (height, width, 3) of the preprocessing, aspect ignored, transparency on white."""
    width: int
    """Width of the upright image, in pixels."""
    height: int
    """Height of the upright image, in pixels."""


def read_image(
    data: bytes | memoryview, preprocessing: Preprocessing, max_pixels: int = DEFAULT_MAX_PIXELS
) -> DecodedImage:
    """Decode an image file (first frame, EXIF orientation applied) and squash it for the network.

    Raises ``UnsupportedImage`` if it is no image of a supported format, ``CorruptImage`` if it is truncated
    or damaged, ``ImageTooLarge`` if its header declares more than ``max_pixels`` or memory does not suffice.
    """
    resample = Image.Resampling[preprocessing.resample.upper()]
    name = image_format(data)
    try:
        with open_image(name, data) as picture:
            size = (preprocessing.width, preprocessing.height)
            return _decode(picture, size, resample, preprocessing.fit == "crop", max_pixels)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(f"the {name} image declares more pixels than one image may have") from error
    except Exception as error:
        # Decoders of untrusted bytes fail with nearly every type of exception there is.
        raise _complaint(name, error) from error


def _decode(
    picture: ImageFile.ImageFile,
    size: tuple[int, int],
    resample: Image.Resampling,
    crop: bool,
    max_pixels: int,
) -> DecodedImage:
    width, height = _checked_size(picture, max_pixels)
    # Before anything else: looking for EXIF decodes a PNG.
    _scale_transparent_colour(picture)
    orientation = _orientation(picture)
    sideways = orientation in _SIDEWAYS
    target = (size[1], size[0]) if sideways else size
    smallest = (math.ceil(_DRAFT_FACTOR * target[0]), math.ceil(_DRAFT_FACTOR * target[1]))
    scaled = picture.draft(None, smallest) is not None
    picture.load()
    if not scaled:
        # What a HEIC or GIF holds may differ from what its header declares.
        width, height = _checked_size(picture, max_pixels)
    small = squash_to_rgb(picture, target, resample, _centre(picture.size, target) if crop else None)
    if orientation in _TURNS:
        small = small.transpose(_TURNS[orientation])
    return DecodedImage(np.array(small), *((height, width) if sideways else (width, height)))


def _centre(size: tuple[int, int], target: tuple[int, int]) -> Box:
    """Return the largest box around the centre of a picture that has the aspect of ``target``."""
    scale = min(size[0] / target[0], size[1] / target[1])
    width, height = target[0] * scale, target[1] * scale
    left, upper = (size[0] - width) / 2, (size[1] - height) / 2
    return left, upper, left + width, upper + height


def _checked_size(picture: ImageFile.ImageFile, max_pixels: int) -> tuple[int, int]:
    width, height = picture.size
    if width * height > max_pixels:
        raise ImageTooLarge(f"{width} x {height} pixels are more than the limit of {max_pixels:,}")
    return width, height


def _orientation(picture: ImageFile.ImageFile) -> int:
    """EXIF orientation, 1 to 8; 1 where the reader turns the image itself or EXIF cannot be read."""
    if picture.format in ("TIFF", "HEIF"):
        return 1
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # A broken EXIF block (any exception, as with pixels) says nothing about the picture.
        return 1
    return value if value in _TURNS else 1


def _scale_transparent_colour(picture: ImageFile.ImageFile) -> None:
    """Bring the transparent colour of a 16-bit RGB PNG to the 8 bits to which its pixels are decoded."""
    colour = picture.info.get("transparency")
    if isinstance(colour, tuple) and picture.tile and picture.tile[0].args == "RGB;16B":
        picture.info["transparency"] = tuple(value >> 8 for value in colour)


def _complaint(name: str, error: Exception) -> ImageError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, _SHORT) or any(isinstance(inner, _SHORT) for inner in error.args):
        reason = "a header ends too early"
    if isinstance(error, MemoryError) or _MEMORY.search(reason):
        return ImageTooLarge(f"the {name} image needs more memory than one image may take")
    if _VARIANT.search(reason):
        return UnsupportedImage(f"this variant of {name} cannot be read: {reason}")
    return CorruptImage(f"the {name} image is truncated or damaged: {reason}")
