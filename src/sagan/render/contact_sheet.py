"""A contact sheet: a few images of a source as the network will see them."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagan.data.store import Store
from sagan.figures.grid import draw_grid
from sagan.text import counted, printable


def contact_sheet(store: Store, per_class: int = 8) -> Image.Image:
    """A few pictures as the network will see them: a row for each of the first 20 classes, or 8 x 8 without classes.

    Pictures are spread evenly over a class, so the sheet is the same every time.
    """
    if not store.num_classes:
        chosen = _spread(np.arange(len(store)), 64)
        return draw_grid(np.asarray(store.images[chosen]), columns=8, title=_title(store))
    rows, labels = [], []
    for label in range(min(store.num_classes, 20)):
        mine = np.flatnonzero(store.labels == label)
        if not len(mine):
            continue
        images = np.asarray(store.images[_spread(mine, per_class)])
        # A class of fewer pictures leaves the rest of its row white.
        rows.append(np.pad(images, ((0, per_class - len(images)), (0, 0), (0, 0), (0, 0)), constant_values=255))
        labels.append(printable(store.class_names[label]))
    shown = f", the first {len(labels)}" if store.num_classes > 20 else ""
    return draw_grid(np.concatenate(rows), columns=per_class, row_labels=labels, title=_title(store) + shown)


def _title(store: Store) -> str:
    classes = f" in {counted(store.num_classes, 'class', 'classes')}" if store.num_classes else ""
    return f"{counted(len(store), 'picture', 'pictures')}{classes}"


def _spread(positions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    places: NDArray[np.int64] = np.linspace(0, len(positions) - 1, min(count, len(positions))).round().astype(np.int64)
    chosen: NDArray[np.int64] = positions[places]
    return chosen
