"""Text for people: names that are safe to print, numbers that are short."""


def printable(text: str) -> str:
    """Names from outside without what could steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def short(value: float) -> str:
    """A measured value for people to read: four digits."""
    return (
        f"{value:.1f}" if abs(value) >= 100 else f"{value:.4g}" if abs(value) >= 1e-4 or not value else f"{value:.1e}"
    )


def counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
