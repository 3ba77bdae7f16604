"""Names in the metrics log and in evaluations, and which of them is the distance to the data."""

from collections.abc import Container
from typing import Any

HIDDEN_FACTS = ("key", "checksum", "class counts")
"""Facts of an evaluation that only machines need."""
FACT_NAMES = {"pictures": "images", "left out": "skipped"}
"""Printed names of an evaluation's facts, by their keys in the JSON file where the two differ."""


def best_step(rows: list[dict[str, Any]]) -> int | None:
    """Return the step of the smallest distance in a metrics log; None without evaluations."""
    best = best_distance(rows)
    return best and best[1]


def best_distance(rows: list[dict[str, Any]]) -> tuple[float, int] | None:
    """Return the smallest distance in a metrics log, and its step; None without evaluations."""
    key = distance_key(rows)
    return min((row[key], row["step"]) for row in rows if key in row) if key else None


def distance_key(rows: list[dict[str, Any]]) -> str | None:
    """Return the log's name for the distance that its newest evaluation measured; None without evaluations."""
    return next((key for row in reversed(rows) for key in row if is_distance(key)), None)


def is_distance(key: str) -> bool:
    """Return whether a value of the log measures how far the generator is from the data (smaller is better)."""
    return key in ("fid", "distance") or key.startswith("frechet_distance/")


def depends_on_machine(key: str) -> bool:
    """Return whether a value of the log is of the machine, such as a speed: it differs where the training does not."""
    return key.startswith("seconds/") or key in ("images_per_second", "memory_gib", "peak_share")


def join_facts(facts: dict[str, Any], hidden: Container[str] = ()) -> str:
    """Join the facts of an evaluation about a set or its features in one line: 'robots, images 3,000, size ...'.

    Facts in `hidden`, and those that are empty or 'none', are skipped. A path, source or network needs no name.
    """
    parts = []
    for key, value in facts.items():
        if key in hidden or value in (None, "", "none"):
            continue
        if key in ("path", "source", "network"):
            parts.append(str(value))
        else:
            name = FACT_NAMES.get(key, key)
            parts.append(f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}")
    return ", ".join(parts)
