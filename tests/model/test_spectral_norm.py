import copy

import pytest
import torch

import reference
from sagan.model.spectral_norm import (
    SNConv2d,
    SNEmbedding,
    SNLinear,
    SpectralNorm,
    bake_spectral_norm,
    drop_spectral_norm,
    has_spectral_norm,
)


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (16, 40), (40, 16), (1, 12), (10, 1)])
def test_converges_to_the_singular_value_of_an_svd(shape):
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=torch.float64)
    norm = SpectralNorm(shape[0]).double()
    for _ in range(500):
        normalised = norm(weight)
    sigma = torch.linalg.svdvals(weight.flatten(1))[0]
    assert torch.allclose(normalised, weight / sigma, rtol=1e-8)
    assert torch.linalg.matrix_norm(normalised.flatten(1), 2).item() == pytest.approx(1, rel=1e-8)


def test_one_power_iteration_a_call_and_none_kept_in_evaluation_mode():
    torch.manual_seed(0)
    weight, norm = torch.randn(6, 4), SpectralNorm(6)
    u = norm.u.clone()
    norm.eval()(weight)
    assert torch.equal(norm.u, u)
    norm.train()(weight)
    v = weight.T @ u
    wanted = weight @ (v / v.norm())
    assert torch.allclose(norm.u, wanted / wanted.norm(), atol=1e-6)


def test_gradient_equals_autograd_on_the_formula():
    torch.manual_seed(0)
    norm = SpectralNorm(5).double()
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    direction = torch.randn_like(weight)
    twin = copy.deepcopy(norm)
    (fast,) = torch.autograd.grad((norm(weight) * direction).sum(), weight)
    (plain,) = torch.autograd.grad((reference.spectral_norm(twin, weight) * direction).sum(), weight)
    assert torch.allclose(fast, plain, rtol=1e-10)


@pytest.mark.parametrize("shape", [(24, 48, 3, 3), (48, 3, 1, 1), (40, 16), (1, 12)])
def test_values_and_memory_order_are_those_of_the_formula(shape):
    """In fp32; the plain form sums the columns in another order."""
    torch.manual_seed(0)
    weight = torch.randn(shape)
    if len(shape) == 4:
        weight = weight.contiguous(memory_format=torch.channels_last)
    weight.requires_grad_(True)
    norm, g = SpectralNorm(shape[0]), torch.randn(shape)
    for _ in range(3):
        twin = copy.deepcopy(norm)
        fast, plain = norm(weight), reference.spectral_norm(twin, weight)
        gradients = [torch.autograd.grad((result * g).sum(), weight)[0] for result in (fast, plain)]
        if len(shape) == 4:  # neither is moved around later
            assert fast.is_contiguous(memory_format=torch.channels_last)
            assert gradients[0].is_contiguous(memory_format=torch.channels_last)
        for found, wanted in ((fast, plain), gradients, (norm.u, twin.u)):
            assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-6 * wanted.abs().max().item())


@pytest.mark.parametrize(
    "layer",
    [SNConv2d(3, 8, 3, spectral_norm=True), SNLinear(5, 7, spectral_norm=True), SNEmbedding(9, 4, spectral_norm=True)],
)
def test_baking_changes_nothing_but_the_cost(layer):
    x = {SNConv2d: torch.randn(2, 3, 5, 5), SNLinear: torch.randn(2, 5), SNEmbedding: torch.tensor([1, 8])}[type(layer)]
    wanted = layer.eval()(x)
    bake_spectral_norm(layer)
    assert not any(isinstance(m, SpectralNorm) for m in layer.modules())
    assert torch.equal(layer(x), wanted)


def test_can_be_switched_off():
    layer = SNConv2d(3, 8, 3, spectral_norm=False)
    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(layer(x), torch.nn.functional.conv2d(x, layer.weight, layer.bias, padding=1))


def test_xavier_uniform():
    torch.manual_seed(0)
    weight = SNConv2d(64, 32, 3, spectral_norm=True).weight
    bound = (6 / (9 * 64 + 9 * 32)) ** 0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize("shape", [(6, 3, 3, 3), (5, 7), (40, 6), (9, 1)])
def test_solving_for_a_weight_of_another_device_or_dtype(shape):
    """So a source's weight comes to a norm on the device that trains; 'meta' tells devices apart without a GPU."""
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=torch.float64)
    norm = SpectralNorm(shape[0])
    norm.solve(weight)
    normalised = norm.eval()(weight.float())
    assert torch.linalg.matrix_norm(normalised.flatten(1), 2).item() == pytest.approx(1, rel=1e-5)
    norm.to("meta").solve(weight)
    assert norm.u.device.type == "meta"


def test_dropping_leaves_the_weights_and_baking_divides_them():
    torch.manual_seed(0)
    layer = SNConv2d(3, 8, 3, spectral_norm=True).eval()
    weight, network = layer.weight.clone(), torch.nn.Sequential(layer)
    assert has_spectral_norm(network)
    baked = bake_spectral_norm(copy.deepcopy(network))
    assert drop_spectral_norm(network) is network
    assert not has_spectral_norm(network)
    assert not has_spectral_norm(baked)
    assert torch.equal(layer.weight, weight)
    assert not torch.allclose(baked[0].weight, weight, rtol=1e-2)
    assert network.state_dict().keys() == baked.state_dict().keys()
