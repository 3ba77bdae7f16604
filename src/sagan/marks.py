"""The mark of figures: what sagan draws says so in its file, and is never read back as data."""

FIGURE_KEY, FIGURE = "sagan", "figure"
"""Keyword and text of the tEXt chunk of a PNG."""
FIGURE_COMMENT = b"sagan figure"
"""Comment of a GIF."""

_PNG_MARK = f"tEXt{FIGURE_KEY}\0{FIGURE}".encode()
_GIF_MARK = b"!\xfe" + bytes([len(FIGURE_COMMENT)]) + FIGURE_COMMENT
_SEARCHED = 2**12  # bytes: marks are written before the pixels


def is_figure(data: bytes) -> bool:
    """Return whether the bytes of a file are a PNG or GIF that sagan drew: a grid, a contact sheet, a plot."""
    start = data[:_SEARCHED]
    return (start.startswith(b"\x89PNG") and _PNG_MARK in start) or (start.startswith(b"GIF8") and _GIF_MARK in start)
