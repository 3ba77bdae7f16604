"""Decode an image file to uint8 at the training resolution, or say why it cannot be decoded."""

import importlib
import importlib.util
import logging
import re
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError, features

from sagan.config import CropName
from sagan.data.budget import Budget
from sagan.data.png import PNG_SIGNATURE, keep_pixels
from sagan.marks import is_figure

MAX_PIXELS = 100_000_000
"""Largest image that is decoded, in pixels. The size is read from the header, before any pixel is decoded."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The only Pillow decoders that are used on files from outside, besides those of AVIF and HEIF where they exist."""
SIGNATURES = {
    b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"RIFF": "WEBP", b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}  # fmt: skip
"""First bytes of a file -> its format."""

DECODING = Budget(2**30)
"""Memory of all images that are being decoded, in bytes: one image of the largest size, or many small ones."""
DRAWN = "drawn by sagan (a grid, sheet or plot): not data"
"""Reason for skipping sagan's own figures."""

SAMPLED = "written by sagan sample: not data"
"""Reason for skipping sagan's own samples among other images."""
INSTALL = "pip install -U pillow 'sagan-torch[heic]'"
"""Command that installs the decoders of AVIF and HEIF."""
NO_DECODER = (
    f"AVIF, not read without an installation: {INSTALL}",
    f"HEIC, not read without an installation: {INSTALL}",
)
"""Reasons for skipping images that could be read after an installation."""

_AVIF, _HEIF = (b"avif", b"avis"), (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_BYTES_PER_PIXEL, _BYTES_PER_NUMBER = 8, 12  # while decoding: of 8-bit colours, and of 16-bit or larger numbers
_BLOCK = 2**20  # numbers that are scaled to 8 bits at once
_UPRIGHT = {  # EXIF orientation -> the transposition that makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DAMAGED = "truncated or damaged"
_SRGB = ImageCms.createProfile("sRGB")
_PROFILE_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}  # Pillow's mode -> the profile's colour space

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Pillow's warnings on odd files reach the terminal


class Unreadable(Exception):
    """Report bytes that cannot be used as an image. The message is the reason in a few words."""


def decode(
    data: bytes,
    *,
    resolution: int,
    image_channels: int,
    background: tuple[int, int, int],
    crop: CropName = "centre",
    max_pixels: int = MAX_PIXELS,
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Decode an image, rotate it upright, make it square, and resize it.

    Args:
        data: a JPEG, PNG, WebP, GIF (its first frame), BMP, TIFF, AVIF or HEIC file.
        resolution: R, side of the result in pixels.
        image_channels: 1 (grey), 3 (sRGB) or 4 (sRGB and alpha, not premultiplied).
        background: red, green and blue, 0 to 255, over which transparent pixels are composited, and which surrounds
            padded images. Not used with 4 channels: transparent pixels surround them.
        crop: crop the central square, or pad the whole image to a square.
        max_pixels: largest image that is decoded.

    Returns:
        The image, uint8 (R, R, image_channels), and its original (width, height) after rotation.

    Raises:
        Unreadable: the bytes are not an image in one of these formats, or it has more than max_pixels.
    """
    if not data:
        raise Unreadable("empty file")
    if is_figure(data):
        raise Unreadable(DRAWN)
    options = (resolution, image_channels, background, crop, max_pixels)
    try:
        return _open_and_decode(data, None, *options)
    except Unreadable as error:
        if not data.startswith(PNG_SIGNATURE) or str(error) != _DAMAGED:
            raise
    # Text, a profile or another chunk that the pixels do not need may be what Pillow refused.
    pixels, profile = keep_pixels(data)
    return _open_and_decode(pixels, profile, *options)


def _open_and_decode(
    data: bytes,
    profile: bytes | None,
    resolution: int,
    image_channels: int,
    background: tuple[int, int, int],
    crop: CropName,
    max_pixels: int,
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Decode as `decode` does; `profile` is a colour profile that is not in the data."""
    kind = format_of(data)
    formats = (_decoder_of(kind),) if kind in ("AVIF", "HEIF") else FORMATS
    try:
        with Image.open(BytesIO(data), formats=formats) as image:
            if profile:
                image.info["icc_profile"] = profile
            return _decode(image, resolution, image_channels, background, crop, max_pixels)
    except Unreadable:
        raise
    except UnidentifiedImageError:
        raise Unreadable(_DAMAGED if kind else "not an image in a supported format") from None
    except Image.DecompressionBombError as error:  # Pillow's own limit; only its message states the size
        pixels = re.search(r"\d+", str(error))
        size = f"{int(pixels[0]) / 1e6:,.0f} megapixels" if pixels else "size"
        raise Unreadable(_too_large(size, max_pixels)) from None
    except MemoryError:
        raise Unreadable("too large for this machine's memory") from None
    except Exception as error:  # decoders may raise any exception on malicious bytes
        raise Unreadable(_DAMAGED) from error


def format_of(data: bytes) -> str | None:
    """Return the format of an image file by its first bytes; None if it is not one that is ever read."""
    if data[4:8] == b"ftyp":
        brands = data[8 : max(16, min(int.from_bytes(data[:4]), 64))]
        if any(brand in brands for brand in _AVIF):
            return "AVIF"
        return "HEIF" if any(brand in brands for brand in _HEIF) else None
    return next((kind for start, kind in SIGNATURES.items() if data.startswith(start)), None)


def extra_formats() -> list[str]:
    """Return those of AVIF and HEIF that can be read here."""
    readable = {"AVIF": features.check("avif"), "HEIF": importlib.util.find_spec("pillow_heif") is not None}
    return [kind for kind, found in readable.items() if found]


def _decoder_of(kind: str) -> str:
    """Make the decoder of AVIF or HEIF known to Pillow, and return its name. Raises Unreadable if there is none."""
    if kind not in extra_formats():
        raise Unreadable(NO_DECODER[("AVIF", "HEIF").index(kind)])
    if kind == "HEIF":
        importlib.import_module("pillow_heif").register_heif_opener()
    return kind


def _decode(
    image: Image.Image,
    resolution: int,
    image_channels: int,
    background: tuple[int, int, int],
    crop: CropName,
    max_pixels: int,
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    # Read the pixels, at a reduced size where that is possible.
    width, height = image.size
    if width * height > max_pixels:
        raise Unreadable(_too_large(f"{width} x {height} pixels", max_pixels))
    # JPEG can be decoded at 1/2, 1/4 or 1/8 of its size; twice the target is enough for Lanczos.
    shrink = 2 * resolution / min(width, height)
    if shrink < 1:
        image.draft(None, (int(width * shrink), int(height * shrink)))
    numbers = image.mode.startswith(("I", "F"))
    cost = image.width * image.height * (_BYTES_PER_NUMBER if numbers else _BYTES_PER_PIXEL)
    with DECODING.spend(cost):
        try:
            return _decode_pixels(image, (width, height), resolution, image_channels, background, crop)
        finally:
            image.close()  # its memory belongs to what was spent


def _decode_pixels(
    image: Image.Image,
    size: tuple[int, int],
    resolution: int,
    image_channels: int,
    background: tuple[int, int, int],
    crop: CropName,
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    width, height = size
    image.load()
    orientation, profile = _orientation(image), image.info.get("icc_profile")
    image = _to_8_bit(image)

    # Rotate upright.
    if orientation >= 5:  # rotated by 90 degrees
        width, height = height, width
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])

    # Resize first: colours are converted faster on the small image.
    image = _to_square(image, resolution) if crop == "centre" else _to_fit(image, resolution)
    if profile:
        image = _to_srgb(image, profile)
    if image_channels == 4:
        image = image.convert("RGBA")
    elif image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)
    image = image.convert({1: "L", 3: "RGB", 4: "RGBA"}[image_channels])
    if crop == "pad":
        image = _pad(image, resolution, background)
    return np.asarray(image).reshape(resolution, resolution, image_channels), (width, height)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # an image with damaged EXIF data is still usable
        return 1


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Convert to mode L, RGB, CMYK or RGBA."""
    if image.mode == "F":
        return _from_numbers(np.asarray(image), "floating-point", 1)
    if image.mode.startswith("I"):  # I;16 in either byte order, or I, which holds 16 bits in older PNG files
        return _from_numbers(np.asarray(image), "integer", 65535)
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _from_numbers(values: NDArray[Any], kind: str, white: int) -> Image.Image:
    """Scale values from 0 (black) to `white` to 8 bits. Floating-point values up to 255 are taken for 8 bits."""
    low, high = float(np.min(values)), float(np.max(values))
    if kind == "floating-point" and 1 < high <= 255:
        white = 255
    if not 0 <= low <= high <= white:  # false for NaN too
        raise Unreadable(f"{kind} values from {low:g} to {high:g}: the scale is unknown")
    # Block by block: as float64, a large image would take eight times its memory.
    scaled = np.empty(values.shape, np.uint8)
    rows = max(1, _BLOCK // max(1, values.shape[1]))
    for top in range(0, len(values), rows):
        block = values[top : top + rows].astype(np.float64)
        scaled[top : top + rows] = (block * (255 / white)).round()
    return Image.fromarray(scaled)


def _to_square(image: Image.Image, resolution: int) -> Image.Image:
    """Crop the central square and resize it."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return _resize(image, (resolution, resolution), (left, top, left + side, top + side))


def _to_fit(image: Image.Image, resolution: int) -> Image.Image:
    """Resize the whole image so that its longer side is `resolution`."""
    longer = max(image.size)
    width, height = (max(1, round(side * resolution / longer)) for side in image.size)
    return _resize(image, (width, height), (0, 0, *image.size))


def _pad(image: Image.Image, resolution: int, background: tuple[int, int, int]) -> Image.Image:
    """Put an image (mode L, RGB or RGBA) in the middle of a square of the background, or of transparent pixels."""
    page = Image.new("RGBA" if image.mode == "RGBA" else "RGB", (resolution, resolution))
    if image.mode != "RGBA":
        page.paste(background, (0, 0, resolution, resolution))
    page = page.convert(image.mode)
    page.paste(image, ((resolution - image.width) // 2, (resolution - image.height) // 2))
    return page


def _resize(image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """Resize a part of an image, premultiplied: colours of transparent pixels do not bleed."""
    alpha = image.mode == "RGBA"
    resized = (image.convert("RGBa") if alpha else image).resize(
        size,
        Image.Resampling.LANCZOS,
        box=box,
        reducing_gap=3.0,  # a cheap box filter first if the image is much larger, without a visible difference
    )
    return resized.convert("RGBA") if alpha else resized


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert colours from the embedded profile to sRGB, unless the profile does not fit the image or is damaged."""
    colours = image.convert("RGB") if image.mode == "RGBA" else image
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if source.profile.xcolor_space.strip() != _PROFILE_SPACES[colours.mode]:
            return image
        converted = ImageCms.profileToProfile(colours, source, _SRGB, outputMode="RGB")
    except Exception:
        return image
    if converted is None:
        return image
    if image.mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    return converted


def _too_large(size: str, max_pixels: int) -> str:
    return f"{size} is more than the limit of {max_pixels // 1_000_000} megapixels"
