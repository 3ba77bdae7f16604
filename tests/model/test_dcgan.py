"""The networks of strided convolutions against PyTorch's own layers; tests/importers has heykeetae's own code."""

import pytest
import torch
import torch.nn.functional as F

from sagan import Discriminator, Generator, ModelConfig
from sagan.model.attention import SelfAttention2d
from sagan.model.build import build_discriminator, build_generator
from sagan.model.dcgan import DCGANDiscriminator, DCGANGenerator
from sagan.model.spectral_norm import SNConvTranspose2d, SpectralNorm

DCGAN = {"architecture": "dcgan", "latent_dim": 9, "base_channels": 4, "attention_variant": "direct"}


@pytest.mark.parametrize(("resolution", "classes", "channels"), [(32, 0, 3), (64, 3, 4), (128, 2, 1)])
def test_shapes_and_range(resolution, classes, channels):
    config = ModelConfig(resolution=resolution, num_classes=classes, image_channels=channels, **DCGAN)
    z, y = torch.randn(2, 9), torch.tensor([0, max(0, classes - 1)])
    x = build_generator(config)(z, y)
    assert x.shape == (2, channels, resolution, resolution)
    assert x.abs().max() <= 1
    assert build_discriminator(config)(x, y).shape == (2,)


@torch.no_grad()
def test_they_are_stacks_of_convolutions():
    """Layer by layer what PyTorch's functions make of the same weights, with every spectral norm switched off."""
    torch.manual_seed(0)
    off = {"generator_spectral_norm": False, "discriminator_spectral_norm": False}
    config = ModelConfig(resolution=32, generator_attention=(), discriminator_attention=(), **DCGAN, **off)
    generator, discriminator = build_generator(config).double(), build_discriminator(config).double()
    z = torch.randn(3, 9, dtype=torch.float64)
    x = z[:, :, None, None]
    for i, block in enumerate([generator.stem, *generator.blocks]):
        x = F.conv_transpose2d(x, block.conv.weight, block.conv.bias, *((1, 0) if i == 0 else (2, 1)))
        assert x.shape[1:] == ((16, 8, 4)[i], 4 << i, 4 << i)
        x = ((x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), False, keepdim=True) + 1e-5).sqrt()).relu()
    x = torch.tanh(F.conv_transpose2d(x, generator.head.weight, generator.head.bias, 2, 1))
    assert torch.allclose(generator(z), x, rtol=1e-10)
    h = x
    for block in discriminator.blocks:
        h = F.leaky_relu(F.conv2d(h, block.conv.weight, block.conv.bias, 2, 1), 0.1)
    assert h.shape == (3, 16, 4, 4)
    weight = discriminator.head.weight.view(1, 16, 4, 4)
    assert torch.allclose(discriminator(x), F.conv2d(h, weight, discriminator.head.bias).flatten(), rtol=1e-10)


def test_the_class_matters_to_both_networks():
    torch.manual_seed(0)
    config = ModelConfig(resolution=32, num_classes=2, **DCGAN)
    generator, discriminator = build_generator(config).eval(), build_discriminator(config).eval()
    for name, parameter in generator.named_parameters():
        if name.endswith((".scale", ".shift")):
            torch.nn.init.normal_(parameter)
    a, b = torch.tensor([0]), torch.tensor([1])
    x = generator(torch.ones(1, 9), a)
    assert not torch.allclose(x, generator(torch.ones(1, 9), b))
    assert not torch.allclose(discriminator(x, a), discriminator(x, b))


def test_norms_are_where_heykeetae_has_them():
    config = ModelConfig(resolution=64, **DCGAN)
    for network in (build_generator(config), build_discriminator(config)):
        normed = [name for name, m in network.named_modules() if isinstance(m, SpectralNorm)]
        assert len(normed) == 4
        assert all(".conv." in name for name in normed)
        assert sum(isinstance(m, SelfAttention2d) for m in network.modules()) == 1


def test_a_transposed_convolution_is_normalised_as_a_matrix_of_its_inputs():
    torch.manual_seed(0)
    layer = SNConvTranspose2d(5, 3, 4, stride=2, padding=1, spectral_norm=True)
    for _ in range(300):
        layer.sn(layer.weight)
    found = layer.sn(layer.weight).flatten(1)
    assert found.shape == (5, 48)
    assert torch.linalg.matrix_norm(found, 2).item() == pytest.approx(1, rel=1e-5)
    wanted = layer.eval()(torch.ones(1, 5, 2, 2))
    layer.bake()
    assert torch.equal(layer(torch.ones(1, 5, 2, 2)), wanted)


def test_a_configuration_builds_its_own_networks():
    config = ModelConfig(resolution=32, **DCGAN)
    assert isinstance(build_generator(config), DCGANGenerator)
    assert isinstance(build_discriminator(config), DCGANDiscriminator)
    for network in (Generator, Discriminator):
        with pytest.raises(ValueError, match=r"architecture\b.*\bdcgan\b"):
            network(config)
    with pytest.raises(ValueError, match=r"architecture\b.*\bresidual\b"):
        DCGANGenerator(ModelConfig(resolution=32))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"generator_widths": (8, 8, 8, 8)}, r"generator_widths\b.*\b3\b"),
        ({"discriminator_widths": (8, 8, 8, 8)}, r"discriminator_widths\b.*\b3\b"),
        (
            {"generator_attention": ((32, "self"),)},
            r"generator_attention\b.*\[4, 8, 16",
        ),
        ({"value_reduction": 2}, r"value_reduction\b.*\b1\b.*\bdirect\b"),
    ],
)
def test_what_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(resolution=32, **DCGAN | fields)
