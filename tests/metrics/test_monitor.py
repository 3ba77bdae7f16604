import numpy as np
import pytest
import torch

from sagan import DataConfig, Generator, ModelConfig
from sagan.data import prepare
from sagan.metrics.features import EfficientNetLite0
from sagan.metrics.frechet import frechet_distance
from sagan.metrics.monitor import Monitor
from sagan.metrics.patch_correlation import compare_patch_correlation, patch_values
from sagan.metrics.reference import choose
from sagan.sampling import draw_latents, sample_batches

CPU = torch.device("cpu")
DISTANCE = "frechet_distance/EfficientNet-Lite0"


class Copying(torch.nn.Module):
    """A perfect generator: it has memorised the images and returns them one after the other."""

    def __init__(self, images):
        super().__init__()
        self.config = ModelConfig(resolution=32)
        self.none = torch.nn.Parameter(torch.zeros(()))
        self.images = iter(images.split(1))

    def forward(self, z, y):
        return torch.cat([next(self.images) for _ in z]).permute(0, 3, 1, 2) / 127.5 - 1


@pytest.fixture
def store(image_folder):
    pytest.importorskip("efficientnet_lite_pytorch")
    return prepare(DataConfig(source=str(image_folder)), resolution=32, image_channels=3)


def test_the_data_themselves_are_at_distance_zero_and_as_varied_as_the_data(store):
    order = np.random.Generator(np.random.Philox(0)).permutation(len(store))
    found = Monitor(store, EfficientNetLite0(), len(store), CPU)(
        Copying(torch.from_numpy(np.array(store.images)[order])), seed=0
    )
    assert abs(found[DISTANCE]) < 1e-3
    assert found["diversity"] == pytest.approx(1, abs=1e-3)


def test_a_generator_of_one_image_a_class_has_no_diversity(store):
    monitor = Monitor(store, EfficientNetLite0(), len(store), CPU)
    one_each = torch.from_numpy(np.stack([np.array(store.images)[store.labels == y][0] for y in monitor.labels]))
    assert monitor(Copying(one_each), seed=0)["diversity"] < 1e-3


def test_is_the_frechet_distance_of_samples_with_the_data_s_classes(store):
    torch.manual_seed(0)
    generator = Generator(ModelConfig(resolution=32, num_classes=2, latent_dim=8, base_channels=4)).eval()
    monitor = Monitor(store, EfficientNetLite0(), 10, CPU)
    assert monitor.real.shape == (10, 1280)
    z = draw_latents(10, 8, seed=5)
    images = torch.cat(list(sample_batches(generator, z, monitor.labels)))
    wanted = frechet_distance(monitor.real, monitor.features(images).numpy())
    assert monitor(generator, seed=5)[DISTANCE] == pytest.approx(wanted, rel=1e-4)
    assert wanted > 10


def test_patch_correlation_of_the_same_samples_against_two_real_sets(store):
    """24 images: 12 generated, and two real sets of 12."""
    order = choose(store, len(store))
    monitor = Monitor(store, EfficientNetLite0(), 12, CPU)
    images = torch.from_numpy(np.array(store.images))
    copied = monitor(Copying(images[order]), seed=0)
    assert copied["patch_correlation/near"] == pytest.approx(0, abs=1e-6)
    assert copied["patch_correlation/far"] == pytest.approx(0, abs=1e-6)
    # Others of the same classes: each class's images in another order.
    y = store.labels[order]
    other = np.concatenate([order[12:][store.labels[order[12:]] == label] for label in (0, 1)])
    rest = {label: iter(other[store.labels[other] == label].tolist() * 12) for label in (0, 1)}
    shown = np.array([next(rest[label]) for label in y[:12].tolist()])
    found = monitor(Copying(images[shown]), seed=0)
    expected = compare_patch_correlation(
        patch_values(store.load_images(shown)), y[:12], patch_values(store.load_images(order)), y
    )
    assert found["patch_correlation/near"] == pytest.approx(expected.near, rel=1e-5)
    assert found["patch_correlation/far"] == pytest.approx(expected.far, rel=1e-5)
    assert expected.far > 0.1


def test_too_few_images_have_no_patch_correlation(store):
    monitor = Monitor(store, EfficientNetLite0(), 8, CPU)
    found = monitor(Copying(torch.from_numpy(np.array(store.images))), seed=0)
    assert {*found} == {DISTANCE, "diversity"}
