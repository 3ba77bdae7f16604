import numpy as np
import pytest
import torch

from sagan import DataConfig, Generator, ModelConfig
from sagan.data import prepare
from sagan.metrics.evaluation import Evaluation
from sagan.metrics.frechet import frechet_distance
from sagan.sampling import draw_latents, sample_batches


class Copying(torch.nn.Module):
    """A perfect generator: it knows the pictures by heart and hands them out one after the other."""

    def __init__(self, images):
        super().__init__()
        self.config = ModelConfig(resolution=32)
        self.none = torch.nn.Parameter(torch.zeros(()))
        self.images = iter(images.split(1))

    def forward(self, z, y):
        return torch.cat([next(self.images) for _ in z]).permute(0, 3, 1, 2) / 127.5 - 1


@pytest.fixture
def store(pictures):
    pytest.importorskip("efficientnet_lite_pytorch")
    return prepare(DataConfig(source=str(pictures)), resolution=32, image_channels=3)


def test_the_data_themselves_are_at_distance_zero(store):
    generator = Copying(torch.from_numpy(np.array(store.images)))
    assert abs(Evaluation(store, len(store))(generator, seed=0)) < 1e-3


def test_is_the_frechet_distance_of_samples_with_the_data_s_classes(store):
    torch.manual_seed(0)
    generator = Generator(ModelConfig(resolution=32, num_classes=2, latent_dim=8, base_channels=4)).eval()
    evaluation = Evaluation(store, 10)
    assert evaluation.real.shape == (10, 1280)
    z = draw_latents(10, 8, seed=5)
    pictures = torch.cat(list(sample_batches(generator, z, evaluation.labels)))
    wanted = frechet_distance(evaluation.real, evaluation.features(pictures).numpy())
    assert evaluation(generator, seed=5) == pytest.approx(wanted, rel=1e-4)
    assert wanted > 10
