"""The mark of figures: what sagan draws says so in its file, with the step drawn, and is never read back as data."""

import re

FIGURE_KEY, FIGURE = "sagan", "figure"
"""Keyword of the tEXt chunk of a PNG, and the start of its text."""
FIGURE_COMMENT = b"sagan figure"
"""Comment of a GIF."""

_PNG_MARK = f"tEXt{FIGURE_KEY}\0{FIGURE}".encode()
_GIF_MARK = b"!\xfe" + bytes([len(FIGURE_COMMENT)]) + FIGURE_COMMENT
_SEARCHED = 2**12  # bytes: marks are written before the pixels


def figure_text(step: int | None = None) -> str:
    """Return the text of a PNG's mark, with the step of the networks that it shows, if one is known."""
    return FIGURE if step is None else f"{FIGURE} of step {step}"


def step_of(data: bytes) -> int | None:
    """Return the step of the networks that a marked PNG shows; None if it does not say."""
    match = re.search(re.escape(_PNG_MARK) + rb" of step (\d{1,15})", data[:_SEARCHED])
    return int(match[1]) if match else None


def is_figure(data: bytes) -> bool:
    """Return whether the bytes of a file are a PNG or GIF that sagan drew: a grid, a contact sheet, a plot."""
    start = data[:_SEARCHED]
    return (start.startswith(b"\x89PNG") and _PNG_MARK in start) or (start.startswith(b"GIF8") and _GIF_MARK in start)
