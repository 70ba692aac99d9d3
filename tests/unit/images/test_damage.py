"""Bad files end as the right ``ImageError`` with a message for people, and never as anything else."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from model.captioner import Preprocessing
from model.errors import CorruptImage, ImageError, ImageTooLarge, UnsupportedImage
from model.images import DecodedImage, read_image
from tests.unit.images.samples import LONGEST_SIGNATURE, PREPROCESSING, encode, many, png, png_chunk, scene

# Pillow warns about damage that it survives.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

FILES = many()


def outcome(data: bytes, max_pixels: int = 100_000_000) -> DecodedImage | ImageError:
    try:
        return read_image(data, PREPROCESSING, max_pixels)
    except ImageError as error:
        return error


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("cat.jpg", FILES["jpeg"])
    return buffer.getvalue()


NOT_IMAGES = {
    "text": b"a dog runs over the grass\n" * 40,
    "html": b"<!doctype html><title>404</title>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) print\n",
    "zip": zipped(),
    "mp4": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(100),
    "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
    "icon": encode(scene(), "ICO"),
    "tga": encode(scene(), "TGA"),
    "ppm": encode(scene(), "PPM"),
    "zeros": bytes(4096),
    "noise": random.Random(3).randbytes(4096),
    "a cut signature": b"\x89PN",
}


@pytest.mark.parametrize("name", NOT_IMAGES)
def test_what_is_no_image_of_ours_is_unsupported(name: str) -> None:
    with pytest.raises(UnsupportedImage, match=r"no image of a supported format .*JPEG, PNG"):
        read_image(NOT_IMAGES[name], PREPROCESSING)


def test_an_empty_file_says_so() -> None:
    with pytest.raises(UnsupportedImage, match="empty"):
        read_image(b"", PREPROCESSING)


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_refused_or_read_whole_but_never_half(name: str) -> None:
    whole = FILES[name]
    pixels = read_image(whole, PREPROCESSING).pixels
    refused = 0
    for length in range(LONGEST_SIGNATURE, len(whole), max(1, len(whole) // 90)):
        cut = outcome(whole[:length])
        if isinstance(cut, DecodedImage):
            assert np.array_equal(cut.pixels, pixels), f"{length} of {len(whole)} bytes"
            continue
        # A TIFF whose directory is cut can look like a variant with fewer tags.
        early = length < 2 * LONGEST_SIGNATURE or name.startswith("tiff")
        assert isinstance(cut, CorruptImage) or (early and isinstance(cut, UnsupportedImage)), cut
        refused += 1
    assert refused > 30


@pytest.mark.parametrize("name", ["jpeg", "jpeg-progressive", "bmp", "tiff", "webp", "avif", "heic"])
def test_losing_the_last_tenth_is_corrupt(name: str) -> None:
    with pytest.raises(CorruptImage, match="truncated or damaged"):
        read_image(FILES[name][: len(FILES[name]) * 9 // 10], PREPROCESSING)


@given(
    name=st.sampled_from(sorted(FILES)),
    edits=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6)), min_size=1, max_size=8
    ),
    header=st.booleans(),
)
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_damage_raises_anything_but_an_image_error(
    name: str, edits: list[tuple[float, bytes]], header: bool
) -> None:
    data = bytearray(FILES[name])
    for where, patch in edits:
        at = int(where * (min(len(data), 100) if header else len(data)))
        data[at : at + max(1, len(patch))] = patch
    result = outcome(bytes(data), max_pixels=1_000_000)
    if isinstance(result, DecodedImage):
        assert result.pixels.shape == (PREPROCESSING.height, PREPROCESSING.width, 3)
    else:
        assert str(result)
        assert "object at 0x" not in str(result)


@given(st.binary(max_size=200), st.sampled_from([data[:40] for data in FILES.values()]))
@settings(max_examples=200, deadline=None)
def test_garbage_behind_a_valid_start_is_an_image_error(garbage: bytes, start: bytes) -> None:
    with pytest.raises(ImageError):
        read_image(start + garbage, PREPROCESSING)


def declared(size: tuple[int, int]) -> dict[str, bytes]:
    """Files of a few bytes that declare to be of the given size."""
    width, height = size
    jpeg, gif, bmp = (bytearray(FILES[name]) for name in ("jpeg", "gif", "bmp"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    gif[6:10] = struct.pack("<HH", width, height)
    bmp[18:26] = struct.pack("<ii", width, height)
    tiff = bytearray(FILES["tiff"])
    for tag, value in ((256, width), (257, height)):
        at = tiff.index(struct.pack("<H", tag), struct.unpack("<I", tiff[4:8])[0])
        tiff[at : at + 12] = struct.pack("<HHII", tag, 4, 1, value)
    webp = bytearray(FILES["webp-animated"])
    webp[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    heic = bytearray(FILES["heic"])
    at = heic.index(b"ispe") + 8
    heic[at : at + 8] = struct.pack(">II", width, height)
    return {
        "png": png(size, 8, 2, b"\0" * 64),
        "jpeg": bytes(jpeg),
        "gif": bytes(gif),
        "bmp": bytes(bmp),
        "tiff": bytes(tiff),
        "webp": bytes(webp),
        "heic": bytes(heic),
    }


@pytest.mark.parametrize("name", declared((1, 1)))
@pytest.mark.parametrize("size", [(50_000, 50_000), (10_001, 10_000)])
def test_more_pixels_than_the_limit_are_refused_from_the_header(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooLarge, match="pixels"):
        read_image(declared(size)[name], PREPROCESSING)


def test_a_gif_frame_larger_than_its_canvas_counts() -> None:
    data = bytearray(encode(Image.new("P", (8, 8)), "GIF"))
    frame = data.index(b",")
    data[frame + 5 : frame + 9] = struct.pack("<HH", 12_000, 12_000)
    with pytest.raises(ImageTooLarge, match="pixels"):
        read_image(bytes(data), PREPROCESSING)


@pytest.mark.parametrize("name", ["jpeg", "png", "avif", "heic", "tiff-lzw", "webp"])
def test_the_limit_itself_is_allowed_and_one_pixel_more_is_not(name: str) -> None:
    pixels = scene().width * scene().height
    read_image(FILES[name], PREPROCESSING, max_pixels=pixels)
    with pytest.raises(ImageTooLarge, match=f"120 x 80 pixels .* limit of {pixels - 1:,}"):
        read_image(FILES[name], PREPROCESSING, max_pixels=pixels - 1)


def test_a_small_file_of_a_huge_picture_is_refused_without_decoding_it() -> None:
    side = 12_000
    rows = zlib.compressobj(9)
    body = b"".join(rows.compress(bytes(1 + side)) for _ in range(side)) + rows.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    )
    assert len(data) < 200_000
    with pytest.raises(ImageTooLarge, match="12000 x 12000"):
        read_image(data, PREPROCESSING)


def test_variants_that_cannot_be_read_are_named() -> None:
    bmp, tiff = bytearray(FILES["bmp"]), bytearray(FILES["tiff"])
    bmp[28] = 7
    with pytest.raises(UnsupportedImage, match=r"variant of BMP .*pixel depth"):
        read_image(bytes(bmp), PREPROCESSING)
    colours = tiff.index(struct.pack("<HHI", 262, 3, 1), struct.unpack("<I", tiff[4:8])[0])
    tiff[colours + 8] = 9
    with pytest.raises(UnsupportedImage, match="variant of TIFF"):
        read_image(bytes(tiff), PREPROCESSING)


def test_an_unknown_resampling_is_a_fault_of_the_checkpoint_not_of_the_image() -> None:
    with pytest.raises(KeyError):
        read_image(FILES["png"], Preprocessing(8, 8, "sharpest"))


def test_importing_stays_light() -> None:
    probe = "import sys, model.images; print(sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert "'model.images'" in run.stdout
    for heavy in ("torch", "openvino", "flask", "sqlalchemy", "PIL.EpsImagePlugin"):
        assert f"'{heavy}'" not in run.stdout
