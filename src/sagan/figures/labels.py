"""The text of labels: what an installed font can draw, shortened to fit, and different for different classes."""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sagan.text import canonical

_NOT_FOR_TEXT = ("lastresort", "emoji", "blank", "symbol")  # fonts of boxes, of coloured bitmaps, or of nothing
_RIGHT_TO_LEFT = ("R", "AL")  # bidirectional classes, which need a layout that labels do not have
_ELLIPSIS = "..."


class ClassLabel(str):
    """The name of a class that knows the number of its class."""

    number: int

    def __new__(cls, name: str, number: int) -> "ClassLabel":
        label = super().__new__(cls, name)
        label.number = number
        return label


class Fitted(NamedTuple):
    """A label as it is drawn."""

    text: str
    font: Path
    """The font file that has all its characters."""


Measure = Callable[[str, Path], float]
"""Returns the width of a text in a font."""


def class_labels(class_names: Sequence[str], numbers: Iterable[int] | None = None) -> list[str]:
    """Return the labels of classes, of all of them if no numbers are given."""
    return [ClassLabel(class_names[i], i) for i in (range(len(class_names)) if numbers is None else numbers)]


def fit_labels(labels: Sequence[str], widths: Sequence[float], measure: Measure) -> list[Fitted]:
    """Return labels as they can be drawn: in an installed font that has their characters, shortened to their widths.

    A label that no font can draw whole, and one that would look like another class's, shows the class number before
    what can be drawn. The number of a plain text is its place among the labels. Equal labels stay equal, and an empty
    label stays empty.
    """
    places = {label: place for place, label in reversed(list(enumerate(labels)))}
    numbered: set[str] = set()
    while True:
        fitted = [
            _fit(label, width, measure, places[label], numbered=label in numbered)
            for label, width in zip(labels, widths, strict=True)
        ]
        same: dict[str, set[str]] = {}  # the labels that look the same
        for label, (text, _) in zip(labels, fitted, strict=True):
            same.setdefault(text, set()).add(label)
        confused = {label for group in same.values() if len(group) > 1 for label in group}
        if confused <= numbered:
            return fitted
        numbered |= confused


@cache
def default_font() -> Path:
    """Return the font of labels, DejaVu Sans, which matplotlib brings: Latin, Greek, Cyrillic and many signs."""
    import matplotlib  # takes a while, and not every command draws labels

    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@cache
def find_font(text: str) -> Path | None:
    """Return an installed font that has a glyph for every character of a text; None if there is none."""
    wanted = {ord(char) for char in text if _is_drawn(char)}
    if len(wanted) < len(set(text)):
        return None
    if wanted <= _characters(default_font()):
        return default_font()
    return next((font for font in _system_fonts() if wanted <= _characters(font)), None)


def _fit(label: str, width: float, measure: Measure, place: int, *, numbered: bool) -> Fitted:
    """Return a label in a font that has it, shortened to a width; numbered if asked, or if there is no such font."""
    text = canonical(label)
    number = label.number if isinstance(label, ClassLabel) else place
    font = find_font(text)
    if font is None:
        font = default_font()
        known = (char if char == " " or find_font(char) == font else " " for char in text)
        text = " ".join("".join(known).split())
        text = f"{number}: {text}" if any(char.isalnum() for char in text) else f"class {number}"
    elif numbered:
        text = f"{number}: {text}"
        font = find_font(text) or font
    return Fitted(_shorten(text, font, width, measure), font)


def _shorten(text: str, font: Path, width: float, measure: Measure) -> str:
    if measure(text, font) <= width:
        return text
    while text and measure(text + _ELLIPSIS, font) > width:
        text = text[:-1]
    return text.rstrip() + _ELLIPSIS


def _is_drawn(char: str) -> bool:
    """Return whether a character is one that a line of text without complex layout can show."""
    return char.isprintable() and unicodedata.bidirectional(char) not in _RIGHT_TO_LEFT


@cache
def _characters(font: Path) -> frozenset[int]:
    """Return the code points for which a font has a glyph; none if it cannot be read or scaled."""
    from matplotlib.ft2font import FT2Font

    try:
        face = FT2Font(str(font))
        return frozenset(face.get_charmap()) if face.scalable else frozenset()
    except Exception:  # FreeType may raise anything on a damaged file
        return frozenset()


@cache
def _system_fonts() -> tuple[Path, ...]:
    """Return the fonts installed on the system, upright and regular ones first."""
    from matplotlib.font_manager import fontManager  # takes a while, the more the more fonts there are

    entries = sorted(fontManager.ttflist, key=lambda f: (f.style != "normal", f.weight not in (400, "normal"), f.fname))
    own = default_font().parent
    paths = dict.fromkeys(Path(entry.fname) for entry in entries)
    return tuple(
        path
        for path in paths
        if path.parent != own and not any(word in path.name.lower().replace("-", "") for word in _NOT_FOR_TEXT)
    )
