"""Draw the curves and the film strip of a run from the files that it has written so far."""

from pathlib import Path

from PIL import Image

from sagan.errors import UserError
from sagan.figures.curves import draw_curves, figure_format, save_figure
from sagan.figures.film_strip import choose_steps, draw_film_strip
from sagan.figures.grid import GRID_COLUMNS, cut_grid, read, save
from sagan.run import Run, default_output, step_of_file


def write_curves(path: Path, out: Path | None = None) -> Path:
    """Draw everything that a run has logged, as .png or .svg, and return where. None: curves.png in the run.

    Raises:
        UserError: there is no such run, nothing has been logged yet, or the file cannot be written.
    """
    run = Run(path)
    out = out or default_output(run.path, run.curves_path.name)
    figure_format(out)
    rows = run.metrics()
    try:
        figure = draw_curves(rows)
    except ValueError as error:
        raise UserError(f"{run.metrics_path} has nothing to draw yet: wait until the run has logged a step") from error
    save_figure(figure, out)
    return out


def write_film_strip(path: Path, out: Path | None = None) -> Path | None:
    """Draw how the images of a few latents changed during training, and return where.

    Args:
        path: the run's folder.
        out: the file; None: samples-over-time.png in the run.

    Returns:
        The file; None if the run has no grid of samples yet.

    Raises:
        UserError: there is no such run, a grid of samples is not this run's, or the file cannot be written.
    """
    run = Run(path)
    strip = read_film_strip(run)
    if strip is None:
        return None
    out = out or default_output(run.path, run.film_strip_path.name)
    save(strip, out)
    return out


def read_film_strip(run: Run) -> Image.Image | None:
    """Cut the film strip from the run's grids of samples; None if there is no grid yet.

    Raises:
        UserError: a grid of samples is damaged, or not this run's.
    """
    samples = {step_of_file(path): path for path in run.samples()}
    if not samples:
        return None
    grids = {}
    for step in choose_steps(list(samples)):
        page = read(samples[step])
        try:
            grids[step] = cut_grid(page, run.info.config.model.resolution, columns=GRID_COLUMNS)
        except ValueError as error:
            raise UserError(f"{samples[step]} is not a grid of this run's samples: {error}; delete it") from error
    return draw_film_strip(grids, run.info.class_names)
