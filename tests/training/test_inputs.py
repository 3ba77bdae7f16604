"""The inputs of a step: drawn before it, in the order of their use, and all that it depends on besides its state."""

import copy

import pytest
import torch

from sagan import ModelConfig, TrainingConfig
from sagan.training.checkpoint import state
from sagan.training.inputs import cloned, copy_into, draw_inputs, tensors
from sagan.training.rng import StepRNG
from sagan.training.step import Trainer

MODEL = ModelConfig(resolution=32, num_classes=3, latent_dim=8, base_channels=4)
CPU = torch.device("cpu")
PAIRED = {"loss": "relativistic", "r1": 0.5, "gradient_penalty": 0.1, "penalty_every": 2, "lecam": 0.1}
OPTIONS = {
    "hinge": {},
    "augmented": {"augment": ("color", "translation", "cutout"), "accumulate": 2},
    "several steps": {"discriminator_steps": 2, "loss": "wasserstein", "gradient_penalty": 1.0, "penalty_every": 2},
    "guided": {"guide": 0.1, "augment": ("color",), "accumulate": 2},
    "paired": PAIRED | {"augment": ("color", "cutout"), "accumulate": 2, "discriminator_steps": 2},
}


def training(**options):
    return TrainingConfig(**{"batch_size": 8, "precision": "fp32", "steps": 12} | options)


def batch(number):
    rng = torch.Generator().manual_seed(number)
    x = torch.randint(256, (8, 32, 32, 3), generator=rng, dtype=torch.uint8).permute(0, 3, 1, 2)
    return x, torch.randint(3, (8,), generator=rng)


def draw(index, config, seed=0):
    return draw_inputs(index, batch, StepRNG(seed), MODEL, config, CPU)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_step_depends_on_its_inputs_and_its_state_only(options):
    t = Trainer(MODEL, training(**options), CPU)
    t.train_step(0, batch)
    again, other = copy.deepcopy(t), copy.deepcopy(t)
    torch.manual_seed(1)
    log = t.update(draw(3, t.config))
    torch.manual_seed(2)
    log_again = again.update(cloned(draw(3, t.config)))
    other.update(draw(3, t.config, seed=1))
    assert all(torch.equal(log[name], log_again[name]) for name in log)
    assert all(torch.equal(a, b) for a, b in zip(state(t).values(), state(again).values(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(state(t).values(), state(other).values(), strict=True))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_step_leaves_its_inputs_as_they_are(options):
    t = Trainer(MODEL, training(**options), CPU)
    inputs = draw(1, t.config)
    before = cloned(inputs)
    t.update(inputs)
    assert all(torch.equal(a, b) for a, b in zip(tensors(inputs), tensors(before), strict=True))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_inputs_can_be_replaced_in_place(options):
    config = training(**options)
    drawn, new = draw(2, config), draw(4, config, seed=1)
    static = cloned(drawn)
    places = [t.data_ptr() for t in tensors(static)]
    assert not all(torch.equal(a, b) for a, b in zip(tensors(static), tensors(new), strict=True))
    copy_into(static, new)
    assert all(torch.equal(a, b) for a, b in zip(tensors(static), tensors(new), strict=True))
    assert [t.data_ptr() for t in tensors(static)] == places
    assert torch.equal(drawn.generator[0].z, draw(2, config).generator[0].z)  # not written through


def test_inputs_of_another_shape_are_not_broadcast():
    config = training(loss="relativistic")
    x, y = batch(0)
    one = draw_inputs(0, lambda i: (x[:1], y[:1]), StepRNG(0), MODEL, config, CPU)
    with pytest.raises(ValueError, match="differ in shape"):
        copy_into(cloned(draw(0, config)), one)


def test_penalties_are_planned_every_n_th_discriminator_step_if_there_are_any():
    config = training(r1=1.0, penalty_every=3, discriminator_steps=2)
    assert [draw(i, config).penalised for i in range(3)] == [(True, False), (False, True), (False, False)]
    assert draw(0, training(penalty_every=1)).penalised == (False,)


def test_random_numbers_are_drawn_in_the_order_of_their_use():
    config = training(**PAIRED | {"augment": ("color", "translation"), "accumulate": 2})
    rng, inputs = StepRNG(5), draw(0, config, seed=5)
    for part in (*inputs.discriminator[0], *inputs.generator):
        assert torch.equal(part.z, rng.normal(4, 8))
        assert torch.equal(part.y_fake, part.y_real)  # the loss compares in pairs
        for color, translation in (part.augment_real, part.augment_fake):
            for numbers, (low, high) in zip(color, ((-0.5, 0.5), (0.0, 2.0), (0.5, 1.5)), strict=True):
                assert torch.equal(numbers, rng.uniform(4, low, high, torch.float32))
            for numbers in translation:
                assert torch.equal(numbers[:, 0], rng.integers(4, -4, 5))
        assert (part.mix is not None) == any(part is one for one in inputs.discriminator[0])
        if part.mix is not None:
            assert torch.equal(part.mix, rng.uniform(4, 0.0, 1.0, torch.float32))
