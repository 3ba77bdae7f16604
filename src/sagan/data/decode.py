"""One picture from its bytes, whatever they are: to uint8 at the training resolution, or a reason why not."""

import logging
import re
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

MAX_PIXELS = 100_000_000
"""Largest picture that is decoded, in pixels; the header is asked before anything is unpacked."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The only decoders that bytes from outside reach."""

_SIGNATURES = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_UPRIGHT = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SRGB = ImageCms.createProfile("sRGB")
_PROFILE_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}  # Pillow's mode -> the profile's colour space

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its remarks on odd files reach the terminal


class Unreadable(Exception):
    """The bytes cannot be used as a picture; the message is the reason in a few words."""


def decode(
    data: bytes,
    *,
    resolution: int,
    image_channels: int,
    background: tuple[int, int, int],
    max_pixels: int = MAX_PIXELS,
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Decode, turn upright, crop the central square, and resize.

    Args:
        data: a JPEG, PNG, WebP, GIF (its first frame), BMP or TIFF file.
        resolution: R, side of the result in pixels.
        image_channels: 1 (grey), 3 (sRGB) or 4 (sRGB and alpha, not premultiplied).
        background: red, green, blue from 0 to 255 under transparent pixels, unless alpha is kept.
        max_pixels: largest picture that is decoded.

    Returns:
        The picture, uint8 (R, R, image_channels), and its own upright (width, height).

    Raises:
        Unreadable: for any bytes that are no such picture, or one of more than max_pixels.
    """
    if not data:
        raise Unreadable("empty file")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as picture:
            return _decode(picture, resolution, image_channels, background, max_pixels)
    except Unreadable:
        raise
    except UnidentifiedImageError:
        known = data.startswith(_SIGNATURES)
        raise Unreadable("truncated or damaged" if known else "not a picture of a format that is read") from None
    except Image.DecompressionBombError as error:  # Pillow's own limit, at which the size is known to its message only
        pixels = re.search(r"\d+", str(error))
        size = f"{int(pixels[0]) / 1e6:,.0f} megapixels" if pixels else "size"
        raise Unreadable(_too_large(size, max_pixels)) from None
    except MemoryError:
        raise Unreadable("too large for this machine's memory") from None
    except Exception as error:  # a decoder may raise anything on bytes made up to break it
        raise Unreadable("truncated or damaged") from error


def _decode(
    picture: Image.Image, resolution: int, image_channels: int, background: tuple[int, int, int], max_pixels: int
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    width, height = picture.size
    if width * height > max_pixels:
        raise Unreadable(_too_large(f"{width} x {height} pixels", max_pixels))
    # JPEG can be unpacked at 1/2, 1/4 or 1/8 of its size; twice the target leaves Lanczos enough to work with.
    shrink = 2 * resolution / min(width, height)
    if shrink < 1:
        picture.draft(None, (int(width * shrink), int(height * shrink)))
    picture.load()
    orientation, profile = _orientation(picture), picture.info.get("icc_profile")
    picture = _to_8_bit(picture)
    if orientation >= 5:  # on its side
        width, height = height, width
    if orientation in _UPRIGHT:
        picture = picture.transpose(_UPRIGHT[orientation])

    picture = _to_square(picture, resolution)
    if profile:
        picture = _to_srgb(picture, profile)
    if image_channels == 4:
        picture = picture.convert("RGBA")
    elif picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (*background, 255)), picture)
    pixels = np.asarray(picture.convert({1: "L", 3: "RGB", 4: "RGBA"}[image_channels]))
    return pixels.reshape(resolution, resolution, image_channels), (width, height)


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF data is no reason to lose a picture
        return 1


def _to_8_bit(picture: Image.Image) -> Image.Image:
    """To mode L, RGB, CMYK or RGBA."""
    if picture.mode == "F":
        return _from_numbers(np.asarray(picture), "floating-point", 1)
    if picture.mode.startswith("I"):  # I;16 and its byte orders; I holds 16 bits in older PNG files
        return _from_numbers(np.asarray(picture).astype(np.int64), "integer", 65535)
    if picture.has_transparency_data:
        return picture.convert("RGBA")
    return picture if picture.mode in ("L", "RGB", "CMYK") else picture.convert("L" if picture.mode == "1" else "RGB")


def _from_numbers(values: NDArray[Any], kind: str, white: int) -> Image.Image:
    low, high = float(np.min(values)), float(np.max(values))
    if kind == "floating-point" and 1 < high <= 255:
        white = 255
    if not 0 <= low <= high <= white:  # also refuses what is not a number
        raise Unreadable(f"{kind} values from {low:g} to {high:g}: the scale is unknown")
    return Image.fromarray((values.astype(np.float64) * (255 / white)).round().astype(np.uint8))


def _to_square(picture: Image.Image, resolution: int) -> Image.Image:
    """Central square, resized to the resolution; the colour of transparent pixels has no part in it."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    alpha = picture.mode == "RGBA"
    resized = (picture.convert("RGBa") if alpha else picture).resize(
        (resolution, resolution),
        Image.Resampling.LANCZOS,
        box=(left, top, left + side, top + side),
        reducing_gap=3.0,  # a cheap box filter first where the picture is much larger: no visible difference
    )
    return resized.convert("RGBA") if alpha else resized


def _to_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """Colours as the embedded profile means them; unchanged where it does not fit the picture or is damaged."""
    colours = picture.convert("RGB") if picture.mode == "RGBA" else picture
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if source.profile.xcolor_space.strip() != _PROFILE_SPACES[colours.mode]:
            return picture
        converted = ImageCms.profileToProfile(colours, source, _SRGB, outputMode="RGB")
    except Exception:
        return picture
    if converted is None:
        return picture
    if picture.mode == "RGBA":
        converted.putalpha(picture.getchannel("A"))
    return converted


def _too_large(size: str, max_pixels: int) -> str:
    return f"{size} is more than the limit of {max_pixels // 1_000_000} megapixels"
