"""The built-in set 'digits': scikit-learn's 1,797 scans of handwritten digits, 8 x 8 pixels, ten classes."""

from collections.abc import Iterator
from importlib import metadata

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagan.errors import UserError

CLASS_NAMES = tuple("0123456789")
CANVAS = (8, 8)
"""Width and height of a scan, in pixels."""
COUNT = 1797
"""Images in the set."""


def version() -> str:
    """Return the version of scikit-learn. Raises UserError if it is not installed."""
    try:
        return metadata.version("scikit-learn")
    except metadata.PackageNotFoundError:
        raise UserError("data source 'digits' needs scikit-learn: pip install 'sagan-torch[digits]'") from None


def render_batches(resolution: int, image_channels: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Yield images (n, R, R, C) uint8, bright on black and opaque, and labels (n,), in the order of scikit-learn."""
    version()
    from sklearn.datasets import load_digits  # imported here because it takes a second

    scans, labels = load_digits(return_X_y=True)
    for start in range(0, len(scans), 256):
        images = np.full((len(scans[start : start + 256]), resolution, resolution, image_channels), 255, np.uint8)
        for image, scan in zip(images, scans[start : start + 256], strict=True):
            # A scan holds values from 0 to 16.
            ink = Image.fromarray(scan.reshape(8, 8).astype(np.float32) * np.float32(255 / 16))
            grey = np.asarray(ink.resize((resolution, resolution), Image.Resampling.BICUBIC)).clip(0, 255).round()
            image[..., : min(image_channels, 3)] = grey[..., None].astype(np.uint8)
        yield images, labels[start : start + 256].astype(np.int64)
