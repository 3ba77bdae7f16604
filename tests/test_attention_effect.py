"""Self-attention with gamma scaled or off, against generators that were built so."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from sagan import Generator, ModelConfig, UserError, draw_latents, observe_attention
from sagan.attention_effect import (
    Difference,
    amplified_difference,
    attention_effect,
    difference_of,
    scaled_gammas,
    visible_gain,
)
from sagan.attention_maps import describe_small_share, format_share
from sagan.sampling import sample

MODEL = ModelConfig(resolution=32, latent_dim=8, base_channels=4, num_classes=2)
Z, Y = draw_latents(3, 8, seed=0), torch.tensor([0, 1, 1])


@pytest.fixture
def generator():
    torch.manual_seed(0)
    generator = Generator(replace(MODEL, generator_attention=((8, "self"), (16, "self")))).eval()
    with torch.no_grad():
        for size, gamma in (("8", 0.7), ("16", -1.3)):
            generator.attention[size][0].gamma.fill_(gamma)
    return generator


def with_gammas(generator, gamma_8, gamma_16):
    changed = copy.deepcopy(generator)
    with torch.no_grad():
        changed.attention["8"][0].gamma.fill_(gamma_8)
        changed.attention["16"][0].gamma.fill_(gamma_16)
    return changed


@pytest.mark.parametrize(
    ("layers", "gammas"), [(None, (0, 0)), (["16"], (0.7, 0)), (["8.0"], (0, -1.3)), (["8", "16.0"], (0, 0))]
)
def test_off_is_a_generator_with_gamma_0(generator, layers, gammas):
    found = attention_effect(generator, Z, Y, layers=layers)
    assert np.array_equal(found.on, sample(generator, Z, Y))
    assert np.array_equal(found.off, sample(with_gammas(generator, *gammas), Z, Y))
    assert not np.array_equal(found.on, found.off)
    assert found.total.mean == pytest.approx(np.mean([one.mean for one in found.each]))
    assert found.total.largest == max(one.largest for one in found.each)


def test_a_factor_multiplies_gamma_and_is_taken_back(generator):
    before = {name: t.clone() for name, t in generator.state_dict().items()}
    with scaled_gammas(generator, {"16.0": 0.5, "8": 2.0}):
        inside = sample(generator, Z, Y)
    assert np.array_equal(inside, sample(with_gammas(generator, 1.4, -0.65), Z, Y))
    with pytest.raises(ZeroDivisionError), scaled_gammas(generator, {"8": 0.1}):
        raise ZeroDivisionError
    assert all(torch.equal(t, before[name]) for name, t in generator.state_dict().items())
    with pytest.raises(UserError, match=r"layer 32\b.*\bgenerator\b"), scaled_gammas(generator, {"8": 0, "32": 0}):
        pass
    assert all(torch.equal(t, before[name]) for name, t in generator.state_dict().items())


def test_without_classes_and_in_training_mode():
    torch.manual_seed(0)
    generator = Generator(replace(MODEL, num_classes=0)).train()
    with torch.no_grad():
        generator.attention["16"][0].gamma.fill_(1)
    found = attention_effect(generator, Z)
    assert found.layers == ("16.0",)
    assert generator.training
    assert np.array_equal(found.on, sample(generator.eval(), Z, torch.zeros(3, dtype=torch.long)))


def test_shares_of_a_layer(generator):
    seen = observe_attention(generator, Z, Y)
    for name, layer in seen.layers.items():
        x = seen.inputs[name]
        with torch.no_grad():
            added = layer(x) - x
        wanted = added.norm(dim=1) / x.norm(dim=1)  # (N, S, S)
        step = 32 // x.shape[-1]
        assert torch.allclose(seen.shares("all")[name], wanted.flatten(1))
        assert torch.allclose(seen.shares([(9, 30)])[name][:, 0], wanted[:, 30 // step, 9 // step])
        assert torch.allclose(seen.strengths()[name], added.flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1))
        assert seen.statistics()[name].strength == pytest.approx(seen.strengths()[name].mean().item(), rel=1e-5)
    with pytest.raises(UserError, match=r"\b2 images\b.*\b3 images\b"):
        seen.shares([[(1, 1)]] * 2)


def test_differences_are_grey_levels():
    a = np.array([[[[0, 10, 255, 3]]]], np.uint8)
    b = np.array([[[[255, 12, 254, 3]]]], np.uint8)
    found = difference_of(a, b)
    assert (found.mean, found.largest) == ((255 + 2 + 1) / 4, 255)
    assert str(found) == "64.5 grey levels of 255 on average, 255 at most"
    assert str(Difference(0.003, 1)) == "less than 0.1 grey levels of 255 on average, 1 at most"
    assert str(Difference(0.0, 0)) == "0.0 grey levels of 255 on average, 0 at most"
    assert amplified_difference(b, a, 8).tolist() == [[[[255, 16, 8]]]]  # without the transparency
    assert amplified_difference(a[..., :1], b[..., :1], 1).tolist() == [[[[255]]]]
    assert [visible_gain(d) for d in (0, 7, 8, 63, 64, 127, 128, 255)] == [32, 32, 16, 4, 2, 2, 1, 1]


def test_small_shares_are_said_in_words():
    assert describe_small_share(0.0274) == "this layer changes its features by 2.7 %"
    assert describe_small_share(0.05) == ""
    assert [format_share(s) for s in (0.5, 0.0995, 0.012, 0.00096, 0.00006, 0)] == [
        "50 %", "10 %", "1.2 %", "0.1 %", "0.006 %", "0 %"
    ]  # fmt: skip
