"""What an image says it is, in its name or in its first bytes; nothing is decoded."""

from __future__ import annotations

from pathlib import PurePosixPath

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .gif .bmp .dib .tif .tiff .webp .avif .heic .heif .hif".split()
)
"""Endings of names that count as images in folders, archives and buckets."""

HEAD_BYTES = 32
UNKNOWN = "application/octet-stream"
_PREFIXES = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"BM": "image/bmp",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
    b"II+\x00": "image/tiff",
    b"MM\x00+": "image/tiff",
}
# Major brands of ISO base media files (ISO/IEC 23008-12 for HEIF, the AV1 Image File Format for AVIF).
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "image/avif"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "image/heic"),
}
IMAGE_TYPES = frozenset({*_PREFIXES.values(), *_BRANDS.values(), "image/webp"})


def sniff(head: bytes) -> str:
    """Return the content type that the first bytes tell, or ``application/octet-stream``."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], UNKNOWN)
    return next((kind for prefix, kind in _PREFIXES.items() if head.startswith(prefix)), UNKNOWN)


def named_like_image(name: str) -> bool:
    """Whether a file's name or an object's key ends like an image's."""
    return PurePosixPath(name.lower()).suffix in SUFFIXES
