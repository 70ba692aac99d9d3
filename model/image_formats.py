"""Which image formats are read, told by content alone, and how each is opened.

Each format is opened by its own Pillow class and never through ``Image.open``: no other plugin of Pillow
(Ghostscript for EPS among them) can be reached, and Pillow's true complaint is seen instead of a general one.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import pi_heif
from PIL import ImageFile, PngImagePlugin
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from model.errors import UnsupportedImage

# A PNG may carry a long text (an editor's history, a generator's workflow) and be a good picture: one text
# may be as long as Pillow allows all of them to be together (64 MiB).
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
# Only the picture itself is wanted; what is not parsed cannot be attacked.
pi_heif.options.THUMBNAILS = False
pi_heif.options.DEPTH_IMAGES = False
pi_heif.options.AUX_IMAGES = False

_PREFIXES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
)
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEIF_BRANDS = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
)
_MAX_BRANDS = 64

_OPENERS: dict[str, Callable[[BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "WebP": WebPImageFile,
    "AVIF": AvifImageFile,
    "HEIC": pi_heif.HeifImageFile,
}
SUPPORTED_FORMATS = tuple(_OPENERS)
"""Names of the formats that are read, for people."""


def image_format(data: bytes | memoryview) -> str:
    """Name the format of an image file from its first bytes; ``UnsupportedImage`` if it is none of ours."""
    head = bytes(data[: 8 + 4 * _MAX_BRANDS])
    if not head:
        raise UnsupportedImage("the file is empty")
    for prefix, name in _PREFIXES:
        if head.startswith(prefix):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp" and (name := _brand_format(head)):
        return name
    raise UnsupportedImage(f"this is no image of a supported format ({', '.join(SUPPORTED_FORMATS)})")


def open_image(name: str, data: bytes | memoryview) -> ImageFile.ImageFile:
    """Parse the header of an image of the named format; pixels are decoded later, at ``load()``."""
    return _OPENERS[name](BytesIO(data))


def declared_pixels(data: bytes | memoryview) -> int:
    """Number of pixels that the header of an image file declares; 0 if it cannot be read."""
    name = image_format(data)
    if name == "WebP":
        # Its decoder takes memory for the whole canvas before it tells the size.
        return _webp_pixels(bytes(data[:30]))
    try:
        with open_image(name, data) as picture:
            return picture.width * picture.height
    except Exception:
        # As in decoding, nearly every type of exception; here the size alone is asked for.
        return 0


def _webp_pixels(head: bytes) -> int:
    """Canvas of a WebP file, by its first chunk (RFC 9649, 2.5 to 2.7)."""
    kind, body = head[12:16], head[20:]
    if kind == b"VP8X":
        return (int.from_bytes(body[4:7], "little") + 1) * (int.from_bytes(body[7:10], "little") + 1)
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
    return (int.from_bytes(body[6:8], "little") & 0x3FFF) * (int.from_bytes(body[8:10], "little") & 0x3FFF)


def _brand_format(head: bytes) -> str:
    """Tell AVIF from HEIC by the brands of an ISO base media file (ISO/IEC 14496-12, 4.3); "" if neither."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if brands & _HEIF_BRANDS else ""
