"""Stores of images made in memory."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from sagan.data.packed import PackedImages


def numbered_store(count, side=4):
    """A packed store of noise; the number of an image is in its upper corners, and ten times as much is its label."""
    images = np.random.default_rng(0).integers(256, size=(count, side, side, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = images[:, 0, -1, 0] = np.arange(count)  # the image's number, flipped or not

    class Some(SimpleNamespace):
        def __len__(self):
            return count

    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "images.npy"), images)
        packed = PackedImages(Path(folder, "images.npy"), None)  # stays open when the folder is removed
    return Some(images=packed, labels=np.arange(count) * 10)
