"""Read statistics of reference features, (mu, sigma) as pytorch-fid writes them, for a Frechet distance to them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sagan.data.arrays import STATISTICS, is_npz
from sagan.errors import UserError
from sagan.files import expand_home, sha256
from sagan.metrics.features import Features
from sagan.npz import Npz

MAX_DIMENSIONS = 2**13
"""Most dimensions of the features; Inception's are 2,048."""

_ASYMMETRY = 1e-6  # relative to the largest entry: more than float32 rounds
_NEGATIVE = 1e-3  # relative to the largest eigenvalue: more than float32 rounds in thousands of dimensions


@dataclass(frozen=True)
class Statistics:
    """The normal distribution that features of reference images were fitted by."""

    mean: NDArray[np.float64]
    """(D,)"""
    root: NDArray[np.float64]
    """(D, D): R^T R is the covariance."""
    about: dict[str, Any]
    """Facts for the evaluation."""

    def check_dimensions(self, features: Features, shape: tuple[int, ...], device: torch.device) -> None:
        """Check, on one black image of a shape (C, H, W), that the features have as many dimensions.

        Raises:
            UserError: they do not.
        """
        count = features(torch.zeros(1, *shape, dtype=torch.uint8, device=device)).shape[1]
        if count != len(self.mean):
            raise UserError(
                f"{self.about['source']} holds statistics of {len(self.mean):,} dimensions, but {features.name} "
                f"features have {count:,}: pass --features of the network that they were computed with"
            )


def read_statistics(source: str | None) -> Statistics | None:
    """Read the statistics in a .npz file; return None if a source is not such a file.

    Raises:
        UserError: the file is damaged, or its arrays are not a mean and a covariance.
    """
    if source is None or not is_npz(Path(source)) or not expand_home(source).is_file():
        return None
    npz = Npz(expand_home(source))
    if not all(name in npz for name in STATISTICS):
        return None
    mean, covariance = (npz.load(name, max_bytes=8 * MAX_DIMENSIONS**2) for name in STATISTICS)
    for name, array in zip(STATISTICS, (mean, covariance), strict=True):
        if array.dtype not in (np.float32, np.float64):
            raise UserError(f"{npz.title}: {name} is {array.dtype}: must be float32 or float64")
    if mean.ndim != 1 or not len(mean) or covariance.shape != 2 * mean.shape:
        raise UserError(
            f"{npz.title}: mu has the shape {list(mean.shape)} and sigma {list(covariance.shape)}: must be [D] and "
            "[D, D]"
        )
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    for name, array in zip(STATISTICS, (mean, covariance), strict=True):
        if not np.isfinite(array).all():
            raise UserError(f"{npz.title}: {name} has values that are not finite")
    scale = np.abs(covariance).max()
    if np.abs(covariance - covariance.T).max() > _ASYMMETRY * scale:
        raise UserError(f"{npz.title}: sigma is not symmetric, so it is not a covariance")
    eigenvalues, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    if eigenvalues[0] < -_NEGATIVE * scale:
        raise UserError(f"{npz.title}: sigma has the eigenvalue {eigenvalues[0]:.3g}, so it is not a covariance")
    about = {
        "source": npz.title,
        "statistics": "mu and sigma",
        "dimensions": len(mean),
        "key": sha256(npz.path),
    }
    return Statistics(mean, np.sqrt(eigenvalues.clip(0))[:, None] * vectors.T, about)
