"""Draw a contact sheet: some images of a source as the networks will see them."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagan.data.store import Store
from sagan.figures.grid import draw_grid
from sagan.figures.labels import ClassLabel
from sagan.text import format_count

_MAX_CLASSES = 20  # rows


def contact_sheet(store: Store, per_class: int = 8) -> Image.Image:
    """Draw a row of images for each of the first 20 classes, or 8 x 8 images if there are no classes.

    The images are spread evenly over their class, so the sheet is the same every time.
    """
    if not store.num_classes:
        positions = _spread(np.arange(len(store)), 64)
        return draw_grid(np.asarray(store.images[positions]), columns=8, title=_title(store))
    rows: list[NDArray[np.uint8]] = []
    labels: list[str] = []
    for label in range(min(store.num_classes, _MAX_CLASSES)):
        positions = np.flatnonzero(store.labels == label)
        if not len(positions):
            continue
        images = np.asarray(store.images[_spread(positions, per_class)])
        # The row of a class with fewer images ends in white.
        rows.append(np.pad(images, ((0, per_class - len(images)), (0, 0), (0, 0), (0, 0)), constant_values=255))
        labels.append(ClassLabel(store.class_names[label], label))
    shown = f", the first {len(labels)}" if store.num_classes > _MAX_CLASSES else ""
    return draw_grid(np.concatenate(rows), columns=per_class, row_labels=labels, title=_title(store) + shown)


def _title(store: Store) -> str:
    classes = f" in {format_count(store.num_classes, 'class', 'classes')}" if store.num_classes else ""
    return f"{format_count(len(store), 'image', 'images')}{classes}"


def _spread(positions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Select at most `count` positions at equal distances."""
    places: NDArray[np.int64] = np.linspace(0, len(positions) - 1, min(count, len(positions))).round().astype(np.int64)
    selected: NDArray[np.int64] = positions[places]
    return selected
