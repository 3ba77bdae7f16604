import pytest
import torch

from sagan import Generator, ModelConfig
from sagan.training.ema import EMA


def follow(decay, start, steps, **shape):
    torch.manual_seed(0)
    network = Generator(ModelConfig(resolution=32, num_classes=2, base_channels=4, **shape))
    ema = EMA(network, decay, start)
    history = [{k: v.clone() for k, v in network.state_dict().items()}]
    for step in range(steps):
        network(torch.randn(4, 128), torch.tensor([0, 1, 0, 1]))  # moves the buffers
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        ema.update(network, step)
        history.append({k: v.clone() for k, v in network.state_dict().items()})
    return ema.network.state_dict(), history


@pytest.mark.parametrize("normalised", [True, False])
def test_is_the_weighted_sum_of_the_history(normalised):
    average, history = follow(decay=0.25, start=0, steps=5, generator_spectral_norm=normalised)
    for name in ("stem.weight", "blocks.0.bn1.scale", "blocks.1.bn2.running_var"):
        wanted = history[0][name]
        for state, decay in zip(history[1:], (1 / 10, 2 / 11, 0.25, 0.25, 0.25), strict=True):  # 3 / 12 is 0.25
            wanted = decay * wanted + (1 - decay) * state[name]
        assert torch.allclose(average[name], wanted, atol=1e-5), name


def test_equals_the_network_before_its_start_and_copies_what_is_no_average():
    average, history = follow(decay=0.8, start=12, steps=5)
    assert all(torch.equal(average[name], value) for name, value in history[-1].items())
    average, history = follow(decay=0.8, start=0, steps=5)
    assert torch.equal(average["stem.sn.u"], history[-1]["stem.sn.u"])


def test_without_decay_it_is_the_network():
    average, history = follow(decay=0.0, start=0, steps=3)
    assert all(torch.equal(average[name], value) for name, value in history[-1].items())
