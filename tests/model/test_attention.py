import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import reference
from sagan import ModelConfig, SelfAttention2d
from sagan.model import tiled_attention
from sagan.model.attention import ChannelAttention2d, MatchedResidual2d, attend, build_attention

VARIANTS = ("released", "paper", "full")


def layer_and_input(variant, size=(7, 5), channels=16, **options):
    torch.manual_seed(0)
    layer = SelfAttention2d(channels, variant, spectral_norm=False, **options).double()
    torch.nn.init.constant_(layer.gamma, 0.7)
    return layer, torch.randn(3, channels, *size, dtype=torch.float64, requires_grad=True)


def plain(layer, x):
    weights = (getattr(layer, name).weight.flatten(1) for name in ("query", "key", "value", "output"))
    return reference.attention(x, *weights, layer.gamma, layer.pooled)[0]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(7, 5), (8, 8), (2, 3), (16, 9)])
def test_equations_1_to_3_in_float64(variant, size):
    layer, x = layer_and_input(variant, size)
    wanted, got = plain(layer, x), layer(x)
    assert torch.allclose(got, wanted, rtol=1e-10, atol=1e-12)

    direction = torch.randn_like(x)
    inputs = [x, *layer.parameters()]
    for a, b in zip(
        torch.autograd.grad((got * direction).sum(), inputs),
        torch.autograd.grad((wanted * direction).sum(), inputs),
        strict=True,
    ):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-11)


def test_reference_map_rows_sum_to_one_over_pooled_locations():
    layer, x = layer_and_input("released", (7, 5))
    weights = (getattr(layer, name).weight.flatten(1) for name in ("query", "key", "value", "output"))
    _, beta = reference.attention(x, *weights, layer.gamma, True)
    assert beta.shape == (3, 35, 6)
    assert torch.allclose(beta.sum(2), torch.ones(3, 35, dtype=torch.float64))


@pytest.mark.parametrize(("d", "e"), [(4, 16), (16, 4), (3, 3), (1, 7)])
def test_fused_attention_equals_the_whole_map_in_fp32(d, e):
    torch.manual_seed(1)
    q, k, v = (torch.randn(2, n, w, requires_grad=True) for n, w in ((33, d), (17, d), (17, e)))
    got, wanted = attend(q, k, v), reference.attend(q.double(), k.double(), v.double())
    assert torch.allclose(got.double(), wanted, rtol=1e-5, atol=1e-5)
    direction = torch.randn_like(got)
    fast = torch.autograd.grad((got * direction).sum(), (q, k, v))
    plain = torch.autograd.grad((wanted * direction).sum(), (q, k, v))
    for a, b in zip(fast, plain, strict=True):
        assert (a - b).norm() / b.norm() < 1e-5


@pytest.mark.parametrize("tile", [1, 40, 2**18])
@pytest.mark.parametrize(("queries", "keys"), [(33, 17), (200, 50), (1, 1)])
def test_tiles_equal_the_whole_map_however_they_fall(monkeypatch, tile, queries, keys):
    """One row at a time, some rows of one image, all images at once."""
    monkeypatch.setattr(tiled_attention, "TILE", tile)
    monkeypatch.setattr(tiled_attention, "LEAST_ROWS", 1)
    torch.manual_seed(2)
    shapes = ((queries, 3), (keys, 3), (keys, 5))
    q, k, v = (torch.randn(4, *shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    got, wanted = attend(q, k, v), reference.attend(q, k, v)
    direction = torch.randn_like(got)
    fast = torch.autograd.grad((got * direction).sum(), (q, k, v))
    plain = torch.autograd.grad((wanted * direction).sum(), (q, k, v))
    for a, b in zip((got, *fast), (wanted, *plain), strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


def test_large_logits_do_not_overflow():
    torch.manual_seed(2)
    q, k, v = (100 * torch.randn(2, n, 4, requires_grad=True) for n in (9, 7, 7))
    got = attend(q, k, v)
    assert torch.allclose(got, reference.attend(q, k, v), rtol=1e-5, atol=1e-4)
    assert all(g.isfinite().all() for g in torch.autograd.grad(got.sum(), (q, k, v)))


def test_second_derivatives_are_those_of_the_whole_map():
    torch.manual_seed(2)
    leaves = [torch.randn(2, n, w, dtype=torch.float64, requires_grad=True) for n, w in ((5, 3), (4, 3), (4, 6))]
    assert torch.autograd.gradgradcheck(attend, leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_padded_kernel_equals_the_whole_map(monkeypatch, dtype):
    """What CUDA, bf16 and exports run."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.manual_seed(1)
    q, k, v = (torch.randn(2, n, w).to(dtype).requires_grad_() for n, w in ((33, 4), (17, 4), (17, 16)))
    got, wanted = attend(q, k, v), reference.attend(q.double(), k.double(), v.double())
    close = 1e-5 if dtype == torch.float32 else 2e-2
    assert (got - wanted).norm() / wanted.norm() < close
    direction = torch.randn_like(got)
    fast = torch.autograd.grad((got * direction).sum(), (q, k, v))
    plain = torch.autograd.grad((wanted * direction).sum(), (q, k, v))
    for a, b in zip(fast, plain, strict=True):
        assert (a - b).norm() / b.norm() < close


def test_gamma_starts_at_zero_so_the_layer_is_the_identity():
    layer = SelfAttention2d(16)
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(layer(x), x)
    layer(x).sum().backward()
    assert layer.gamma.grad is not None
    assert layer.gamma.grad.abs() > 0  # yet it learns from the first step


@pytest.mark.parametrize(("variant", "query", "value"), [("released", 8, 32), ("paper", 8, 8), ("full", 8, 64)])
def test_channels_of_each_variant(variant, query, value):
    layer = SelfAttention2d(64, variant)
    q, k, v = layer.project(torch.randn(1, 64, 8, 8))
    keys = 16 if variant == "released" else 64
    assert (q.shape, k.shape, v.shape) == ((1, 64, query), (1, keys, query), (1, keys, value))


def test_reductions_are_configurable():
    layer = SelfAttention2d(64, query_reduction=4, value_reduction=16)
    q, _, v = layer.project(torch.randn(1, 64, 4, 4))
    assert (q.shape[2], v.shape[2]) == (16, 4)
    assert layer(torch.randn(1, 64, 4, 4)).shape == (1, 64, 4, 4)


def test_no_biases_and_a_scalar_gamma():
    names = {name for name, _ in SelfAttention2d(16).named_parameters()}
    assert names == {"gamma", "query.weight", "key.weight", "value.weight", "output.weight"}


def test_direct_has_biases_and_no_last_projection():
    torch.manual_seed(0)
    layer, x = layer_and_input("direct", (3, 4))
    assert set(dict(layer.named_parameters())) == {"gamma"} | {
        f"{name}.{kind}" for name in ("query", "key", "value") for kind in ("weight", "bias")
    }
    for name in ("query", "key", "value"):
        torch.nn.init.normal_(getattr(layer, name).bias)
    q, k, v = (
        torch.einsum("oc,ncl->nol", c.weight[:, :, 0, 0], x.flatten(2)) + c.bias[:, None]
        for c in (layer.query, layer.key, layer.value)
    )
    beta = torch.softmax(torch.einsum("ndi,ndj->nij", q, k), 2)
    wanted = x + 0.7 * torch.einsum("nij,ncj->nci", beta, v).view_as(x)
    assert torch.allclose(layer(x), wanted, rtol=1e-10, atol=1e-12)
    asked = torch.tensor([[0, 5, 11]]).expand(3, -1)
    assert torch.allclose(layer.attention_rows(x, asked).flatten(2), beta[:, [0, 5, 11]], rtol=1e-10)
    with pytest.raises(ValueError, match=r"value_reduction\b.*\b2\b"):
        SelfAttention2d(16, "direct", value_reduction=2)


def test_unknown_variant_is_named():
    with pytest.raises(ValueError, match=r"\breleased\b.*\bpaper\b.*\bfull\b"):
        SelfAttention2d(16, "global")


def test_channel_attention_is_a_softmax_over_channels():
    torch.manual_seed(0)
    layer = ChannelAttention2d().double()
    torch.nn.init.constant_(layer.gamma, -0.3)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    wanted = x.clone()
    for n in range(2):
        for j in range(5):
            energy = torch.stack([(x[n, j] * x[n, i]).sum() for i in range(5)])
            share = energy.exp() / energy.exp().sum()
            wanted[n, j] += -0.3 * sum(share[i] * x[n, i] for i in range(5))
    assert torch.allclose(layer(x), wanted)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("channels", [64, 128, 256])
def test_matched_residual_has_as_many_parameters(variant, channels):
    config = ModelConfig(attention_variant=variant)
    attention, residual = (
        sum(p.numel() for p in build_attention(kind, channels, config, spectral_norm=True).parameters())
        for kind in ("self", "residual")
    )
    if variant == "released":
        assert residual == attention - 1  # all but the scalar gamma
    assert abs(residual - attention) <= 5 * channels + 1  # the inner width is a whole number


def test_matched_residual_is_the_formula():
    torch.manual_seed(0)
    layer = MatchedResidual2d(16, 320, spectral_norm=False)
    x = torch.randn(1, 16, 6, 6)
    inner = torch.nn.functional.conv2d(x.clamp_min(0), layer.conv1.weight, padding=1)
    wanted = x + torch.einsum("oc,nchw->nohw", layer.conv2.weight[:, :, 0, 0], inner.clamp_min(0))
    assert torch.allclose(layer(x), wanted, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(7, 5), (8, 8), (16, 9)])
def test_asked_rows_are_those_of_the_whole_map(variant, size):
    layer, x = layer_and_input(variant, size)
    weights = (getattr(layer, name).weight.flatten(1) for name in ("query", "key", "value", "output"))
    _, beta = reference.attention(x, *weights, layer.gamma, layer.pooled)
    locations = torch.stack([torch.randperm(size[0] * size[1])[:5] for _ in range(3)])
    maps = layer.attention_rows(x, locations)
    grid = tuple(side // 2 for side in size) if variant == "released" else size
    assert maps.shape == (3, 5, *grid)
    assert (maps.flatten(2) - torch.stack([b[at] for b, at in zip(beta, locations, strict=True)])).abs().max() < 1e-14
    assert (maps.sum((2, 3)) - 1).abs().max() < 1e-14


def test_maps_of_a_normalised_layer_use_the_normalised_weights():
    torch.manual_seed(0)
    layer = SelfAttention2d(16, "paper").eval()
    x, locations = torch.randn(2, 16, 6, 6), torch.arange(36).expand(2, -1)
    weights = (c.sn(c.weight).flatten(1).double() for c in (layer.query, layer.key, layer.value, layer.output))
    _, beta = reference.attention(x.double(), *weights, layer.gamma.double(), False)
    assert (layer.attention_rows(x, locations).flatten(2) - beta).abs().max() < 1e-6


def test_no_more_than_the_asked_rows_is_computed():
    """The largest tensor on the way is the feature map, not the 4096 x 4096 map."""
    layer, x = SelfAttention2d(8, "full"), torch.randn(1, 8, 64, 64)
    largest = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            largest.extend(t.numel() for t in tree_leaves(result) if isinstance(t, torch.Tensor))
            return result

    with Watch():
        layer.attention_rows(x, torch.tensor([[0, 77, 4095]]))
    assert max(largest) == x.numel()
