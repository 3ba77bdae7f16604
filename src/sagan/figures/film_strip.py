"""The film strip: how the pictures of a few fixed latents looked as training went."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagan.figures.grid import draw_grid

_MOST_COLUMNS, _MOST_ROWS = 10, 10


def choose_steps(steps: Sequence[int], most: int = _MOST_ROWS) -> list[int]:
    """At most `most` of the steps, the first and the last among them, in order.

    Spread by their logarithm: most of what can be seen happens early.
    """
    steps = sorted(steps)
    if len(steps) <= most:
        return steps
    wanted = np.geomspace(max(1, steps[0]), steps[-1], most)
    distances = np.abs(np.log(np.maximum(1, steps))[:, None] - np.log(wanted))
    return [steps[i] for i in sorted({0, len(steps) - 1, *distances.argmin(0).tolist()})]


def draw_film_strip(grids: Mapping[int, NDArray[np.uint8]], class_names: Sequence[str] = ()) -> Image.Image:
    """A row for each step, a column for each of up to ten latents, the same in every row.

    Args:
        grids: the pictures (rows, columns, H, W, C) uint8 drawn at each step; with classes, a row for each class.
        class_names: of the rows, those that are shown.

    Raises:
        ValueError: no grid, or grids of several shapes.
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
        column_labels=[class_names[row] for row, _ in chosen] if classes else None,
    )
