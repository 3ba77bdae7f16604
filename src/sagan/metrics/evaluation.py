"""Evaluation during training: how far the generator's pictures are from the data."""

import numpy as np
import torch

from sagan.data import Store
from sagan.metrics.features import EfficientNetLite0, extract
from sagan.metrics.frechet import frechet_distance
from sagan.model.generator import Generator
from sagan.sampling import draw_latents, sample_batches

BATCH = 50


class Evaluation:
    """Frechet distance in EfficientNet-Lite0 features between `count` pictures of the data and as many generated.

    Real pictures are drawn without repetition, the generated ones' classes as the data's are. It is not FID.
    The features of the real pictures are computed once.

    Raises:
        UserError: the feature network is not installed.
    """

    def __init__(self, store: Store, count: int):
        self.features = EfficientNetLite0()
        chosen = np.random.Generator(np.random.Philox(0)).permutation(len(store))[:count]
        self.labels = torch.from_numpy(store.labels[chosen])
        parts = np.array_split(np.sort(chosen), -(-len(chosen) // BATCH))
        batches = (torch.from_numpy(store.images[part]).permute(0, 3, 1, 2) for part in parts)
        self.real = extract(self.features, batches, len(chosen))

    def __call__(self, generator: Generator, *, seed: int) -> float:
        z = draw_latents(len(self.labels), generator.config.latent_dim, seed=seed)
        batches = sample_batches(generator, z, self.labels, BATCH)
        return frechet_distance(self.real, extract(self.features, batches, len(z)))
