"""Draw the film strip: images of a few fixed latents over the course of training."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagan.figures.grid import draw_grid
from sagan.figures.labels import class_labels

_MOST_COLUMNS, _MOST_ROWS = 10, 10  # of a film strip


def choose_steps(steps: Sequence[int], most: int = _MOST_ROWS) -> list[int]:
    """Choose at most `most` of the steps, including the first and the last, in ascending order.

    The steps are spread evenly in their logarithm, since most of the visible change happens early.
    """
    steps = sorted(steps)
    if len(steps) <= most:
        return steps
    wanted = np.geomspace(max(1, steps[0]), steps[-1], most)
    distances = np.abs(np.log(np.maximum(1, steps))[:, None] - np.log(wanted))
    return [steps[i] for i in sorted({0, len(steps) - 1, *distances.argmin(0).tolist()})]


def draw_film_strip(grids: Mapping[int, NDArray[np.uint8]], class_names: Sequence[str] = ()) -> Image.Image:
    """Draw a row per step and a column per latent, at most ten latents, the same in every row.

    Args:
        grids: by step, images (rows, columns, H, W, C) uint8; a conditional run has a row per class.
        class_names: names of the rows of each grid; empty: unconditional.

    Raises:
        ValueError: there is no grid, or the grids differ in shape.
    """
    steps = sorted(grids)
    if len({grids[step].shape for step in steps}) != 1:
        raise ValueError(f"grids of shapes {sorted({grids[step].shape for step in steps})}")
    rows, columns = grids[steps[0]].shape[:2]
    classes = min(rows, len(class_names), _MOST_COLUMNS)
    each = min(columns, _MOST_COLUMNS // classes) if classes else columns
    chosen = [(row, column) for row in range(classes or 1) for column in range(each)]
    tiles = np.concatenate([[grids[step][at] for at in chosen] for step in steps])
    return draw_grid(
        tiles,
        columns=len(chosen),
        row_labels=[f"step {step:,}" for step in steps],
        column_labels=class_labels(class_names, [row for row, _ in chosen]) if classes else None,
    )
