"""Maps of whole networks: exact, in the right place, and asking leaves no trace."""

import copy
import math
from importlib import import_module

import numpy as np
import pytest
import torch

import reference
from sagan import (
    Discriminator,
    Generator,
    ModelConfig,
    UserError,
    attention_layers,
    attention_maps,
    attention_statistics,
    observe_attention,
    resize_maps,
)
from sagan.model.spectral_norm import bake_spectral_norm

VARIANTS = ("released", "paper", "full")
LAYERS = {
    "generator_attention": ((8, "self"), (16, "channel"), (16, "self"), (32, "residual"), (32, "self")),
    "discriminator_attention": ((4, "self"), (8, "residual"), (16, "self"), (16, "self")),
}


def networks(variant="released", **options):
    """A generator and a discriminator with gammas and norms that have seen something, and inputs for them."""
    torch.manual_seed(0)
    config = ModelConfig(
        resolution=32, num_classes=3, latent_dim=8, base_channels=8, attention_variant=variant, **options
    )
    z, y = torch.randn(2, 8), torch.tensor([0, 2])
    generator, discriminator = Generator(config), Discriminator(config)
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                torch.nn.init.constant_(parameter, -0.4)
    for _ in range(3):
        discriminator(generator(z, y), y)
    return (generator, z, y), (discriminator, torch.randn(2, 3, 32, 32), y)


WITHOUT_NORMS = {"generator_spectral_norm": False, "discriminator_spectral_norm": False}


def sharpen(network, inputs, y):
    """Scales queries until maps are far from uniform, one layer after the other."""
    for name, layer in attention_layers(network).items():
        q, k, _ = layer.project(observe_attention(network, inputs, y).inputs[name])
        with torch.no_grad():
            layer.query.weight *= 3 / (q @ k.transpose(1, 2)).std()


def whole_maps(network, inputs, y):
    """Every map (N, S², K) by the plain formula in float64, from the layers' inputs in a float64 copy."""
    network = bake_spectral_norm(copy.deepcopy(network).eval()).double()
    maps, changes = {}, {}

    def work(name):
        def hook(layer, arguments, output):
            weights = (getattr(layer, part).weight.flatten(1) for part in ("query", "key", "value", "output"))
            changed, maps[name] = reference.attention(arguments[0], *weights, layer.gamma, layer.pooled)
            changes[name] = (changed - arguments[0]).flatten(1).norm(dim=1) / arguments[0].flatten(1).norm(dim=1)

        return hook

    for name, layer in attention_layers(network).items():
        layer.register_forward_hook(work(name))
    with torch.no_grad():
        network(inputs.double(), y)
    return maps, changes


@pytest.mark.parametrize("variant", VARIANTS)
def test_maps_are_rows_of_the_full_softmax_in_float64(variant):
    points = [(0, 0), (31, 31), (5, 20), (17, 2)]
    for network, inputs, y in networks(variant, **LAYERS, **WITHOUT_NORMS):
        sharpen(network, inputs, y)
        maps, (wanted, _) = attention_maps(network, inputs, y, queries=points), whole_maps(network, inputs, y)
        assert list(maps) == list(wanted)
        for name, found in maps.items():
            size = int(name.partition(".")[0])
            keys = size // 2 if variant == "released" else size
            assert found.shape == (2, 4, keys, keys)
            rows = [(py * size // 32) * size + px * size // 32 for px, py in points]
            assert (found.flatten(2) - wanted[name][:, rows]).abs().max() < 1e-5
            assert (found.sum((2, 3)) - 1).abs().max() < 1e-6
            assert found.amax((2, 3)).mean() * keys**2 > 1.8  # far from uniform


def test_all_rows_and_points_of_each_image():
    (generator, z, y), _ = networks(**WITHOUT_NORMS)
    sharpen(generator, z, y)
    every = attention_maps(generator, z, y, queries="all")["16.0"]
    wanted, _ = whole_maps(generator, z, y)
    assert (every.flatten(2) - wanted["16.0"]).abs().max() < 1e-5
    points = torch.tensor([[[3, 9]], [[30, 0]]])
    found = attention_maps(generator, z, y, queries=points)["16.0"]
    assert torch.allclose(found[:, 0], every[[0, 1], [4 * 16 + 1, 15]], atol=1e-6)
    fractions = attention_maps(generator, z, y, queries=np.array([[3.99, 9.5]]))["16.0"]
    assert torch.allclose(fractions[0], found[0], atol=1e-6)


def test_asking_leaves_a_network_as_it_was():
    for network, inputs, y in networks(**LAYERS):
        network.blocks[0].eval()  # modes may differ
        before = copy.deepcopy(network)
        attention_maps(network, inputs, y, queries=[(1, 2)])
        attention_statistics(network, inputs, y)
        with pytest.raises(UserError):
            attention_maps(network, inputs, y, queries=[(1, 99)])
        assert all(
            torch.equal(a, b) for a, b in zip(network.state_dict().values(), before.state_dict().values(), strict=True)
        )
        assert [m.training for m in network.modules()] == [m.training for m in before.modules()]
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in network.modules())
        assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_baked_networks_have_the_same_maps():
    for network, inputs, y in networks(**LAYERS):
        baked = bake_spectral_norm(copy.deepcopy(network).eval())
        a, b = (attention_maps(n, inputs, y, queries=[(4, 4), (20, 9)]) for n in (network, baked))
        assert max((a[name] - b[name]).abs().max() for name in a) < 1e-5


def looks_from_red_to_green(network, name):
    """The layer's queries read the red channel, its keys the green one: what is red attends to what is green."""
    layer = attention_layers(network)[name]
    for part, channel in (("query", 0), ("key", 1)):
        weight = getattr(layer, part).weight
        torch.nn.init.zeros_(weight)
        with torch.no_grad():
            weight[0, channel] = 10.0


def colours_alone(network):
    """Blocks that pass colours on: all 3x3 convolutions zero, every shortcut and head the identity."""
    for name, parameter in network.named_parameters():
        if name.endswith("weight") and parameter.dim() == 4 and "attention" not in name:
            torch.nn.init.zeros_(parameter)
            if "shortcut" in name or name.startswith("head"):
                torch.nn.init.dirac_(parameter)


def constructed(variant):
    return ModelConfig(
        resolution=32,
        base_channels=8,
        latent_dim=16 * 32,
        attention_variant=variant,
        **WITHOUT_NORMS,
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("red", "green"), [((4, 6), (25, 11)), ((31, 0), (0, 31)), ((9, 17), (8, 16)), ((0, 0), (30, 29))]
)
def test_a_discriminator_that_attends_to_one_known_pixel(variant, red, green):
    """A red and a green pixel in a black image: from the red one, the map must lie on the green one's cell."""
    network = Discriminator(constructed(variant))
    colours_alone(network)
    looks_from_red_to_green(network, "16.0")
    x = torch.zeros(1, 3, 32, 32)
    x[0, 0, red[1], red[0]] = x[0, 1, green[1], green[0]] = 4.0  # 1.0 after 2x2 averaging
    maps = attention_maps(network, x, queries=[red, (15, 15)])["16.0"]
    laid = resize_maps(maps, 32)
    cell = 4 if variant == "released" else 2  # pixels that a key stands for
    left, top = (c // cell * cell for c in green)
    assert laid[0, 0, top : top + cell, left : left + cell].sum() > 0.999
    assert torch.allclose(laid[0, 1], torch.full((32, 32), 1 / 32**2))  # black looks everywhere alike

    smooth = resize_maps(maps, 32, smooth=True)[0, 0]
    assert smooth.sum() == pytest.approx(1, abs=1e-5)
    if all(cell < c < 31 - cell for c in green):  # the centre of what is laid is the centre of the cell
        at = torch.arange(32) + 0.5
        assert (smooth.sum(0) @ at).item() == pytest.approx(left + cell / 2, abs=0.02)
        assert (smooth.sum(1) @ at).item() == pytest.approx(top + cell / 2, abs=0.02)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_generator_that_attends_to_what_is_green_in_its_image(variant):
    """Latents that are the 4x4 image: the map from the red block lies on the pixels that come out green."""
    network = Generator(constructed(variant))
    colours_alone(network)
    torch.nn.init.eye_(network.stem.weight)
    looks_from_red_to_green(network, "16.0")
    z = torch.zeros(1, 4, 4, 32)
    z[0, 2, 0, 0] = z[0, 1, 3, 1] = 2.0  # red at row 2, column 0; green at row 1, column 3
    observed = observe_attention(network, z.flatten(1))
    colours = observed.output[0] > 0.5
    laid = resize_maps(observed.maps([(3, 20)])["16.0"], 32)[0, 0]
    assert colours[0, 20, 3]
    assert colours[1].sum() == 64
    assert laid[colours[1]].sum() > 0.999
    assert laid[colours[1]].std() < 1e-6


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("block", [1, 1 << 10, 1 << 22])
def test_statistics_are_those_of_the_whole_map(variant, block, monkeypatch):
    monkeypatch.setattr(import_module("sagan.attention_maps"), "BLOCK_ELEMENTS", block)
    options = {"generator_attention": ((8, "self"), (16, "self")), "discriminator_attention": ((8, "self"),)}
    for network, inputs, y in networks(variant, **options, **WITHOUT_NORMS):
        sharpen(network, inputs, y)
        maps, changes = whole_maps(network, inputs, y)
        for name, found in attention_statistics(network, inputs, y).items():
            size = int(name.partition(".")[0])
            keys = size // 2 if variant == "released" else size
            distances = np.empty((size**2, keys**2))
            for j in range(size**2):
                for i in range(keys**2):
                    (qy, qx), (ky, kx) = divmod(j, size), divmod(i, keys)
                    across = (qx + 0.5) * 32 / size - (kx + 0.5) * 32 / keys
                    down = (qy + 0.5) * 32 / size - (ky + 0.5) * 32 / keys
                    distances[j, i] = math.hypot(across, down)
            beta = maps[name].numpy()
            assert (found.grid, found.keys, found.gamma) == (size, keys, pytest.approx(-0.4))
            assert found.distance == pytest.approx((beta * distances).sum(2).mean(), rel=1e-5)
            assert found.uniform_distance == pytest.approx(distances.mean(), rel=1e-6)
            assert found.strength == pytest.approx(changes[name].mean().item(), rel=1e-4)
            variation = np.abs(beta - beta.mean(1, keepdims=True)).sum(2).mean() / 2
            assert found.variation == pytest.approx(variation, rel=1e-3)


def test_a_layer_that_looks_everywhere_alike():
    (network, z, y), _ = networks(**WITHOUT_NORMS)
    torch.nn.init.zeros_(attention_layers(network)["16.0"].query.weight)
    found = attention_statistics(network, z, y)["16.0"]
    assert found.distance == pytest.approx(found.uniform_distance, rel=1e-6)
    assert found.variation == pytest.approx(0, abs=1e-6)


def test_a_layer_that_is_not_used_yet():
    (network, z, y), _ = networks()
    torch.nn.init.zeros_(attention_layers(network)["16.0"].gamma)
    found = attention_statistics(network, z, y)["16.0"]
    assert (found.gamma, found.strength) == (0, 0)


def test_names_in_the_order_of_the_forward_pass():
    (generator, *_), (discriminator, *_) = networks(**LAYERS)
    assert list(attention_layers(generator)) == ["8.0", "16.1", "32.1"]
    assert list(attention_layers(discriminator)) == ["16.0", "16.1", "4.0"]
    assert list(attention_layers(discriminator, ["4", "16.1"])) == ["4.0", "16.1"]
    assert list(attention_layers(discriminator, ["16"])) == ["16.0", "16.1"]
    assert list(attention_layers(generator, ["16"])) == ["16.1"]
    assert attention_layers(generator)["16.1"] is generator.attention["16"][1]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("16.0", r"layer 16\.0\b.*channel attention\b.*8\.0, 16\.1, 32\.1"),
        ("32.0", r"layer 32\.0\b.*\bresidual block\b"),
        ("64", r"layer 64\b.*\bgenerator\b.*8\.0"),
        ("", r"layer\b.*\bgenerator\b.*8\.0"),
    ],
)
def test_layers_without_maps_are_named(layer, message):
    (generator, z, y), _ = networks(**LAYERS)
    with pytest.raises(UserError, match=message):
        attention_maps(generator, z, y, queries=[(0, 0)], layers=[layer])


def test_networks_without_self_attention():
    options = {"generator_attention": (), "discriminator_attention": ((8, "channel"),)}
    (generator, z, y), (discriminator, x, _) = networks(**options)
    with pytest.raises(UserError, match=r"generator\b.*\bself-attention\b"):
        attention_maps(generator, z, y, queries=[(0, 0)])
    with pytest.raises(UserError, match=r"discriminator\b.*8\.0\b.*channel attention"):
        attention_maps(discriminator, x, y, queries=[(0, 0)])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([(32, 0)], r"point 32,0\b.*\b32 x 32\b.*\b31\b"),
        ([(0, 0), (3, -1)], r"point 3,-1\b"),
        ([(math.nan, 0)], r"point nan,0\b"),
        ([(1, 2, 3)], "pairs"),
        ([], "pairs"),
        ([[(1, 2)], [(1, 2), (3, 4)]], "pairs"),
        ("every", "pairs"),
        ([[(1, 2)]] * 3, r"points\b.*\b3\b.*\b2\b"),
    ],
)
def test_bad_points(points, message):
    (generator, z, y), _ = networks()
    with pytest.raises(UserError, match=message) as error:
        attention_maps(generator, z, y, queries=points)
    assert "\n" not in str(error.value)


def test_maps_are_laid_cell_by_cell():
    laid = resize_maps(torch.tensor([[[0.5, 0.0], [0.25, 0.25]]]), 4)
    wanted = torch.tensor([[2.0, 2, 0, 0], [2, 2, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]) / 16
    assert torch.equal(laid[0], wanted)
    with pytest.raises(ValueError, match=r"3 x 3 keys\b.*\b32 pixels\b"):
        resize_maps(torch.ones(3, 3), 32)
