"""The variants of the residual networks that imports need, against PyTorch's own operations."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sagan.importers.networks import (
    ImportedConfig,
    ImportedDiscriminator,
    ImportedDownBlock,
    ImportedGenerator,
    ImportedUpBlock,
    NormalisedTables,
)
from sagan.model.batch_norm import ConditionalBatchNorm2d
from sagan.model.build import build_discriminator, build_generator, count_parameters, find_architecture
from sagan.model.config import ModelConfig
from sagan.model.generator import Generator
from sagan.model.spectral_norm import bake_spectral_norm, drop_spectral_norm, has_spectral_norm

CONFIG = ImportedConfig(resolution=32, base_channels=4)


def test_a_configuration_builds_its_own_networks():
    assert isinstance(build_generator(CONFIG), ImportedGenerator)
    assert isinstance(build_discriminator(CONFIG), ImportedDiscriminator)
    assert count_parameters(CONFIG) == count_parameters(ModelConfig(resolution=32, base_channels=4))
    with pytest.raises(ValueError, match=r"architecture\b.*\bimported\b"):
        Generator(CONFIG)
    with pytest.raises(ValueError, match=r"architecture\b.*\bresidual, dcgan, imported\b.*'other'"):
        find_architecture("other")


@torch.no_grad()
def test_without_a_variant_they_are_our_own_networks():
    ours = ModelConfig(resolution=32, base_channels=4, num_classes=3)
    theirs = ImportedConfig(resolution=32, base_channels=4, num_classes=3)
    y, inputs = torch.tensor([0, 2]), (torch.randn(2, 128), torch.rand(2, 3, 32, 32))
    for build, x in zip((build_generator, build_discriminator), inputs, strict=True):
        a, b = build(ours).eval(), build(theirs).eval()
        b.load_state_dict(a.state_dict())
        assert torch.equal(a(x, y), b(x, y))


def down_block(**options):
    first, config = options.pop("first", False), replace(CONFIG, **options)
    return ImportedDownBlock(4, 8, config, first=first, downsample=True).eval()


def test_shortcuts_start_from_the_relu_if_asked():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, 6)
    block = down_block(shortcut="rectified")
    assert torch.equal(block(x), block(x.relu()))
    plain = down_block()
    assert not torch.allclose(plain(x), plain(x.relu()))
    first = down_block(shortcut="rectified", first=True)  # the image itself is not rectified
    assert not torch.allclose(first(x), first(x.relu()))


def test_bilinear_generators_convolve_what_is_interpolated():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 5, 5)
    block = ImportedUpBlock(4, 8, replace(CONFIG, upsampling="bilinear")).eval()
    double = lambda t: F.interpolate(t, scale_factor=2, mode="bilinear", align_corners=False)  # noqa: E731
    w1, w2, w3 = (c.sn(c.weight) for c in (block.conv1, block.conv2, block.shortcut))
    h = F.conv2d(double(block.bn1(x, None).relu()), w1, block.conv1.bias, padding=1)
    h = F.conv2d(block.bn2(h, None).relu(), w2, block.conv2.bias, padding=1)
    assert torch.allclose(block(x, None), h + F.conv2d(double(x), w3, block.shortcut.bias), atol=1e-5)


def test_widths_and_halvings_are_those_asked_for():
    config = replace(
        CONFIG,
        generator_widths=(6, 10, 12, 4),
        discriminator_widths=(8, 6, 10, 12),
        discriminator_halvings=2,
        discriminator_inner="in",
    )
    generator, discriminator = build_generator(config), build_discriminator(config)
    assert [block.conv2.out_channels for block in generator.blocks] == [10, 12, 4]
    blocks = [*discriminator.blocks, discriminator.last]
    assert [block.conv1.out_channels for block in blocks] == [8, 8, 6, 10]
    assert [block.conv2.out_channels for block in blocks] == [8, 6, 10, 12]
    assert [block.downsample for block in blocks] == [True, True, False, False]
    assert list(discriminator.attention) == ["8", "16"]
    assert discriminator(generator(torch.randn(2, 128))).shape == (2,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"discriminator_halvings": 5}, r"discriminator_halvings\b.*\b4\b.*\b5\b"),
        ({"discriminator_halvings": 0}, r"discriminator_halvings\b.*\b4\b.*\b0\b"),
        ({"discriminator_halvings": 2, "discriminator_attention": ((4, "self"),)}, "discriminator_attention"),
        ({"resolution": 48}, r"resolution\b.*\b48\b"),
    ],
)
def test_what_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **fields)


def test_normalised_tables_have_a_singular_value_of_1_and_scales_are_around_1():
    torch.manual_seed(0)
    layer = NormalisedTables(6, 3)
    layer.solve()
    scale, shift = layer.eval().tables()
    for table, given in ((scale - 1, layer.scale - 1), (shift, layer.shift)):
        assert torch.allclose(table, given / torch.linalg.svdvals(given)[0], atol=1e-6)
    x, y = torch.randn(4, 6, 5, 5), torch.tensor([0, 2, 1, 1])
    before = layer(x, y)
    bake_spectral_norm(layer)
    assert torch.equal(layer(x, y), before)
    torch.nn.init.constant_(layer.scale, 1e-3)  # 1 + (1e-3 - 1) rounds
    assert torch.equal(layer.tables()[0], layer.scale)
    assert layer.state_dict().keys() == ConditionalBatchNorm2d(6, 3).state_dict().keys()
    layer.solve()  # of which nothing is left


@pytest.mark.parametrize(
    ("options", "tables"), [({}, 6), ({"generator_spectral_norm": False}, 0), ({"num_classes": 0}, 0)]
)
def test_tables_are_normalised_where_generator_and_classes_are(options, tables):
    generator = build_generator(replace(CONFIG, **{"num_classes": 3, "class_spectral_norm": True} | options))
    assert sum(isinstance(m, NormalisedTables) for m in generator.modules()) == tables
    assert not has_spectral_norm(drop_spectral_norm(generator))
