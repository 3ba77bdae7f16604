"""One line of an evaluation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """The value of one metric."""

    name: str
    value: float
    spread: float | None
    """Standard deviation over what `about` names; None for a single value."""
    about: str
    """How to read the value."""
