"""Rescue of PNG files whose pixels are intact but whose accompanying chunks Pillow refuses."""

import zlib
from collections.abc import Iterator

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_MAX_PROFILE = 2**23  # bytes of a colour profile, unpacked


def keep_pixels(data: bytes) -> tuple[bytes, bytes | None]:
    """Return a PNG reduced to the chunks that its pixels need, and its colour profile.

    Texts and profiles of more than a megabyte, and any damaged chunk that the pixels do not need, make Pillow refuse a
    file. Orientation (eXIf) and the profile (iCCP) are kept where they are intact.

    Raises:
        ValueError: the bytes are not a PNG.
    """
    if not data.startswith(PNG_SIGNATURE):
        raise ValueError("not a PNG")
    kept, profile = [PNG_SIGNATURE], None
    for kind, chunk in _chunks(data):
        intact = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])
        if kind in _PIXELS or (kind == b"eXIf" and intact):
            kept.append(chunk)
        elif kind == b"iCCP" and intact:
            profile = _unpack_profile(chunk[8:-4])
    return b"".join(kept), profile


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and bytes of each chunk; the last one may be truncated."""
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        stop = at + 12 + int.from_bytes(data[at : at + 4])
        yield data[at + 4 : at + 8], data[at:stop]
        at = stop


def _unpack_profile(content: bytes) -> bytes | None:
    """Return the profile in the content of an iCCP chunk (name, 0, method 0, zlib stream); None if it is damaged."""
    _, _, packed = content.partition(b"\0")
    try:
        unpacking = zlib.decompressobj()
        profile = unpacking.decompress(packed[1:], _MAX_PROFILE)
    except zlib.error:
        return None
    return profile if unpacking.eof else None
