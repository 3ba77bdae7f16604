"""Marks of figures and samples: what sagan draws says so in its file, and is not taken for data."""

import re

FIGURE_KEY, FIGURE = "sagan", "figure"
"""Keyword of the tEXt chunk of a PNG, and the start of its text."""
SAMPLE = "sample"
"""Start of the text of a single generated image."""
FIGURE_COMMENT = b"sagan figure"
"""Comment of a GIF."""

_PNG_MARK = f"tEXt{FIGURE_KEY}\0{FIGURE}".encode()
_PNG_SAMPLE = f"tEXt{FIGURE_KEY}\0{SAMPLE}".encode()
_GIF_MARK = b"!\xfe" + bytes([len(FIGURE_COMMENT)]) + FIGURE_COMMENT
SEARCHED = 2**12
"""Bytes from the start of a file in which a mark is looked for: marks are written before the pixels."""


def figure_text(step: int | None = None) -> str:
    """Return the text of a PNG's mark, with the step of the networks that it shows, if one is known."""
    return FIGURE if step is None else f"{FIGURE} of step {step}"


def is_sample(data: bytes) -> bool:
    """Return whether the bytes of a file, or its first ones, are a PNG of one image that sagan generated."""
    start = data[:SEARCHED]
    return start.startswith(b"\x89PNG") and _PNG_SAMPLE in start


def step_of(data: bytes) -> int | None:
    """Return the step of the networks that a marked PNG shows; None if it does not say."""
    match = re.search(re.escape(_PNG_MARK) + rb" of step (\d{1,15})", data[:SEARCHED])
    return int(match[1]) if match else None


def is_figure(data: bytes) -> bool:
    """Return whether the bytes of a file are a PNG or GIF that sagan drew: a grid, a contact sheet, a plot."""
    start = data[:SEARCHED]
    return (start.startswith(b"\x89PNG") and _PNG_MARK in start) or (start.startswith(b"GIF8") and _GIF_MARK in start)
