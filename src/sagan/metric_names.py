"""Names in the metrics log and in evaluations, and which of them is the distance to the data."""

from typing import Any

FACT_NAMES = {"pictures": "images", "left out": "skipped"}
"""Printed names of an evaluation's facts, by their keys in the JSON file where the two differ."""


def best_step(rows: list[dict[str, Any]]) -> int | None:
    """Return the step of the smallest distance in a metrics log; None without evaluations."""
    key = distance_key(rows)
    return min((row[key], row["step"]) for row in rows if key in row)[1] if key else None


def distance_key(rows: list[dict[str, Any]]) -> str | None:
    """Return the log's name for the distance that its newest evaluation measured; None without evaluations."""
    return next((key for row in reversed(rows) for key in row if is_distance(key)), None)


def is_distance(key: str) -> bool:
    """Return whether a value of the log measures how far the generator is from the data (smaller is better)."""
    return key in ("fid", "distance") or key.startswith("frechet_distance/")
