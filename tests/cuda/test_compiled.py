"""Compiled networks on CUDA train like the networks themselves, alone and within a captured step.

Each test compiles for a minute or two.
"""

import pytest
import torch

from helpers.cuda_trainers import deterministic, images, state, trainer
from sagan.training.graphs import WARM_UP

OPTIONS = {"loss": "relativistic", "r1": 0.5, "penalty_every": 2}
STEPS = 8


def train(t, device, steps=STEPS):
    return [t.train_step(step, lambda i: images(device, number=i)) for step in range(steps)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_networks_train_like_plain_ones(cuda, precision, record_property, capsys):
    plain, fast = (trainer(cuda, precision=precision, compile=compiles, **OPTIONS) for compiles in (False, True))
    one, other = train(plain, cuda), train(fast, cuda)
    lines = [line for line in capsys.readouterr().err.splitlines() if "--compile" in line]
    record_property("lines", "; ".join(lines))
    assert len(lines) == 2
    assert "done after" in lines[1]
    tolerance = 1e-4 if precision == "fp32" else 3e-2
    for name in ("loss/discriminator", "loss/generator"):
        first = abs(one[0][name].item() - other[0][name].item())
        record_property(f"{name}, difference in the first step", f"{first:.2g}")
        assert first < tolerance
    assert all(torch.isfinite(value) for log in other for value in log.values())


def test_a_captured_compiled_step_is_the_compiled_step_bit_for_bit(cuda):
    with deterministic():
        compiled = trainer(cuda, compile=True, **OPTIONS)
        captured = trainer(cuda, compile=True, cuda_graph=True, **OPTIONS)
        for t in (compiled, captured):
            train(t, cuda, 2 * WARM_UP + 4)
    assert captured.graphs.count == 2
    one, other = state(compiled), state(captured)
    assert all(torch.equal(one[name], other[name]) for name in one)
