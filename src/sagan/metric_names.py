"""Names in the metrics log that mean the distance to the data."""

from typing import Any


def best_step(rows: list[dict[str, Any]]) -> int | None:
    """Return the step of the smallest distance in a metrics log; None without evaluations."""
    key = distance_key(rows)
    return min((row[key], row["step"]) for row in rows if key in row)[1] if key else None


def distance_key(rows: list[dict[str, Any]]) -> str | None:
    """Return the name of the distance that the newest evaluation in a metrics log measured; None without one."""
    return next((key for row in reversed(rows) for key in row if is_distance(key)), None)


def is_distance(key: str) -> bool:
    """Return whether a logged value measures the generator's distance to the data; smaller is better."""
    return key in ("fid", "distance") or key.startswith("frechet_distance/")
