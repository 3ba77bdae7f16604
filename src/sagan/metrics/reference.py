"""The real pictures that figures are measured against: which ones, and their features, computed once."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sagan.data import Store
from sagan.distributed import Processes
from sagan.metrics.features import Features, extract

FORMAT = 1
"""Version of what the cached features mean; a new one makes them anew."""


def choose(store: Store, count: int) -> NDArray[np.int64]:
    """Positions of `count` pictures of a store, drawn without repetition in random order; always the same ones."""
    return np.random.Generator(np.random.Philox(0)).permutation(len(store))[:count]


def reference_features(
    store: Store,
    chosen: NDArray[np.int64],
    features: Features,
    *,
    device: torch.device | None = None,
    label: str,
    share: Processes | None = None,
) -> np.ndarray:
    """The features (N, D) of the chosen pictures of a store.

    They are kept in the cache by data, choice, features and preprocessing, and read from there another time.
    """

    return extract(
        features,
        lambda i, j: store.pictures(chosen[i:j]),
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
