"""A seed gives the networks that it has always given, with the parameter names that files have always had.

initial_networks.json was recorded by `summary` from the code of commit 4215387, before the constructors were rewritten
and the parameters renamed. The sums of networks with a self-attention layer or a matched residual block were recorded
again when such layers got random streams of their own (test_pairing.py); names and counts did not change, and neither
did any value of the networks without such layers.
"""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from helpers.architectures import CONFIGS
from sagan.formats import to_disk
from sagan.model.build import build_discriminator, build_generator

RECORDED = json.loads(Path(__file__).with_name("initial_networks.json").read_text())


def summary(network):
    """Return [digest of the parameter names, number of values, their sum with alternating signs, sum of magnitudes]."""
    tensors = network.state_dict()
    names = "".join(map(to_disk, tensors))
    return [
        hashlib.sha256(names.encode()).hexdigest()[:20],
        sum(t.numel() for t in tensors.values()),
        sum((-1) ** i * t.double().sum().item() for i, t in enumerate(tensors.values())),
        sum(t.double().abs().sum().item() for t in tensors.values()),
    ]


@pytest.mark.parametrize("name", RECORDED)
def test_initial_networks(name):
    torch.manual_seed(0)
    for build in (build_generator, build_discriminator):
        network = build(CONFIGS[name])
        names, *numbers = summary(network)
        recorded_names, *recorded_numbers = RECORDED[name][network.role]
        assert names == recorded_names
        assert numbers == pytest.approx(recorded_numbers, rel=1e-7, abs=1e-4)
