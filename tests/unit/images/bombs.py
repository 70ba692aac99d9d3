"""Small files that ask a decoder for much memory, much time or both, by name."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

from tests.unit.images.samples import SIZE, encode, png_chunk, scene

ORIENTATION = 0x0112


def _zeros(megabytes: int) -> bytes:
    """Zeros, deflated a thousandfold."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush the same block may follow again; the checksum of zeros counts them.
    checksum = (((megabytes << 20) % 65_521) << 16) + 1
    return b"\x78\x9c" + block * megabytes + b"\x03\x00" + struct.pack(">I", checksum)


def _png(*chunks: bytes) -> bytes:
    plain = encode(scene(), "PNG")
    header = 8 + 25
    return plain[:header] + b"".join(chunks) + plain[header:]


def _jpeg(*segments: bytes) -> bytes:
    plain = encode(scene(), "JPEG")
    return plain[:2] + b"".join(segments) + plain[2:]


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _exif(entries: int, value: tuple[int, int, int, int], following: int) -> bytes:
    """A big-endian EXIF block of equal entries, and where its next directory lies."""
    body = struct.pack(">H", entries) + struct.pack(">HHII", *value) * entries
    return b"Exif\0\0MM\0*" + struct.pack(">I", 8) + body + struct.pack(">I", following)


def _tiff(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    """A little-endian TIFF of one directory: entries are (tag, type, count, value)."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + body + struct.pack("<I", following)


def _gif_frames(count: int) -> bytes:
    """A GIF whose canvas is large and whose frames are tiny."""
    head = struct.pack("<6sHHBBB", b"GIF89a", 4_000, 4_000, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02D\x01\x00"
    return head + frame * count + b";"


def _webp_frames(count: int) -> bytes:
    """A WebP whose canvas is large and whose frames are tiny."""
    still = encode(Image.new("RGB", (2, 2)), "WEBP", lossless=True)[12:]
    where = bytes(6) + (1).to_bytes(3, "little") * 2 + (1).to_bytes(3, "little") + b"\0"
    frame = b"ANMF" + struct.pack("<I", len(where + still)) + where + still
    canvas = b"\x02\0\0\0" + (3_999).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<I", 10) + canvas + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += frame * count
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _tiff_pages(count: int) -> bytes:
    first = scene()
    return encode(first, "TIFF", save_all=True, append_images=[Image.new("1", (1, 1))] * count)


def _progressive_scans(scans: int) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    whole = encode(scene((2_000, 2_000)), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * scans + whole[-2:]


def bombs() -> dict[str, bytes]:
    """Each is at most a few megabytes long."""
    gigabyte, name = _zeros(1_024), b"name\0"
    laughs = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + b"".join(
        b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(12)
    )
    xmp = laughs + b"]><x:xmpmeta>&m;</x:xmpmeta>"
    strips = [(256, 4, 1, SIZE[0]), (257, 4, 1, SIZE[1]), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    return {
        "PNG text": _png(png_chunk(b"zTXt", name + b"\0" + gigabyte)),
        "PNG international text": _png(png_chunk(b"iTXt", name + b"\1\0\0\0" + gigabyte)),
        "PNG profile": _png(png_chunk(b"iCCP", name + b"\0" + gigabyte)),
        "PNG of 100,000 texts": _png(*[png_chunk(b"tEXt", b"k%d\0v" % n) for n in range(100_000)]),
        "PNG pixels beyond its size": _png(png_chunk(b"IDAT", gigabyte)),
        "PNG of a million frames": _png(png_chunk(b"acTL", struct.pack(">II", 10**6, 0))),
        "PNG of XMP laughs": _png(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)),
        "GIF of 200,000 frames": _gif_frames(200_000),
        "WebP of 30,000 frames": _webp_frames(30_000),
        "TIFF of 2,000 pages": _tiff_pages(2_000),
        "TIFF that follows itself": _tiff(*strips, (273, 4, 1, 8), (279, 4, 1, 9_600), following=8),
        "TIFF strip of 4 GB": _tiff(*strips, (273, 4, 1, 8), (279, 4, 1, 0xFFFFFFFF)),
        "TIFF of 4 billion strips": _tiff(*strips, (273, 4, 0xFFFFFFFF, 8), (279, 4, 0xFFFFFFFF, 8)),
        "TIFF deflate": _tiff(
            *[(259, 3, 1, 8) if entry[0] == 259 else entry for entry in strips],
            (273, 4, 1, 98),
            (279, 4, 1, len(gigabyte)),
        )
        + gigabyte,
        "JPEG of 30,000 segments": _jpeg(*[_segment(0xE5, b"x" * 60)] * 30_000),
        "JPEG of 5,000 comments": _jpeg(*[_segment(0xFE, b"x" * 600)] * 5_000),
        "JPEG of 100 scans": _progressive_scans(100),
        "JPEG profile in 255 parts": _jpeg(
            *[_segment(0xE2, b"ICC_PROFILE\0" + bytes([n, 255]) + bytes(16_000)) for n in range(1, 256)]
        ),
        "EXIF that follows itself": _jpeg(_segment(0xE1, _exif(1, (0x8769, 4, 1, 8), 8))),
        "EXIF of 4 billion values": _jpeg(_segment(0xE1, _exif(5_000, (ORIENTATION, 5, 0xFFFFFFFF, 8), 0))),
        "XMP laughs": _jpeg(_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp)),
    }
