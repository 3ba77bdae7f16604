"""What is rounded to bf16 under autocast, and what is not."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import reference
from sagan.model.attention import ChannelAttention2d, SelfAttention2d
from sagan.model.autocast import as_dtype_of, lowered_dtype, without_autocast
from sagan.model.batch_norm import ConditionalBatchNorm2d
from sagan.model.build import build_discriminator, build_generator, find_architecture
from sagan.model.spectral_norm import SNConv2d, SNConvTranspose2d, SpectralNorm

N = 5  # images: no weight has so many rows
LAYERS = {
    "generator_attention": ((8, "self"), (16, "channel")),
    "discriminator_attention": ((16, "self"), (8, "channel")),
}
CONFIGS = {
    "residual": {"num_classes": 3} | LAYERS,
    "no classes": LAYERS,
    "linear upsampling": {"num_classes": 3, "upsampling": "linear"},
    "direct, normalised tables": {
        "num_classes": 3,
        "architecture": "imported",
        "attention_variant": "direct",
        "class_spectral_norm": True,
    },
    "classifier, bilinear": {
        "num_classes": 3,
        "architecture": "imported",
        "class_head": "classifier",
        "upsampling": "bilinear",
        "generator_attention": ((16, "residual"),),
    },
    "dcgan": {"num_classes": 3, "architecture": "dcgan", "attention_variant": "direct"},
}


def bf16():
    return torch.autocast("cpu", torch.bfloat16)


def networks(name):
    torch.manual_seed(0)
    kind = find_architecture(CONFIGS[name].get("architecture", "residual")).config
    config = kind(resolution=32, latent_dim=8, base_channels=8, **CONFIGS[name])
    pair = build_generator(config), build_discriminator(config)
    for network in pair:
        for module in network.modules():
            if hasattr(module, "gamma"):
                torch.nn.init.constant_(module.gamma, 0.5)
    return pair


class Maps(TorchDispatchMode):
    """Notes the dtypes of all feature maps that operators make: (N, C, H, W), C other than an image's."""

    def __init__(self):
        super().__init__()
        self.dtypes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket is torch.ops.aten.addcmul:  # on CUDA autocast casts all three to the widest
            assert len({t.dtype for t in args}) == 1
        result = function(*args, **(kwargs or {}))
        for t in (t for t in tree_leaves(result) if isinstance(t, torch.Tensor) and t.is_floating_point()):
            if t.dim() == 4 and len(t) == N and t.shape[1] > 3 and t.shape[2:].numel() > 1:
                self.dtypes.append((str(function), t.dtype))
        return result


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_feature_maps_are_bf16_and_images_and_logits_fp32(name, training):
    generator, discriminator = networks(name)
    classes = generator.config.num_classes
    y = torch.arange(N) % 3 if classes else None
    classifies = discriminator.classifier is not None
    with bf16(), Maps() as maps:
        image = generator.train(training)(torch.randn(N, 8), y)
        h = discriminator.train(training).features(image)
        logits = [discriminator.logits(h, y)] + ([discriminator.class_logits(h)] if classifies else [])
    assert image.dtype == torch.float32
    for t in logits:
        assert t.dtype == torch.float32
    assert len(maps.dtypes) > 20
    assert {dtype for _, dtype in maps.dtypes} == {torch.bfloat16}, set(maps.dtypes)


def test_mixed_classes_and_the_statistics_of_many_processes_give_bf16_too():
    torch.manual_seed(0)
    x = torch.randn(N, 6, 4, 4)
    for classes, y in ((0, None), (3, torch.arange(N) % 3), (3, torch.rand(N, 3))):
        alone = ConditionalBatchNorm2d(6, classes)
        torch.nn.init.normal_(alone.scale)
        shared = copy.deepcopy(alone)
        shared.total = lambda sums: sums
        with bf16():
            got = alone(x.bfloat16(), y), shared(x.bfloat16(), y)
        wanted = copy.deepcopy(alone)(x, y)
        for h in got:
            assert h.dtype == torch.bfloat16
            assert (h - wanted).norm() < 1e-2 * wanted.norm()


@pytest.mark.parametrize(
    "layer",
    [
        lambda: SNConv2d(6, 12, 3, spectral_norm=True),
        lambda: SNConvTranspose2d(6, 12, 4, stride=2, padding=1, spectral_norm=True),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_spectral_norms_are_fp32_s_bit_for_bit(layer, training):
    torch.manual_seed(0)
    exact = layer().train(training)
    lowered = copy.deepcopy(exact)
    for _ in range(3):
        with bf16():
            got = lowered.sn(lowered.weight)
        assert got.dtype == torch.float32
        assert torch.equal(got, exact.sn(exact.weight))  # so is sigma
    for name, vector in lowered.sn.named_buffers():
        assert torch.equal(vector, getattr(exact.sn, name))
        assert vector.norm().item() == pytest.approx(1, abs=1e-6)
    assert isinstance(lowered.sn, SpectralNorm)


def test_channels_that_look_alike_are_told_apart():
    """Energies are about 200 here and differ by some tenths, where bf16 has steps of 1."""
    torch.manual_seed(0)
    layer = ChannelAttention2d()
    torch.nn.init.constant_(layer.gamma, 1.0)
    x = (torch.randn(N, 1, 14, 14) + 0.03 * torch.randn(N, 8, 14, 14)).bfloat16()
    flat = x.double().flatten(2)
    wanted = x + reference.attend(flat, flat, flat).view_as(x)
    with bf16():
        assert (layer(x) - wanted).norm() < 2.5e-3 * wanted.norm()


def test_gamma_does_not_lift_maps_and_fp32_maps_stay():
    torch.manual_seed(0)
    layer = SelfAttention2d(16)
    torch.nn.init.constant_(layer.gamma, 0.5)
    x = torch.randn(N, 16, 4, 4)
    with bf16(), Maps():
        assert layer(x.bfloat16()).dtype == torch.bfloat16
        assert layer(x).dtype == torch.float32
    assert layer(x).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_in_another_dtype_stay_in_it(dtype):
    pair = [network.to(dtype) for network in networks("residual")]
    y = torch.arange(N) % 3
    image = pair[0](torch.randn(N, 8, dtype=dtype), y)
    assert image.dtype == pair[1](image, y).dtype == dtype


def test_the_sum_over_locations_and_the_head_are_not_rounded():
    _, discriminator = networks("residual")
    seen = []
    discriminator.eval().last.register_forward_hook(lambda _, __, output: seen.append(output))
    y = torch.arange(N) % 3
    with bf16():
        logits = discriminator(torch.rand(N, 3, 32, 32), y)
    h = seen[0].float().clamp_min(0).sum((2, 3))
    wanted = discriminator.head(h)[:, 0] + (discriminator.embed(y) * h).sum(1)
    assert torch.allclose(logits, wanted, atol=1e-5)


def test_helpers():
    cpu, x = torch.device("cpu"), torch.ones(2)
    assert lowered_dtype(cpu) is None
    assert lowered_dtype(torch.device("meta")) is None  # has no autocast at all
    with bf16():
        assert lowered_dtype(cpu) == torch.bfloat16
        with without_autocast(cpu):
            assert lowered_dtype(cpu) is None
        assert lowered_dtype(cpu) == torch.bfloat16
    assert as_dtype_of(x, x) is x
    assert as_dtype_of(x, x.double()).dtype == torch.float64


@pytest.mark.parametrize("lowered", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_both_networks_compile_without_a_break(lowered):
    y = torch.arange(N) % 3
    pair = networks("residual")
    z = torch.randn(N, 8)
    compiled = [torch.compile(copy.deepcopy(network), fullgraph=True, backend="eager") for network in pair]
    with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
        image = pair[0](z, y)
        found = compiled[0](z, y), compiled[1](image, y)
        wanted = image, pair[1](image, y)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == torch.float32
        assert torch.allclose(a, b, atol=1e-5 if not lowered else 0.05), (a - b).abs().max()
