"""Intact picture files of unusual kinds, all of the same four quadrants, and what they should look like decoded."""

import struct
import zlib
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, features

from tests.images.making import BLUE, GREEN, RED, YELLOW, encoded, quadrants

CORNERS = (RED, GREEN, BLUE, YELLOW)
WHITE = (255, 255, 255)
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
UNDO = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class Exotic:
    """A file, the colours of its four quadrants, and how far decoded ones may be from them."""

    content: bytes
    expected: tuple[tuple[int, int, int], ...] = CORNERS
    within: int = 3


@cache
def exotic_files() -> dict[str, Exotic]:
    """Every kind that this build of Pillow can write, by name."""
    files = _jpegs() | _pngs() | _gifs_and_webps() | _tiffs() | _others()
    if features.check("avif"):
        files |= _avifs()
    return files


def corners(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Mean colours of the four quadrants' inner parts, (4, 3)."""
    side = pixels.shape[-1]
    parts = (slice(side // 8, 3 * side // 8), slice(5 * side // 8, 7 * side // 8))
    means = [pixels[:, rows, columns].mean((1, 2)) for rows in parts for columns in parts]
    return np.stack(means).round().astype(int)


def greys() -> tuple[tuple[int, int, int], ...]:
    """The quadrants' colours in a greyscale file."""
    return tuple((Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0)),) * 3 for colour in CORNERS)  # type: ignore[misc]


def turned(orientation: int, image: Image.Image | None = None) -> Image.Image:
    """Quadrants as a camera stores them that was held so."""
    image, undo = image or quadrants(48, 32), UNDO[orientation]
    return image if undo is None else image.transpose(undo)


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def raw_png(values: NDArray[Any], colour: int, depth: int, *, interlaced: bool = False, clear: bytes = b"") -> bytes:
    """A PNG of `values` (h, w, channels), for what Pillow does not write: 16 bits in colour, interlacing."""
    wide = values.astype(">u2" if depth == 16 else "u1")
    passes = [wide[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [wide]
    lines = b"".join(b"\0" + row.tobytes() for part in passes if part.shape[1] for row in part)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    middle = chunk(b"tRNS", clear) if clear else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + middle
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def raw_tiff(values: NDArray[np.uint16]) -> bytes:
    """An uncompressed, big-endian TIFF of 16 bits a channel, (h, w, 1) grey or (h, w, 3) RGB."""
    height, width, channels = values.shape
    data = values.astype(">u2").tobytes()
    shorts = {256: width, 257: height, 259: 1, 262: 2 if channels == 3 else 1, 277: channels, 278: height}
    entries = {tag: struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in shorts.items()}
    entries[258] = struct.pack(">HHI", 258, 3, channels) + (struct.pack(">I", 8) if channels == 3 else b"\0\x10\0\0")
    entries |= {tag: struct.pack(">HHII", tag, 4, 1, value) for tag, value in ((273, 14), (279, len(data)))}
    table = struct.pack(">H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    return b"MM\0*" + struct.pack(">IHHH", 14 + len(data), 16, 16, 16) + data + table


def wide_gamut() -> bytes:
    """A colour profile whose red and green are exchanged: who ignores it is found out."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "Swap".encode("utf-16-be"))


def _jpegs() -> dict[str, Exotic]:
    image, jpeg = quadrants(64, 48), partial(encoded, kind="JPEG", quality=95)
    files = {
        "jpeg": Exotic(jpeg(image)),
        "jpeg progressive": Exotic(jpeg(image, progressive=True)),
        "jpeg 4:4:4": Exotic(jpeg(image, subsampling=0)),
        "jpeg rgb": Exotic(jpeg(image, keep_rgb=True)),
        "jpeg grey": Exotic(jpeg(image.convert("L")), greys()),
        "jpeg cmyk": Exotic(jpeg(image.convert("CMYK"))),
        "jpeg large": Exotic(jpeg(quadrants(2000, 1500))),
        "jpeg large grey": Exotic(jpeg(quadrants(1500, 2000).convert("L")), greys()),
        "jpeg large cmyk": Exotic(jpeg(quadrants(1500, 1500).convert("CMYK"))),
        "jpeg broken exif": Exotic(jpeg(image, exif=b"Exif\0\0MM\0*\0\0\0\xff\xff\xff")),
        "jpeg junk behind": Exotic(jpeg(image) + bytes(100)),
        "jpeg broken profile": Exotic(jpeg(image, icc_profile=b"not a profile")),
        "jpeg profile": Exotic(
            jpeg(Image.merge("RGB", [image.split()[i] for i in (1, 0, 2)]), icc_profile=wide_gamut())
        ),
        "mpo": Exotic(encoded(image, "MPO", quality=95, save_all=True, append_images=[Image.new("RGB", (64, 48))])),
    }
    return files | {f"jpeg turned {way}": Exotic(jpeg(turned(way), exif=exif(way))) for way in range(2, 9)}


def _pngs() -> dict[str, Exotic]:
    image = quadrants()
    values = np.asarray(image)
    wide = values.astype(np.uint16) * 257
    grey, alpha = np.asarray(image.convert("L")), np.full((32, 32, 1), 255, dtype=np.uint16)
    alpha[:16, :16] = 0
    missing, half = (WHITE, *CORNERS[1:]), Image.new("L", (32, 32), 255)
    half.paste(0, (0, 0, 16, 16))
    see_through = image.copy()
    see_through.putalpha(half)
    grey_missing = (WHITE, *greys()[1:])
    clear_grey = int(grey[0, 0])
    palette = image.quantize(4)
    return {
        "png": Exotic(encoded(image)),
        "png alpha": Exotic(encoded(see_through), missing),
        "png key colour": Exotic(encoded(image, transparency=RED), missing),
        "png grey": Exotic(encoded(image.convert("L")), greys()),
        "png grey alpha": Exotic(encoded(see_through.convert("LA")), grey_missing),
        "png grey key": Exotic(encoded(image.convert("L"), transparency=clear_grey), grey_missing),
        "png one bit": Exotic(
            encoded(image.convert("L").point(lambda v: 255 * (v > 100), "1")), ((0,) * 3, WHITE, (0,) * 3, WHITE)
        ),
        "png palette": Exotic(encoded(palette)),
        "png palette two bits": Exotic(encoded(palette, bits=2)),
        "png palette clear": Exotic(encoded(palette, transparency=palette.getpixel((0, 0))), missing),
        "png palette alpha": Exotic(encoded(palette, transparency=_table(palette)), missing),
        "png 16 bits grey": Exotic(encoded(Image.fromarray(grey.astype(np.uint16) * 257)), greys()),
        "png 16 bits grey key": Exotic(
            raw_png(grey[..., None].astype(np.uint16) * 257, 0, 16, clear=struct.pack(">H", clear_grey * 257)),
            grey_missing,
        ),
        "png 16 bits rgb": Exotic(raw_png(wide, 2, 16)),
        "png 16 bits rgba": Exotic(raw_png(np.concatenate([wide, alpha * 257], -1), 6, 16), missing),
        "png 16 bits grey alpha": Exotic(
            raw_png(np.concatenate([grey[..., None].astype(np.uint16) * 257, alpha * 257], -1), 4, 16), grey_missing
        ),
        "png 16 bits key": Exotic(raw_png(wide, 2, 16, clear=struct.pack(">HHH", *(257 * v for v in RED))), missing),
        "png interlaced": Exotic(raw_png(values, 2, 8, interlaced=True)),
        "png interlaced 16 bits": Exotic(raw_png(wide, 2, 16, interlaced=True)),
        "png animated": Exotic(encoded(image, save_all=True, append_images=[Image.new("RGB", (32, 32))] * 2)),
        "png turned": Exotic(encoded(turned(6), exif=exif(6))),
        "png profile": Exotic(
            encoded(Image.merge("RGB", [image.split()[i] for i in (1, 0, 2)]), icc_profile=wide_gamut())
        ),
    }


def _table(palette: Image.Image) -> bytes:
    """Alpha of each palette entry: the first quadrant's is clear."""
    table = bytearray(b"\xff" * 4)
    table[palette.getpixel((0, 0))] = 0  # type: ignore[index]
    return bytes(table)


def _gifs_and_webps() -> dict[str, Exotic]:
    image, missing = quadrants(), (WHITE, *CORNERS[1:])
    see_through = image.convert("RGBA")
    see_through.paste((0, 0, 0, 0), (0, 0, 16, 16))
    others = [Image.new("RGB", (32, 32), BLUE), Image.new("RGB", (32, 32), RED)]
    return {
        "gif": Exotic(encoded(image, "GIF")),
        "gif not interlaced": Exotic(encoded(image, "GIF", interlace=0)),
        "gif grey": Exotic(encoded(image.convert("L"), "GIF"), greys()),
        "gif animated": Exotic(encoded(image, "GIF", save_all=True, append_images=others)),
        "gif animated alpha": Exotic(
            encoded(see_through, "GIF", save_all=True, append_images=others, disposal=2), missing
        ),
        "gif alpha": Exotic(encoded(see_through, "GIF"), missing),
        "gif damaged later": Exotic(encoded(image, "GIF", save_all=True, append_images=[*others] * 4)[:-40]),
        "webp": Exotic(encoded(image, "WEBP", quality=95), within=8),
        "webp lossless": Exotic(encoded(image, "WEBP", lossless=True)),
        "webp alpha": Exotic(encoded(see_through, "WEBP", quality=95), missing, within=8),
        "webp lossless alpha": Exotic(encoded(see_through, "WEBP", lossless=True), missing),
        "webp animated": Exotic(encoded(image, "WEBP", lossless=True, save_all=True, append_images=others)),
        "webp turned": Exotic(encoded(turned(8), "WEBP", lossless=True, exif=exif(8))),
    }


def _tiffs() -> dict[str, Exotic]:
    image, tiff = quadrants(), partial(encoded, kind="TIFF")
    grey = np.asarray(image.convert("L"))
    see_through = image.convert("RGBA")
    see_through.paste((0, 0, 0, 0), (0, 0, 16, 16))
    one_bit = image.convert("L").point(lambda v: 255 * (v > 100), "1")
    black_white = ((0,) * 3, WHITE, (0,) * 3, WHITE)
    lab = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    files = {
        "tiff": Exotic(tiff(image)),
        "tiff alpha": Exotic(tiff(see_through), (WHITE, *CORNERS[1:])),
        "tiff palette": Exotic(tiff(image.quantize(4))),
        "tiff cmyk": Exotic(tiff(image.convert("CMYK"))),
        "tiff lab": Exotic(tiff(lab), within=8),
        "tiff group 4": Exotic(tiff(one_bit, compression="group4"), black_white),
        "tiff 16 bits": Exotic(tiff(Image.fromarray(grey.astype(np.uint16) * 257)), greys()),
        "tiff 16 bits big-endian": Exotic(raw_tiff(grey[..., None].astype(np.uint16) * 257), greys()),
        "tiff 16 bits rgb": Exotic(raw_tiff(np.asarray(image).astype(np.uint16) * 257)),
        "tiff 32 bits": Exotic(tiff(Image.fromarray(grey.astype(np.int32) * 257)), greys()),
        "tiff float": Exotic(tiff(Image.fromarray((grey / 255).astype(np.float32))), greys()),
        "tiff pages": Exotic(tiff(image, save_all=True, append_images=[Image.new("RGB", (9, 9))])),
        "tiff turned": Exotic(tiff(turned(6), tiffinfo={0x0112: 6})),
    }
    packed = ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")
    return files | {f"tiff {how}": Exotic(tiff(image, compression=how), within=8) for how in packed}


def _others() -> dict[str, Exotic]:
    image = quadrants()
    grey = np.asarray(image.convert("L"))
    text = " ".join(str(v) for v in np.asarray(image).flatten())
    return {
        "bmp": Exotic(encoded(image, "BMP")),
        "bmp palette": Exotic(encoded(image.quantize(4), "BMP")),
        "bmp grey": Exotic(encoded(image.convert("L"), "BMP"), greys()),
        "bmp 32 bits": Exotic(encoded(image.convert("RGBA"), "BMP")),
        "ppm": Exotic(encoded(image, "PPM")),
        "ppm in words": Exotic(f"P3 32 32 255 {text}\n".encode()),
        "pgm": Exotic(encoded(image.convert("L"), "PPM"), greys()),
        "pgm 16 bits": Exotic(b"P5 32 32 65535\n" + (grey.astype(">u2") * 257).tobytes(), greys()),
        "pfm": Exotic(b"Pf\n32 32\n-1.0\n" + (grey[::-1] / 255).astype("<f4").tobytes(), greys()),
    }


def _avifs() -> dict[str, Exotic]:
    image = quadrants()
    see_through = image.convert("RGBA")
    see_through.paste((0, 0, 0, 0), (0, 0, 16, 16))
    avif = partial(encoded, kind="AVIF", quality=95, speed=10)
    return {
        "avif": Exotic(avif(image), within=10),
        "avif grey": Exotic(avif(image.convert("L")), greys(), within=8),
        "avif alpha": Exotic(avif(see_through), (WHITE, *CORNERS[1:]), within=8),
        "avif animated": Exotic(avif(image, save_all=True, append_images=[Image.new("RGB", (32, 32))]), within=8),
        "avif turned": Exotic(avif(turned(6), exif=exif(6)), within=8),
    }
