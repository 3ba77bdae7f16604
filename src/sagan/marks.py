"""Marks of figures and samples: what sagan draws says so in its file, and is not taken for data."""

import re

FIGURE_KEY, FIGURE = "sagan", "figure"
"""Keyword of the tEXt chunk of a PNG, and the start of its text."""
SAMPLE = "sample"
"""Start of the text of a single generated image."""
FILM_KEY = "sagan "
"""What the comment of a GIF or MP4 has before the text of a PNG's mark."""

_FILM_MARK = f"{FILM_KEY}{FIGURE}".encode()
_GIF_MARK = re.compile(rb"!\xfe." + re.escape(_FILM_MARK), re.DOTALL)  # between them the length of the comment
SEARCHED = 2**12
"""Bytes from the start of a file in which a mark is looked for: marks are written before the pixels."""


def figure_text(step: int | None = None) -> str:
    """Return the text of a figure's mark, with the step of the networks that it shows, if one is known."""
    return FIGURE if step is None else f"{FIGURE} of step {step}"


def sample_text(checksum: str) -> str:
    """Return the text of a generated image's mark, with the checksum of its weights and latents."""
    return f"{SAMPLE} of {checksum}"


def checksum_of(data: bytes) -> str | None:
    """Return the checksum in the mark of a generated PNG; None if there is none."""
    match = re.fullmatch(rf"{SAMPLE} of (\w+)", _png_text(data) or "")
    return match[1] if match else None


def is_sample(data: bytes) -> bool:
    """Return whether the bytes of a file, or its first ones, are a PNG of one image that sagan generated."""
    return (_png_text(data) or "").startswith(SAMPLE)


def step_of(data: bytes) -> int | None:
    """Return the step of the networks that a marked PNG, GIF or MP4 shows; None if it does not say."""
    if (text := _png_text(data)) is not None:
        match = re.fullmatch(rf"{FIGURE} of step (\d{{1,15}})", text, re.ASCII)
        return int(match[1]) if match else None
    # An MP4 has its comment at its end. Behind the comment of either film stands a zero.
    searched = data if data[4:8] == b"ftyp" else data[:SEARCHED]
    film = re.search(re.escape(_FILM_MARK) + rb" of step (\d{1,15})", searched)
    return int(film[1]) if film else None


def _png_text(data: bytes) -> str | None:
    """Return the text of a PNG's mark; None if there is none.

    Its end is known from the length of its chunk alone: the checksum that follows may look like more text.
    """
    start, key = data[:SEARCHED], f"tEXt{FIGURE_KEY}\0".encode()
    at = start.find(key)
    if at < 0 or not start.startswith(b"\x89PNG"):
        return None
    end = at + len(b"tEXt") + int.from_bytes(start[at - 4 : at])
    return start[at + len(key) : end].decode("latin-1")


def is_figure(data: bytes) -> bool:
    """Return whether the bytes of a file are a PNG or GIF that sagan drew: a grid, a contact sheet, a plot."""
    if data.startswith(b"GIF8"):
        return _GIF_MARK.search(data[:SEARCHED]) is not None
    return (_png_text(data) or "").startswith(FIGURE)
