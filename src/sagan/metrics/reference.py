"""Choose the real images that metrics compare with, and compute their features once."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagan.data import Store
from sagan.distributed import Processes
from sagan.metrics.features import Features, extract

FORMAT = 1
"""Version of the cached features; another version computes them again."""


def choose(store: Store, count: int) -> NDArray[np.int64]:
    """Choose the positions of `count` images of a store, without repetition, in a fixed random order."""
    return np.random.Generator(np.random.Philox(0)).permutation(len(store))[:count]


def reference_features(
    store: Store,
    chosen: NDArray[np.int64],
    features: Features,
    *,
    device: torch.device | None = None,
    label: str,
    share: Processes | None = None,
    read: Callable[[int, int], Tensor] | None = None,
) -> np.ndarray:
    """Return the features (N, D) of the chosen images of a store.

    They are cached by data, choice, feature network and preprocessing. `read` reads the chosen images from i to j in
    place of the store's own method.
    """
    return extract(
        features,
        read or (lambda i, j: store.load_images(chosen[i:j])),
        len(chosen),
        device=device,
        cache=_folder(store, chosen, features),
        label=label,
        share=share,
    )


def _folder(store: Store, chosen: NDArray[np.int64], features: Features) -> Path | None:
    if not features.checksum:
        return None
    choice = hashlib.sha256(chosen.astype("<i8").tobytes()).hexdigest()
    content = [FORMAT, store.key, choice, features.name, features.checksum, features.size, features.resize]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return store.path.parent.parent / "features" / key
