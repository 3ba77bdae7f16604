"""Generator and discriminator: published sizes, shapes, and the fast networks against plain ones."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.nn import Upsample

import reference
from sagan import Discriminator, Generator, ModelConfig
from sagan.model.attention import ChannelAttention2d, MatchedResidual2d, SelfAttention2d
from sagan.model.blocks import UpBlock
from sagan.model.build import build_discriminator, build_generator
from sagan.model.resample import SNDownConv2d
from sagan.model.spectral_norm import SpectralNorm


def count(network):
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def test_published_parameter_counts():
    config = ModelConfig(resolution=128, num_classes=1000, base_channels=64)
    assert count(Generator(config)) == 42_078_852
    assert count(Discriminator(config)) == 39_463_618


@pytest.mark.parametrize(
    ("resolution", "classes", "channels"),
    [(32, 0, 3), (32, 7, 1), (64, 3, 4), (128, 0, 4), (256, 2, 3)],
)
def test_shapes_and_range(resolution, classes, channels):
    config = ModelConfig(
        resolution=resolution, num_classes=classes, image_channels=channels, latent_dim=9, base_channels=4
    )
    z, y = torch.randn(2, 9), torch.tensor([0, max(0, classes - 1)])
    x = Generator(config)(z, y)
    assert x.shape == (2, channels, resolution, resolution)
    assert x.abs().max() <= 1
    assert Discriminator(config)(x, y).shape == (2,)


def test_labels_are_optional_without_classes():
    config = ModelConfig(resolution=32, base_channels=4)
    assert Discriminator(config)(Generator(config)(torch.randn(2, 128))).shape == (2,)


@pytest.mark.parametrize("upsampling", ["nearest", "linear"])
def test_an_up_block_is_what_its_equation_says(upsampling):
    torch.manual_seed(0)
    block = UpBlock(4, 8, ModelConfig(resolution=32, upsampling=upsampling)).eval()
    torch.nn.init.normal_(block.conv1.bias)
    torch.nn.init.normal_(block.shortcut.bias)
    x = torch.randn(2, 4, 5, 5)
    w1, w2, w3 = (c.sn(c.weight) for c in (block.conv1, block.conv2, block.shortcut))
    up = {"nearest": reference.upsample_conv3x3, "linear": reference.upsample_linear_conv3x3}[upsampling]
    double = {"nearest": Upsample(scale_factor=2), "linear": reference.upsample_linear}[upsampling]
    h = up(block.bn1(x, None).relu(), w1, block.conv1.bias)
    h = F.conv2d(block.bn2(h, None).relu(), w2, block.conv2.bias, padding=1)
    assert torch.allclose(block(x, None), h + double(F.conv2d(x, w3, block.shortcut.bias)), atol=1e-5)


def test_the_class_matters_to_both_networks():
    torch.manual_seed(0)
    config = ModelConfig(resolution=32, num_classes=3, base_channels=4)
    generator, discriminator = Generator(config), Discriminator(config).eval()
    for name, parameter in generator.named_parameters():
        if name.endswith((".scale", ".shift")):
            torch.nn.init.normal_(parameter)
    z = torch.randn(2, 128)
    x = generator.eval()(z, torch.tensor([0, 0]))
    assert not torch.allclose(x, generator(z, torch.tensor([1, 1])))
    assert not torch.allclose(discriminator(x, torch.tensor([0, 0])), discriminator(x, torch.tensor([1, 1])))


def test_weights_of_one_class_are_its_label_to_the_generator():
    torch.manual_seed(0)
    generator = Generator(ModelConfig(resolution=32, num_classes=3, latent_dim=8, base_channels=4)).eval()
    for norm in (m for m in generator.modules() if getattr(m, "num_classes", 0)):
        torch.nn.init.normal_(norm.scale)
        torch.nn.init.normal_(norm.shift)
    z, y = torch.randn(6, 8), torch.tensor([0, 1, 2, 2, 1, 0])
    assert torch.equal(generator(z, torch.nn.functional.one_hot(y, 3).float()), generator(z, y))
    assert not torch.allclose(generator(z, torch.full((6, 3), 1 / 3)), generator(z, y), atol=0.01)


def test_logits_are_those_of_the_features():
    torch.manual_seed(0)
    config = ModelConfig(resolution=32, num_classes=3, base_channels=4)
    x, y = torch.rand(4, 3, 32, 32), torch.tensor([0, 2, 1, 1])
    discriminator = Discriminator(config).eval()
    h = discriminator.features(x)
    assert h.shape == (4, discriminator.head.in_features)
    plain = discriminator.head(h)[:, 0] + (discriminator.embed(y) * h).sum(1)  # with the projection <embed(y), h>
    assert torch.equal(discriminator.logits(h, y), plain)
    assert torch.equal(discriminator(x, y), plain)
    classifier = Discriminator(replace(config, class_head="classifier")).eval()
    h = classifier.features(x)
    assert torch.equal(classifier(x, y), classifier.head(h)[:, 0])
    assert classifier.class_logits(h).shape == (4, 3)
    assert torch.equal(classifier.class_logits(h), classifier.classifier(h))


@pytest.mark.parametrize("architecture", ["residual", "dcgan"])
def test_callers_errors(architecture):
    config = ModelConfig(resolution=32, num_classes=3, base_channels=4, architecture=architecture)
    generator, discriminator = build_generator(config), build_discriminator(config)
    with pytest.raises(ValueError, match=r"generator\b.*\blabels y\b"):
        generator(torch.randn(2, 128))
    x = torch.rand(2, 3, 32, 32)
    with pytest.raises(ValueError, match=r"discriminator\b.*\blabels y\b"):
        discriminator(x)
    with pytest.raises(ValueError, match="class_head"):
        discriminator.class_logits(discriminator.features(x))


def test_an_unknown_architecture_is_named():
    config = ModelConfig(resolution=32, architecture="transformer")
    for build in (build_generator, build_discriminator):
        with pytest.raises(ValueError, match=r"architecture\b.*\bresidual, dcgan\b.*\btransformer\b"):
            build(config)


def test_sums_over_locations():
    """The discriminator pools by the sum, not the mean: the head sees h as a sum of 16 locations."""
    config = ModelConfig(resolution=32, base_channels=4)
    discriminator = Discriminator(config).eval()
    seen = []
    discriminator.last.register_forward_hook(lambda _, __, output: seen.append(output))
    logits = discriminator(torch.rand(1, 3, 32, 32))
    h = seen[0].clamp_min(0).sum((2, 3))
    assert torch.allclose(logits, discriminator.head(h)[:, 0])


@pytest.mark.parametrize(
    ("kind", "module"),
    [("self", SelfAttention2d), ("channel", ChannelAttention2d), ("residual", MatchedResidual2d)],
)
@pytest.mark.parametrize("size", [4, 8, 16, 32])
def test_layers_at_any_size(kind, module, size):
    config = ModelConfig(
        resolution=32,
        base_channels=8,
        generator_attention=((size, kind),),
        discriminator_attention=((min(size, 16), kind),),
    )
    generator, discriminator = Generator(config), Discriminator(config)
    seen = {}
    for name, network in (("g", generator), ("d", discriminator)):
        (layer,) = (m for m in network.modules() if isinstance(m, module))
        layer.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output.shape[-1]}))
    discriminator(generator(torch.randn(1, 128)))
    assert seen == {"g": size, "d": min(size, 16)}


def test_several_layers_at_once_and_none():
    config = ModelConfig(
        resolution=32,
        base_channels=8,
        generator_attention=((16, "self"), (16, "channel"), (8, "self")),
        discriminator_attention=(),
    )
    assert sum(isinstance(m, SelfAttention2d) for m in Generator(config).modules()) == 2
    assert sum(isinstance(m, ChannelAttention2d) for m in Generator(config).modules()) == 1
    assert not any(isinstance(m, SelfAttention2d) for m in Discriminator(config).modules())


@pytest.mark.parametrize(("g", "d"), itertools.product([True, False], repeat=2))
def test_spectral_norm_can_be_switched_for_each(g, d):
    config = ModelConfig(
        resolution=32, num_classes=2, base_channels=8, generator_spectral_norm=g, discriminator_spectral_norm=d
    )
    for network, on in ((Generator(config), g), (Discriminator(config), d)):
        normed = [name for name, m in network.named_modules() if isinstance(m, SpectralNorm)]
        weights = [n for n, p in network.named_parameters() if n.endswith("weight")]
        assert len(normed) == (len(weights) if on else 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 48}, r"resolution\b.*\b48\b"),
        ({"image_channels": 2}, r"image_channels\b.*\b2\b"),
        ({"upsampling": "cubic"}, r"upsampling\b.*\blinear\b.*\bcubic\b"),
        ({"num_classes": -1}, r"num_classes\b.*-1\b"),
        ({"resolution": 32, "discriminator_attention": ((32, "self"),)}, "discriminator_attention"),
        ({"generator_attention": ((24, "self"),)}, "generator_attention"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"base_channels": 0}, "base_channels"),
    ],
)
def test_bad_configurations_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**options)


def test_widths_are_those_asked_for():
    config = ModelConfig(
        resolution=32, base_channels=4, generator_widths=(6, 10, 12, 4), discriminator_widths=(8, 6, 10, 12)
    )
    generator, discriminator = Generator(config), Discriminator(config)
    assert [block.conv2.out_channels for block in generator.blocks] == [10, 12, 4]
    blocks = [*discriminator.blocks, discriminator.last]
    assert [block.conv2.out_channels for block in blocks] == [8, 6, 10, 12]
    assert [isinstance(block.conv2, SNDownConv2d) for block in blocks] == [True, True, True, False]
    assert discriminator(generator(torch.randn(2, 128))).shape == (2,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"generator_widths": (8, 8)}, r"generator_widths\b.*\b4\b"),
        ({"generator_widths": (8, 8, 8, 8, 8)}, r"generator_widths\b.*\b4\b"),
        ({"discriminator_widths": (8,)}, r"discriminator_widths\b.*\b2\b"),
        ({"discriminator_widths": (8, 0, 8)}, r"discriminator_widths\b.*\b2\b"),
        ({"discriminator_widths": (8,) * 6}, r"discriminator_widths\b.*\b5\b"),
    ],
)
def test_widths_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(resolution=32, **fields)
