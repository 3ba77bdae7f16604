"""Evaluate a generator cheaply and repeatedly during training."""

import math

import numpy as np
import torch
from torch import Tensor

from sagan.data import Store
from sagan.distributed import Processes
from sagan.metrics.features import Features, extract
from sagan.metrics.frechet import frechet_distance
from sagan.metrics.patch_correlation import PatchMeans, PatchReader, compare_patch_correlation
from sagan.metrics.reference import choose, reference_features
from sagan.model.generator import Generator
from sagan.sampling import draw_latents, sample_batches


class Monitor:
    """Compare `count` generated images with `count` real images of the same classes.

    The features of the real images are computed once. The Frechet distance is biased upward at so few images: compare
    it only with values at the same count. All processes that `share` the work call the monitor.
    """

    def __init__(
        self, store: Store, features: Features, count: int, device: torch.device, *, share: Processes | None = None
    ):
        chosen = choose(store, count)
        more = choose(store, 2 * count)  # patch correlation compares two real sets, the first being `chosen`
        self.features, self.device, self.share = features.to(device), device, share
        self.labels = torch.from_numpy(store.labels[chosen])
        self.real = reference_features(store, chosen, features, device=device, label="real images", share=share)
        self.real_patches = reference_features(
            store, more, PatchMeans(), device=device, label="real images' patches", share=share
        ).astype(np.float64)
        self.real_labels = store.labels[more]
        self.distance_key = "fid" if features.name == "Inception" else f"frechet_distance/{features.name}"

    def __call__(self, generator: Generator, *, seed: int) -> dict[str, float]:
        """Return the Frechet distance, the diversity and, of 10 images or more, the patch correlation errors.

        Diversity is the within-class variance of generated features relative to that of real features (1: as varied
        as the data; 0: one image per class).
        """
        z = draw_latents(len(self.labels), generator.config.latent_dim, seed=seed)

        def images(i: int, j: int) -> Tensor:
            return torch.cat(list(sample_batches(generator, z[i:j], self.labels[i:j])))

        read = PatchReader(images)
        generated = extract(
            self.features,
            read,
            len(z),
            device=self.device,
            label="evaluation",
            progress=False,
            share=self.share,
        )
        patches = read.values(len(z), self.share or Processes(self.device))
        y = self.labels.numpy()
        values = {
            self.distance_key: frechet_distance(self.real, generated),
            "diversity": _variance_within(generated, y) / max(_variance_within(self.real, y), 1e-12),
        }
        found = compare_patch_correlation(patches, y, self.real_patches, self.real_labels)
        ends = {"near": found.near, "far": found.far} if found else {}
        return values | {f"patch_correlation/{end}": error for end, error in ends.items() if math.isfinite(error)}


def _variance_within(x: np.ndarray, y: np.ndarray) -> float:
    """Return the mean squared distance of features (N, D) from the mean of their class (N,)."""
    return float(np.mean([((x[y == c] - x[y == c].mean(0)) ** 2).sum(1).mean() for c in np.unique(y)]))
