"""Training, looked at: the curves and the film strip of a run, drawn from what it has written so far."""

from pathlib import Path
from typing import Any

from PIL import Image

from sagan.errors import UserError
from sagan.figures.curves import draw_curves, figure_format, save_figure
from sagan.figures.film_strip import choose_steps, draw_film_strip
from sagan.figures.grid import GRID_COLUMNS, cut_grid, read, save
from sagan.run import Run


def write_curves(path: Path, out: Path | None = None) -> Path:
    """Draws everything that a run has logged, as .png or .svg; returns where to, by default curves.png in the run.

    Raises:
        UserError: no such run, nothing logged yet, or no place to write.
    """
    run = Run(path)
    out = out or run.curves_path
    figure_format(out)
    try:
        figure = draw_curves(read_rows(run))
    except ValueError as error:
        raise UserError(f"{run.metrics_path} holds nothing to draw yet: let the run come to its first line") from error
    save_figure(figure, out)
    return out


def write_film_strip(path: Path, out: Path | None = None) -> Path | None:
    """Draws how the pictures of a few latents changed; returns where to, by default samples-over-time.png in the run.

    None if the run has no grid of samples yet.

    Raises:
        UserError: no such run, a grid of samples that is not the run's, or no place to write.
    """
    run = Run(path)
    strip = read_film_strip(run)
    if strip is None:
        return None
    out = out or run.film_strip_path
    save(strip, out)
    return out


def read_film_strip(run: Run) -> Image.Image | None:
    """The film strip, cut from the run's grids of samples; None if there is none yet.

    Raises:
        UserError: a grid of samples that is not the run's.
    """
    samples = {int(path.stem.removeprefix("step-")): path for path in run.samples()}
    if not samples:
        return None
    grids = {}
    for step in choose_steps(list(samples)):
        try:
            grids[step] = cut_grid(read(samples[step]), run.info.config.model.resolution, columns=GRID_COLUMNS)
        except ValueError as error:
            raise UserError(f"{samples[step]} is not a grid of this run's samples: {error}; delete it") from error
    return draw_film_strip(grids, run.info.class_names)


def read_rows(run: Run) -> list[dict[str, Any]]:
    """The lines of the metrics log that have a step."""
    return [row for row in run.metrics() if isinstance(row, dict) and isinstance(row.get("step"), int)]
