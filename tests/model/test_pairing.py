"""Networks of a seed start alike in all that they share, whichever attention layers they have."""

from dataclasses import replace

import pytest
import torch

from sagan.model.build import build_discriminator, build_generator
from sagan.model.config import ModelConfig
from sagan.presets import PRESETS
from sagan.study.variants import STUDIES
from sagan.training.step import Trainer

VARIANTS = {variant.name: variant.config for variant in STUDIES["attention"].variants(PRESETS["demo"])}
CPU = torch.device("cpu")


def networks(config, seed):
    """The initial tensors of both networks of a run with a seed, by name; those of extra layers, and the others."""
    trainer = Trainer(config.model, replace(config.training, seed=seed, precision="fp32"), CPU)
    tensors = {}
    for network in (trainer.generator, trainer.discriminator, trainer.ema.network):
        part = "ema" if network is trainer.ema.network else network.role
        tensors |= {f"{part}.{name}": t for name, t in network.state_dict().items()}
    return (
        {name: t for name, t in tensors.items() if ".attention." in name},
        {name: t for name, t in tensors.items() if ".attention." not in name},
    )


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "none"])
def test_variants_of_a_seed_share_all_weights_but_those_of_the_layer(name):
    nothing, alone = networks(VARIANTS["none"], seed=3)
    layers, shared = networks(VARIANTS[name], seed=3)
    assert not nothing
    assert layers
    assert alone.keys() == shared.keys()
    assert all(torch.equal(alone[key], shared[key]) for key in alone)


def test_another_seed_gives_other_weights():
    for ours, theirs in zip(networks(VARIANTS["self-16"], 3), networks(VARIANTS["self-16"], 4), strict=True):
        drawn = [key for key, t in ours.items() if t.numel() > 1 and t.std() > 0]  # not gammas, biases and batch norms
        assert len(drawn) >= 10
        assert not any(torch.equal(ours[key], theirs[key]) for key in drawn)


def test_a_layer_starts_the_same_whichever_other_layers_there_are():
    alone, both = networks(VARIANTS["self-16"], 3)[0], networks(VARIANTS["self-16-g"], 3)[0]
    assert {key for key in alone if not key.startswith("discriminator")} == both.keys()
    assert all(torch.equal(alone[key], both[key]) for key in both)


def test_several_layers_do_not_start_with_the_same_numbers():
    config = ModelConfig(
        resolution=32,
        base_channels=8,
        # Both maps have the same width, so their layers have the same shape.
        generator_widths=(32, 32, 32, 32),
        discriminator_widths=(32, 32, 32, 32),
        generator_attention=((8, "self"), (8, "self"), (16, "self")),
        discriminator_attention=((8, "self"), (16, "self")),
    )
    torch.manual_seed(0)
    queries = [
        layer.query.weight
        for network in (build_generator(config), build_discriminator(config))
        for stack in network.attention.values()
        for layer in stack
    ]
    assert len(queries) == 5
    for i, first in enumerate(queries):
        for second in queries[:i]:
            assert (first - second).abs().max() > 0.1


def test_random_numbers_after_a_network_do_not_depend_on_its_layers():
    drawn = []
    for layers in ((), ((16, "self"),), ((16, "residual"),)):
        torch.manual_seed(0)
        build_generator(ModelConfig(resolution=32, base_channels=4, generator_attention=layers))
        drawn.append(torch.rand(4))
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
