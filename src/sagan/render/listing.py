"""List trained models and runs: a line with the images, the steps, the distance and the newest grid of each."""

import os
from collections.abc import Iterator
from pathlib import Path

from sagan.errors import UserError
from sagan.files import read_json
from sagan.metric_names import best_distance, distance_key
from sagan.run import Run
from sagan.text import format_count, printable, short
from sagan.trained import names, shipped_name

RUNS = Path("runs")
"""The folder whose runs are listed by default."""
_COLUMNS = 100  # characters in a line


def list_models(folder: Path | None = None) -> str:
    """Return a table of the package's trained models and of the runs under a folder; None: `RUNS`, if it exists.

    Each grid of samples has a line of its own if the table would otherwise be wider than 100 characters.

    Raises:
        UserError: there is no such folder, or there is nothing to list.
    """
    if folder is not None and not folder.is_dir():
        raise UserError(f"{folder} is not a folder: pass one that contains runs")
    paths = [Path(name) for name in names()] + list(find_runs(folder or RUNS))
    if not paths:
        raise UserError(f"there are no runs in {folder or RUNS}: start with sagan train --preset demo")
    rows = [("name", "images", "steps", "distance", "newest samples"), *map(describe, paths)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) <= _COLUMNS:
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    lines = []
    for *cells, grid in rows:
        lines.append("  ".join(map(str.ljust, cells, widths[:-1])).rstrip())
        if grid != "-":
            lines.append(f"  {grid}")
    return "\n".join(lines)


def find_runs(folder: Path) -> Iterator[Path]:
    """Yield the folders of runs under a folder, sorted; links are not followed."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        if "config.json" in files:
            folders.clear()
            yield Path(place)


def describe(path: Path) -> tuple[str, str, str, str, str]:
    """Return name, images, steps, distance and newest grid of samples of a run; '-' for what it does not have."""
    name = printable(str(path))
    try:
        run = Run(path)
    except UserError:  # another program's config.json
        return name, "not a run", "-", "-", "-"
    model, count = run.info.config.model, len(run.info.class_names)
    classes = f", {format_count(count, 'class', 'classes')}" if count else ""
    rows = run.metrics()
    done, total = max((row["step"] for row in rows), default=0), run.info.config.training.steps
    steps = f"{done:,}" if done >= total or shipped_name(path) else f"{done:,} of {total:,}"
    grids = [grid for grid in (*reversed(run.samples()), run.samples_path) if grid.exists()]
    return (
        name,
        f"{model.resolution} px{classes}",
        steps if done else "-",
        _evaluated(run) or _logged(rows) or "-",
        printable(_relative_if_shorter(grids[0])) if grids else "-",
    )


def _relative_if_shorter(path: Path) -> str:
    """Return a path relative to the current folder where that is shorter."""
    try:
        return min(os.path.relpath(path), str(path), key=len)
    except (OSError, ValueError):  # the current folder is gone, or the path is on another drive
        return str(path)


def _evaluated(run: Run) -> str:
    """Return the distances of `sagan evaluate`, the last of each network: '81.41 Lite0, 56.41 Lite2', or ''."""
    distances = {}
    for path in sorted(run.evaluations_path.glob("*.json")):
        try:
            evaluation = read_json(path)
            values = {metric["name"]: metric["value"] for metric in evaluation["figures"]}
            network = str(evaluation["features"]["network"])
            value = short(values["FID"] if "FID" in values else values["Frechet distance"])
        except (OSError, ValueError, KeyError, TypeError):  # not a file of ours
            continue
        distances[network] = f"{value} {_short_name(network)}"
    return ", ".join(distances.values())


def _logged(rows: list[dict[str, float]]) -> str:
    """Return the smallest distance of the log, and its step; '' if there is none."""
    key, best = distance_key(rows), best_distance(rows)
    if key is None or best is None:
        return ""
    value, step = best
    return f"{short(value)} {_short_name(key.rpartition('/')[2])} in training, step {step:,}"


def _short_name(network: str) -> str:
    """Return 'Lite0' of 'EfficientNet-Lite0', and other networks' names as they are."""
    return printable(network.removeprefix("EfficientNet-"))
