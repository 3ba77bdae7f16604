"""Text for the terminal and for reports: printable names, short numbers, counts with their noun."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any, TextIO


def printable(text: str) -> str:
    """Replace every character of a name from outside that could control a terminal with '?'."""
    return "".join(char if char.isprintable() else "?" for char in text)


class PrintableStream:
    """A text stream in front of another, which replaces what could control a terminal; line breaks and tabs pass."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text to the stream."""
        return self._stream.write("".join(c if c.isprintable() or c in "\n\r\t" else "?" for c in text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def one_line(text: str) -> str:
    """Return text without line breaks or characters that control a terminal."""
    return printable(" ".join(text.split()))


def short(value: float) -> str:
    """Format a measured value with about four significant digits."""
    if abs(value) >= 100:
        return f"{value:.1f}"
    if abs(value) >= 1e-4 or value == 0:
        return f"{value:.4g}"
    return f"{value:.1e}"


def format_count(count: int, one: str, many: str) -> str:
    """Format a count with its noun: `one` for 1, `many` otherwise."""
    return f"{count:,} {one if count == 1 else many}"


def html_table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Return an HTML table of cells of text, the first of each row its heading."""
    lines = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"] if head else []
    for first, *others in rows:
        cells = "".join(f'<td style="text-align: left">{escape(cell)}</td>' for cell in others)
        lines.append(f'<tr><th style="text-align: left">{escape(first)}</th>{cells}</tr>')
    return f"<table>{''.join(lines)}</table>"


def canonical(name: str) -> str:
    """Return a name from outside as composed Unicode text (NFC), so that equal names compare as equal.

    macOS decomposes names (NFD); a name in a Latin-1 file system arrives as bytes that are not UTF-8 (PEP 383), which
    are read as Latin-1.
    """
    return unicodedata.normalize("NFC", name if is_text(name) else _bytes_of(name).decode("latin-1"))


def is_text(name: str) -> bool:
    """Return whether a name is text that UTF-8 can hold: JSON, and so a run's files, can hold no other."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_class_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return class names in canonical form; names that would become equal stay apart."""
    texts = [canonical(name) for name in names]
    twice = {text for text, count in Counter(texts).items() if count > 1}
    return tuple(
        text if text not in twice else name if is_text(name) else _bytes_of(name).decode("utf-8", "backslashreplace")
        for name, text in zip(names, texts, strict=True)
    )


def find_name(name: str, names: Sequence[str]) -> int | None:
    """Return the position of a name in a list, equal or canonically equal; None if it is not there."""
    if name in names:
        return names.index(name)
    texts = [canonical(one) for one in names]
    return texts.index(canonical(name)) if canonical(name) in texts else None


def _bytes_of(name: str) -> bytes:
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return name.encode("utf-8", "backslashreplace")


def format_time(seconds: float) -> str:
    """Format a duration with its two largest units: '0.31 s', '45 s', '6 min 12 s', '3 h 10 min', '2 d 3 h'."""
    if seconds < 10:
        return f"{short(float(f'{seconds:.2g}'))} s"
    rounded = round(seconds)
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if rounded >= size:
            count, rest = divmod(round(rounded / part) * part, size)
            return f"{count} {unit}" + (f" {rest // part} {smaller}" if rest else "")
    return f"{rounded} s"
