"""Text for the terminal and for reports: printable names, short numbers, counts with their noun."""


def printable(text: str) -> str:
    """Replace every character of a name from outside that could control a terminal with '?'."""
    return "".join(char if char.isprintable() else "?" for char in text)


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
