"""The process that writes descriptions into image files: it runs a C++ library on files from anywhere."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

# ISO 2022 for "UTF-8 from here on", as IPTC-IIM writes it (IIM 4.2, data set 1:90).
_UTF8 = "\x1b%G"
_EXIF, _IPTC, _XMP = "Exif.Image.ImageDescription", "Iptc.Application2.Caption", "Xmp.dc.description"
KEPT = "has a description already, which is kept"


def begin() -> None:
    """Leave Ctrl-C, which a terminal sends to all its processes, to the one that asked for this one."""
    import exiv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exiv2.LogMsg.setLevel(exiv2.LogMsg.Level.mute)


def describe(source: Path, target: Path, text: str, *, overwrite: bool) -> str | None:
    """Make ``target`` the image ``source`` with a description; return what is to be said about it, if any.

    Everything but the description stays as it is, a JPEG's pixels byte by byte; ``target`` appears only
    when it is whole, and may be ``source``. Raises ``OSError`` for files that cannot be read or written, and
    ``ValueError`` for an image that cannot hold a description.
    """
    import exiv2

    data = source.read_bytes()
    try:
        described = _described(data, text, overwrite=overwrite)
    except (exiv2.Exiv2Error, RuntimeError, MemoryError) as error:
        raise ValueError(getattr(error, "message", str(error))) from error
    if described is None and target == source:
        return KEPT
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as file:
            file.write(described or data)
            file.flush()
            # The image may be the only one there is: no loss of power may find it half-written.
            os.fsync(file.fileno())
        shutil.copystat(source, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return None if described else KEPT


def _described(data: bytes, text: str, *, overwrite: bool) -> bytes | None:
    """Return an image with the description in each form it holds; None where one that is there is kept."""
    import exiv2

    # From memory: the library takes no file names that are not UTF-8.
    image = exiv2.ImageFactory.open(data)
    image.readMetadata()
    exif, iptc, xmp = image.exifData(), image.iptcData(), image.xmpData()
    if not overwrite and any(_filled(part, key) for part, key in ((exif, _EXIF), (iptc, _IPTC), (xmp, _XMP))):
        return None
    exif[_EXIF] = text
    # Elsewhere IPTC-IIM has no place of its own; what PNG files carry of it, few programs read.
    if image.imageType() in (exiv2.ImageType.jpeg, exiv2.ImageType.tiff):
        _set_iptc(iptc, text)
    description = exiv2.LangAltValue()
    description["x-default"] = text
    xmp[_XMP] = description
    image.writeMetadata()
    file = image.io()
    file.open()
    with file.mmap() as view:
        return bytes(view)


def _filled(data: Any, key: str) -> bool:
    # Some cameras fill the field with blanks, or with their own name.
    return key in data and bool(data[key].toString().strip(" \0"))


def _set_iptc(data: Any, text: str) -> None:
    """Set the caption; a file whose other fields are in an older character set takes plain ASCII only."""
    import exiv2

    if data.empty() or data.detectCharset() == "UTF-8":
        data["Iptc.Envelope.CharacterSet"] = _UTF8
    elif not text.isascii():
        # What stands there is not this description, and would contradict it.
        found = data.findKey(exiv2.IptcKey(_IPTC))
        if found != data.end():
            data.erase(found)
        return
    data[_IPTC] = text
