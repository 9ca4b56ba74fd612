"""Exotic formats look right, corrupt files are refused with a reason, pixel conversion is exact."""

import contextlib
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from calotype.images import Picture, Source, UnreadablePictureError, decode_picture, prepare, to_float, to_uint8
from calotype.images.decode import MAX_PIXELS, Transform, decode
from calotype.images.settings import PictureConfig
from tests.images.making import BLUE, GREEN, RED, YELLOW, Heard, encoded, quadrants

CORNERS = [RED, GREEN, BLUE, YELLOW]


def corners(pixels: np.ndarray) -> np.ndarray:
    """Colours in the middle of the four quadrants, (4, 3)."""
    near, far = pixels.shape[-1] // 4, 3 * pixels.shape[-1] // 4
    return np.stack([pixels[:, y, x] for y in (near, far) for x in (near, far)]).astype(int)


def assert_quadrants(pixels: np.ndarray, expected: list[tuple[int, int, int]] = CORNERS, within: int = 8) -> None:
    assert np.abs(corners(pixels) - np.array(expected)).max() <= within, corners(pixels)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "MPO"])
def test_formats(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        assert kind not in Image.OPEN
        return
    options = {"quality": 95} if kind in ("JPEG", "WEBP", "AVIF", "MPO") else {}
    pixels = decode_picture(encoded(quadrants(64, 64), kind, **options), 32)
    assert pixels.shape == (3, 32, 32)
    assert pixels.dtype == np.uint8
    assert_quadrants(pixels)


def test_same_size_is_untouched() -> None:
    values = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    assert np.array_equal(decode_picture(encoded(Image.fromarray(values)), 24), values.transpose(2, 0, 1))


def test_modes() -> None:
    image = quadrants()
    assert_quadrants(decode_picture(encoded(image.quantize(8)), 16))
    assert_quadrants(decode_picture(encoded(image.convert("CMYK"), "JPEG", quality=95), 16), within=12)
    assert_quadrants(decode_picture(encoded(image.convert("CMYK"), "TIFF"), 16))
    grey = corners(decode_picture(encoded(image.convert("L")), 16))
    expected = np.array([image.convert("L").getpixel((x, y)) for y in (8, 24) for x in (8, 24)])
    assert np.abs(grey - expected[:, None]).max() <= 1
    assert set(np.unique(decode_picture(encoded(image.convert("1")), 32))) <= {0, 255}


@pytest.mark.parametrize(("kind", "dtype", "top"), [("PNG", np.uint16, 65535), ("TIFF", np.uint16, 65535)])
def test_sixteen_bits_keep_their_brightness(kind: str, dtype: type, top: int) -> None:
    values = np.linspace(0, top, 32 * 32).reshape(32, 32).astype(dtype)
    pixels = decode_picture(encoded(Image.fromarray(values), kind), 32)
    assert np.abs(pixels[0].astype(float) - values / top * 255).max() <= 0.5
    assert (pixels[0] == pixels[1]).all()


def test_float_and_wide_integer_tiffs() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    for image in (Image.fromarray(ramp), Image.fromarray((ramp * 65535).astype(np.int32))):
        pixels = decode_picture(encoded(image, "TIFF"), 16)
        assert np.abs(pixels[0].astype(float) - ramp * 255).max() <= 1
    ramp[3, 3] = np.nan
    with pytest.raises(UnreadablePictureError, match="not finite"):
        decode_picture(encoded(Image.fromarray(ramp), "TIFF"), 16)


def test_transparency_shows_the_background() -> None:
    image = quadrants().convert("RGBA")
    image.putpixel((8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 0), (0, 0, 16, 16))
    image.paste((0, 0, 0, 128), (16, 0, 32, 16))
    assert_quadrants(decode_picture(encoded(image), 32), [(255, 255, 255), (127, 127, 127), BLUE, YELLOW])
    red_below = decode_picture(encoded(image), 32, background=(200, 0, 0))
    assert_quadrants(red_below, [(200, 0, 0), (100, 0, 0), BLUE, YELLOW])


def test_transparent_palette_key_colour_and_grey_alpha() -> None:
    palette = quadrants().quantize(4)
    clear = palette.getpixel((0, 0))
    assert_quadrants(decode_picture(encoded(palette, transparency=clear), 32), [(255, 255, 255), *CORNERS[1:]])
    key = encoded(quadrants(), transparency=RED)
    assert_quadrants(decode_picture(key, 32), [(255, 255, 255), *CORNERS[1:]])
    grey = Image.new("LA", (16, 16), (0, 0))
    assert (decode_picture(encoded(grey), 16) == 255).all()


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.abs(corners(decode_picture(content, 16)) - RED).max() <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    """A viewer that applies the tag sees the same picture, whatever way the camera was held."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = quadrants().transpose(undo[orientation]) if orientation > 1 else quadrants()
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_quadrants(decode_picture(encoded(stored, "JPEG", exif=exif, quality=95), 32))


def test_broken_exif_is_passed_over(tmp_path: Path) -> None:
    """Neither the picture is lost nor the user bothered by the decoder's own warnings."""
    content = encoded(quadrants(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\xff\xff\xff", quality=95)
    bomb = png_claiming(9_000, 9_999)
    source = Source("x", [Picture(f"{i}", lambda i=i: [content, content, bomb][i]) for i in range(3)])  # type: ignore[misc]
    found = prepare(source, 32, tmp_path, Heard(), PictureConfig(max_refused=0.5))
    assert_quadrants(found.pixels[0].numpy())
    assert found.refused == 1
    assert "64,000,000" in (tmp_path / "quarantine.jsonl").read_text()


def test_centre_crop_and_antialiasing() -> None:
    wide = Image.new("RGB", (96, 32), BLUE)
    wide.paste(quadrants(32, 32), (32, 0))
    assert_quadrants(decode_picture(encoded(wide), 32))
    assert_quadrants(decode_picture(encoded(wide.transpose(Image.Transpose.TRANSPOSE)), 32), [RED, BLUE, GREEN, YELLOW])
    stripes = np.zeros((512, 512, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    shrunk = decode_picture(encoded(Image.fromarray(stripes)), 32)
    assert np.abs(shrunk.astype(int) - 128).max() <= 3  # without a filter the stripes would alias to black or white
    assert_quadrants(decode_picture(encoded(quadrants(1000, 1200), "JPEG"), 32))
    assert decode_picture(encoded(Image.new("RGB", (1, 500), RED)), 8).shape == (3, 8, 8)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header states a size and whose data is empty."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_bombs_are_refused_by_their_header() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    for width, height in ((side, side), (9_000, 9_999), (60_000, 60_000)):
        with pytest.raises(UnreadablePictureError):
            decode_picture(png_claiming(width, height), 16)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_truncated_files_are_refused(kind: str) -> None:
    values = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(values), kind)
    for length in (3, len(content) // 3, len(content) * 2 // 3):
        with pytest.raises(UnreadablePictureError):
            decode_picture(content[:length], 32)


def test_flipped_bytes_never_escape_as_another_error() -> None:
    """Whatever the damage, the file is either decoded or refused; nothing else comes out."""
    random = np.random.default_rng(2)
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"):
        whole = np.frombuffer(encoded(quadrants(), kind), dtype=np.uint8)
        for _ in range(40):
            damaged = whole.copy()
            damaged[random.integers(0, len(whole), 5)] = random.integers(0, 256, 5)
            with contextlib.suppress(UnreadablePictureError):
                assert decode_picture(damaged.tobytes(), 16).shape == (3, 16, 16)


def test_what_is_not_a_picture_is_named() -> None:
    with pytest.raises(UnreadablePictureError, match="empty"):
        decode_picture(b"", 16)
    for content in (
        b"not a picture at all",
        b"%PDF-1.7",
        b"\0" * 1000,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9",
    ):
        with pytest.raises(UnreadablePictureError, match="known format"):
            decode_picture(content, 16)


def test_pixel_range_round_trip_is_exact() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    images = to_float(pixels)
    assert images.dtype == torch.float32
    assert images[0] == -1
    assert images[-1] == 1
    assert torch.equal(to_uint8(images), pixels)
    assert to_uint8(torch.tensor([-7.0, 0.0, 7.0])).tolist() == [0, 128, 255]


def test_random_crops_are_drawn_from_the_content() -> None:
    """Pure, all along the longer side, different from file to file; a square picture has one place only."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    crops = Transform(64, "random", 40)

    def places(values: np.ndarray) -> list[int]:
        return decode(encoded(Image.fromarray(values)), crops).pixels[:, 0].min((1, 2)).tolist()  # type: ignore[no-any-return]

    found = places(ramp)
    assert found == places(ramp)
    assert len(set(found)) == len(found) > 20
    assert min(found) < 20
    assert max(found) > 172
    assert places(ramp.transpose(1, 0, 2)) != found  # another file
    assert all(0 <= place <= 192 for place in places(ramp.transpose(1, 0, 2)))
    fewer = decode(encoded(Image.fromarray(ramp)), Transform(64, "random", 2)).pixels
    assert fewer[:, 0].min((1, 2)).tolist() == found[:2]  # asking for more leaves the first ones
    for values in (ramp[:, :64], ramp[:, 5:70][:64]):
        assert len(places(values)) <= 2
    assert decode(encoded(Image.fromarray(ramp[:, :64])), crops).pixels.shape == (1, 3, 64, 64)
    assert decode(encoded(Image.fromarray(ramp)), Transform(64)).pixels[0, 0].min() == 96


def test_what_lies_among_pictures_is_named() -> None:
    for content, reason in (
        (b"\0\0\0\x18ftypheic\0\0", "HEIC"),
        (b"<!doctype HTML><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n", "header is damaged"),
    ):
        with pytest.raises(UnreadablePictureError, match=reason):
            decode_picture(content, 16)


def test_wide_greys_cost_no_more_memory_than_their_file() -> None:
    """64 million pixels of 16 bits as 64-bit floats would be 512 MB: they are converted a band of rows at a time."""
    values = np.zeros((1000, 4000), dtype=np.uint16)
    values[:, 2000:] = 65535
    content = encoded(Image.fromarray(values), "TIFF")
    tracemalloc.start()
    pixels = decode_picture(content, 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (pixels[0, :, :7] == 0).all()
    assert (pixels[0, :, 9:] == 255).all()
    assert peak < 2 * len(content) + 16 * 2**20
