"""Open a .npz of images, as `sagan sample` and other tools write them, as a source."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from sagan.data.decode import MAX_PIXELS
from sagan.errors import UserError
from sagan.npz import Npz

MAX_IMAGES = 2**22
"""Most images in a file."""
NAMES = ("images", "arr_0")
"""Arrays that may hold the images: those of `sagan sample`, and the first of `np.savez` without names."""
LABEL_NAMES = ("labels", "arr_1")
STATISTICS = ("mu", "sigma")
"""Arrays of the statistics that a Frechet distance compares with; they are no images."""


def is_npz(path: Path) -> bool:
    """Return whether a file is a .npz by its name."""
    return path.suffix.lower() == ".npz"


class ImageArrays:
    """The images (N, H, W, C) uint8 in a .npz file, and their labels.

    Raises:
        UserError: the file is damaged, or does not hold images and labels that fit together.
    """

    def __init__(self, path: Path) -> None:
        npz = Npz(path)
        name = next((name for name in NAMES if name in npz), None)
        if name is None:
            what = "statistics (mu, sigma), not images: name it after what sagan evaluate is to compare with it"
            if not all(name in npz for name in STATISTICS):
                what = f"no array 'images' (its arrays: {npz.names})"
            raise UserError(f"{npz.title} holds {what}")
        images = npz.rows(name)
        shape = images.shape
        if images.dtype != np.uint8 or not (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4))):
            raise UserError(
                f"{npz.title}: the array {name} is {images.dtype} of shape {list(shape)}: images must be uint8 of "
                "shape (N, H, W, C) with 1, 3 or 4 channels"
            )
        if not all(shape) or shape[0] > MAX_IMAGES or shape[1] * shape[2] > MAX_PIXELS:
            raise UserError(
                f"{npz.title}: the array {name} has the shape {list(shape)}: from 1 to {MAX_IMAGES:,} images of at "
                f"most {MAX_PIXELS // 1_000_000} megapixels are read"
            )
        self.images = images
        self.labels = [0] * shape[0]
        label_name = next((name for name in LABEL_NAMES if name in npz), None)
        if label_name is None:
            return
        labels = npz.load(label_name, max_bytes=16 * MAX_IMAGES)
        if labels.shape != shape[:1] or labels.dtype.kind not in "iu":
            raise UserError(
                f"{npz.title}: the array {label_name} is {labels.dtype} of shape {list(labels.shape)}: labels must be "
                f"integers of shape ({shape[0]},)"
            )
        self.labels = labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, number: int) -> bytes:
        """Return an image as a PNG file, so that it is decoded as any other."""
        image = self.images[number]
        file = BytesIO()
        Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image).save(file, "PNG", compress_level=1)
        return file.getvalue()
