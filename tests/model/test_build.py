import pytest

from sagan import ModelConfig
from sagan.model.build import build_discriminator, build_generator, count_parameters


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(resolution=32, base_channels=4, latent_dim=8, num_classes=3),
        ModelConfig(resolution=32, base_channels=4, latent_dim=8, architecture="dcgan"),
    ],
)
def test_parameters_are_counted_without_building(config):
    networks = build_generator(config), build_discriminator(config)
    assert count_parameters(config) == tuple(sum(p.numel() for p in network.parameters()) for network in networks)
