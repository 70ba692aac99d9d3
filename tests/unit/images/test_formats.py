"""Every format and colour representation becomes the same picture."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageCms

from model.captioner import Preprocessing
from model.image_formats import declared_pixels
from model.images import read_image
from tests.unit.images.samples import (
    LONGEST_SIGNATURE,
    PREPROCESSING,
    SIZE,
    animated,
    deep,
    encode,
    many,
    png16,
    png_chunk,
    scene,
    squashed,
    ycck_jpeg,
)

LOSSLESS, LOSSY = 1, 12
WHITE = (255, 255, 255)


def see_through(image: Image.Image) -> Image.Image:
    """The picture with a transparent right half that hides another colour."""
    clear = Image.new("L", image.size, 255)
    clear.paste(0, (image.width // 2, 0, image.width, image.height))
    covered = image.copy()
    covered.putalpha(clear)
    return covered


def on_white(image: Image.Image) -> Image.Image:
    """The picture with a white right half."""
    painted = image.convert("RGB")
    painted.paste(WHITE, (image.width // 2, 0, image.width, image.height))
    return painted


def lab(image: Image.Image) -> Image.Image:
    """The picture in CIE L*a*b*."""
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    assert converted is not None
    return converted


def tiff_12_bit(image: Image.Image) -> bytes:
    """A little-endian 12-bit gray TIFF, two values in three bytes, as microscopes and scanners write it."""
    values = (np.asarray(image).astype(np.uint16) * 16).reshape(-1, 2)
    packed = np.stack(
        [values[:, 0] >> 4, (values[:, 0] & 15) << 4 | values[:, 1] >> 8, values[:, 1] & 255], 1
    )
    body = packed.astype(np.uint8).tobytes()
    width, height = image.size
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (279, len(body))])
    return struct.pack("<2sHI", b"II", 42, 8 + len(body)) + body + struct.pack("<H", 9) + entries + bytes(4)


RGB = scene()
GRAY = RGB.convert("L")
BILEVEL = GRAY.point(lambda value: 255 if value > 100 else 0).convert("1")
PALETTE = RGB.quantize(4, dither=Image.Dither.NONE)
FLOAT = Image.fromarray(np.asarray(GRAY).astype(np.float32) / 255)
DARKEST, BRIGHTEST = int(np.asarray(GRAY).min()), int(np.asarray(GRAY).max())
STRETCHED = GRAY.point(lambda value: (value - DARKEST) * 255 / (BRIGHTEST - DARKEST))

SAMPLES: dict[str, tuple[Callable[[], bytes], Image.Image, int]] = {
    "jpeg": (lambda: encode(RGB, "JPEG", quality=95), RGB, LOSSY),
    "jpeg-progressive": (lambda: encode(RGB, "JPEG", quality=95, progressive=True), RGB, LOSSY),
    "jpeg-gray": (lambda: encode(GRAY, "JPEG", quality=95), GRAY, LOSSY),
    "jpeg-cmyk": (lambda: encode(RGB.convert("CMYK"), "JPEG", quality=95), RGB, LOSSY),
    "jpeg-ycck": (lambda: ycck_jpeg(RGB), RGB, LOSSY),
    "jpeg-rgb": (lambda: encode(RGB, "JPEG", quality=95, keep_rgb=True), RGB, LOSSY),
    "mpo": (lambda: animated("MPO", quality=95), RGB, LOSSY),
    "png": (lambda: encode(RGB, "PNG"), RGB, LOSSLESS),
    "png-gray": (lambda: encode(GRAY, "PNG"), GRAY, LOSSLESS),
    "png-bilevel": (lambda: encode(BILEVEL, "PNG"), BILEVEL, LOSSLESS),
    "png-palette": (lambda: encode(PALETTE, "PNG"), PALETTE, LOSSLESS),
    "png-palette-clear": (lambda: encode(see_through(RGB).quantize(8), "PNG"), on_white(RGB), 3),
    "png-alpha": (lambda: encode(see_through(RGB), "PNG"), on_white(RGB), 3),
    "png-gray-alpha": (lambda: encode(see_through(GRAY), "PNG"), on_white(GRAY), 3),
    "png-gray-16": (lambda: png16(deep(GRAY)), GRAY, LOSSLESS),
    "png-rgb-16": (lambda: png16(deep(RGB)), RGB, LOSSLESS),
    "apng": (lambda: animated("PNG"), RGB, LOSSLESS),
    "gif": (lambda: encode(PALETTE, "GIF"), PALETTE, LOSSLESS),
    "gif-interlaced": (lambda: encode(PALETTE, "GIF", interlace=1), PALETTE, LOSSLESS),
    "gif-animated": (lambda: animated("GIF"), RGB, LOSSLESS),
    "gif-clear": (lambda: encode(see_through(RGB), "GIF"), on_white(RGB), 3),
    "bmp": (lambda: encode(RGB, "BMP"), RGB, LOSSLESS),
    "bmp-palette": (lambda: encode(PALETTE, "BMP"), PALETTE, LOSSLESS),
    "bmp-bilevel": (lambda: encode(BILEVEL, "BMP"), BILEVEL, LOSSLESS),
    "webp": (lambda: encode(RGB, "WEBP", quality=95), RGB, 24),
    "webp-lossless": (lambda: encode(RGB, "WEBP", lossless=True), RGB, LOSSLESS),
    "webp-alpha": (lambda: encode(see_through(RGB), "WEBP", lossless=True), on_white(RGB), 3),
    "webp-animated": (lambda: animated("WEBP", lossless=True), RGB, LOSSLESS),
    "tiff": (lambda: encode(RGB, "TIFF"), RGB, LOSSLESS),
    "tiff-big": (lambda: encode(RGB, "TIFF", big_tiff=True), RGB, LOSSLESS),
    "tiff-lzw": (lambda: encode(RGB, "TIFF", compression="tiff_lzw"), RGB, LOSSLESS),
    "tiff-deflate": (lambda: encode(RGB, "TIFF", compression="tiff_adobe_deflate"), RGB, LOSSLESS),
    "tiff-packbits": (lambda: encode(PALETTE, "TIFF", compression="packbits"), PALETTE, LOSSLESS),
    "tiff-jpeg": (lambda: encode(RGB, "TIFF", compression="jpeg", quality=95), RGB, LOSSY),
    "tiff-fax": (lambda: encode(BILEVEL, "TIFF", compression="group4"), BILEVEL, LOSSLESS),
    "tiff-cmyk": (lambda: encode(RGB.convert("CMYK"), "TIFF"), RGB, LOSSLESS),
    "tiff-lab": (lambda: encode(lab(RGB), "TIFF"), RGB, 6),
    "tiff-alpha": (lambda: encode(see_through(RGB), "TIFF"), on_white(RGB), 3),
    "tiff-gray-16": (lambda: encode(Image.fromarray(deep(GRAY)), "TIFF"), GRAY, LOSSLESS),
    "tiff-gray-12": (lambda: tiff_12_bit(GRAY), GRAY, LOSSLESS),
    "tiff-float": (lambda: encode(FLOAT, "TIFF"), STRETCHED, 2),
    "tiff-pages": (lambda: animated("TIFF"), RGB, LOSSLESS),
    "avif": (lambda: encode(RGB, "AVIF", quality=90), RGB, LOSSY),
    "avif-alpha": (lambda: encode(see_through(RGB), "AVIF", quality=90), on_white(RGB), 24),
    "avif-animated": (lambda: animated("AVIF", quality=90), RGB, LOSSY),
    "heic": (lambda: encode(RGB, "HEIC", quality=90), RGB, LOSSY),
    "heic-alpha": (lambda: encode(see_through(RGB), "HEIC", quality=90), on_white(RGB), 24),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_format_shows_the_scene(name: str) -> None:
    make, expected, tolerance = SAMPLES[name]
    image = read_image(make(), PREPROCESSING)
    assert (image.width, image.height) == SIZE
    assert image.pixels.shape == (PREPROCESSING.height, PREPROCESSING.width, 3)
    assert image.pixels.dtype == np.uint8
    off = np.abs(image.pixels - squashed(expected))
    # Chroma is halved by lossy formats, so the seams between the quadrants may be further off.
    assert np.median(off) <= min(tolerance, 4)
    assert np.percentile(off, 85) <= tolerance


def test_deep_colours_in_steps_finer_than_eight_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256 * 4).astype(np.uint16).reshape(1, -1).repeat(8, 0)
    wide = replace(PREPROCESSING, width=256, height=8, resample="box")
    for data in (png16(ramp), encode(Image.fromarray(ramp), "TIFF")):
        row = read_image(data, wide).pixels[0, :, 0].astype(int)
        assert np.abs(row - np.arange(256)).max() <= 1


@pytest.mark.parametrize("transparent", [(200, 40, 40), None])
def test_a_transparent_colour_of_an_8_bit_png_shows_white(transparent: tuple[int, int, int] | None) -> None:
    options = {} if transparent is None else {"transparency": transparent}
    image = read_image(encode(RGB, "PNG", **options), PREPROCESSING)
    assert tuple(image.pixels[4, 4]) == (WHITE if transparent else (200, 40, 40))
    assert tuple(image.pixels[-4, -4]) == (230, 200, 60)


@pytest.mark.parametrize("colours", ["gray", "RGB"])
def test_a_transparent_colour_of_a_16_bit_png_shows_white(colours: str) -> None:
    values = deep(RGB if colours == "RGB" else GRAY) // 256 * 256 + 7
    key = np.atleast_1d(values[0, 0]).astype(">u2").tobytes()
    image = read_image(png16(values, png_chunk(b"tRNS", key)), PREPROCESSING)
    assert tuple(image.pixels[4, 4]) == WHITE
    assert np.abs(image.pixels[-4, -4].astype(int) - values[-1, -1] // 256).max() <= 1


def test_half_transparent_colours_are_mixed_with_white() -> None:
    image = Image.new("RGBA", SIZE, (200, 0, 100, 128))
    pixels = read_image(encode(image, "PNG"), PREPROCESSING).pixels
    assert np.abs(pixels.astype(int) - (227, 127, 177)).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIC"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    turns = (
        lambda image: image,
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda image: image.transpose(Image.Transpose.ROTATE_180),
        lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        lambda image: image.transpose(Image.Transpose.ROTATE_90),
        lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        lambda image: image.transpose(Image.Transpose.ROTATE_270),
    )
    # Stored turned the other way round, the tag brings it upright again.
    stored, exif = turns[orientation - 1](RGB), Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif.tobytes()} if kind == "HEIC" else {"exif": exif}
    image = read_image(encode(stored, kind, **options), PREPROCESSING)
    assert (image.width, image.height) == SIZE
    assert np.percentile(np.abs(image.pixels - squashed(RGB)), 85) <= 24


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_crop_is_the_centre_of_the_upright_picture(orientation: int) -> None:
    upright = scene()
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = read_image(encode(stored, "PNG", exif=exif), Preprocessing(20, 40, "bicubic", "crop"))
    expected = upright.resize((20, 40), Image.Resampling.BICUBIC, (40, 0, 80, 80))
    assert (found.width, found.height) == SIZE
    assert np.abs(found.pixels.astype(int) - np.asarray(expected)).max() <= LOSSLESS


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_a_broken_exif_block_does_not_fail_the_image(exif: bytes) -> None:
    whole = encode(RGB, "JPEG", quality=95)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    image = read_image(whole[:2] + segment + whole[2:], PREPROCESSING)
    assert np.array_equal(image.pixels, read_image(whole, PREPROCESSING).pixels)


def test_a_png_with_a_very_long_compressed_text_is_read() -> None:
    body = b"history\0\0" + zlib.compress(b"brush stroke " * 400_000)
    whole = encode(RGB, "PNG")
    image = read_image(whole[:33] + png_chunk(b"zTXt", body) + whole[33:], PREPROCESSING)
    assert np.array_equal(image.pixels, squashed(RGB))


@pytest.mark.parametrize("size", [(1008, 756), (2016, 1512), (4032, 3024)])
def test_large_jpegs_are_scaled_while_decoding_without_visible_loss(
    photo: Image.Image, size: tuple[int, int]
) -> None:
    preprocessing = replace(PREPROCESSING, width=224, height=224)
    large = photo.resize(size, Image.Resampling.LANCZOS)
    image = read_image(encode(large, "JPEG", quality=92), preprocessing)
    plain = np.asarray(large.resize((224, 224), Image.Resampling.BICUBIC)).astype(np.float64)
    noise = np.mean((image.pixels - plain) ** 2)
    assert (image.width, image.height) == size
    assert 10 * np.log10(255**2 / noise) >= 40


@pytest.fixture
def photo() -> Image.Image:
    """Something with texture: smooth noise at several scales."""
    random = np.random.default_rng(7)
    layers = [
        Image.fromarray(random.integers(0, 256, (side * 3, side * 4, 3), np.uint8)).resize((1008, 756))
        for side in (4, 16, 48)
    ]
    return Image.blend(Image.blend(layers[0], layers[1], 0.4), layers[2], 0.3)


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (2, 3)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_tiny_and_extremely_long_images_are_read(size: tuple[int, int], kind: str) -> None:
    image = read_image(encode(Image.new("RGB", size, (250, 120, 10)), kind), PREPROCESSING)
    assert (image.width, image.height) == size
    assert np.abs(image.pixels.astype(int) - (250, 120, 10)).max() <= 6


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "HEIC"])
def test_one_pixel_is_read_in_video_formats(kind: str) -> None:
    image = read_image(encode(Image.new("RGB", (1, 1), (250, 120, 10)), kind), PREPROCESSING)
    assert np.abs(image.pixels.astype(int) - (250, 120, 10)).max() <= 16


def test_a_memory_view_is_read_like_bytes() -> None:
    data = encode(RGB, "PNG")
    padded = memoryview(b"???" + data)[3:]
    assert np.array_equal(read_image(padded, PREPROCESSING).pixels, read_image(data, PREPROCESSING).pixels)


@pytest.mark.parametrize("name", many())
def test_the_declared_size_is_known_without_decoding(name: str) -> None:
    data = many()[name]
    assert declared_pixels(data) == SIZE[0] * SIZE[1]
    assert declared_pixels(data[:LONGEST_SIGNATURE]) == 0
