import pytest
import torch

from sagan import Discriminator, ModelConfig
from sagan.config import TrainingConfig
from sagan.training.penalties import LeCam, one_centred, zero_centred
from sagan.training.step import Trainer


class Quadratic(torch.nn.Module):
    """D(x) = a |x|^2 / 2, whose gradient a x is known."""

    def __init__(self, a):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, x, y):
        return self.a * x.square().flatten(1).sum(1) / 2


def test_zero_centred_penalty_and_its_gradient():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    network = Quadratic(0.7)
    penalty = zero_centred(network, x, torch.zeros(4)).mean()
    squares = x.square().flatten(1).sum(1).mean()
    assert penalty.item() == pytest.approx((0.49 * squares / 2).item())
    penalty.backward()
    assert network.a.grad.item() == pytest.approx((0.7 * squares).item())  # through the gradient


def test_one_centred_penalty_lies_between_real_and_fake():
    torch.manual_seed(0)
    x = torch.randn(8, 1, 2, 2, dtype=torch.float64)
    t = torch.rand(8, 1, 1, 1)
    same = one_centred(Quadratic(2.0), x, x, torch.zeros(8), t)
    assert same.item() == pytest.approx((2 * x.flatten(1).norm(dim=1) - 1).square().mean().item())
    # Between 0 and x at t x: the norms are 2 t |x|.
    mixed = one_centred(Quadratic(2.0), x, torch.zeros_like(x), torch.zeros(8), t)
    assert mixed.item() == pytest.approx((2 * (t.double() * x).flatten(1).norm(dim=1) - 1).square().mean().item())


def test_penalty_of_a_whole_discriminator_against_finite_differences():
    torch.manual_seed(0)
    config = ModelConfig(resolution=32, num_classes=2, base_channels=4)
    network = Discriminator(config).double().eval()
    for name, parameter in network.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.constant_(parameter, 0.5)  # attention takes part
    x, y = torch.rand(2, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 1])
    weight = network.head.weight
    penalty = zero_centred(network, x, y).mean()
    penalty.backward()
    direction, h = torch.randn_like(weight), 1e-6
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            weight += sign * h * direction
            values.append(zero_centred_by_differences(network, x, y))
            weight -= sign * h * direction
    assert penalty.item() == pytest.approx(zero_centred_by_differences(network, x, y), rel=1e-9)
    slope = (values[0] - values[1]) / (2 * h)
    assert (weight.grad * direction).sum().item() == pytest.approx(slope, rel=1e-5)


def test_penalties_are_fp32_s_under_autocast_too():
    def penalties():
        torch.manual_seed(0)
        network = Discriminator(ModelConfig(resolution=32, num_classes=2, base_channels=4))
        x, fake, y = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
        return zero_centred(network, x, y).mean(), one_centred(network, x, fake, y, torch.rand(2, 1, 1, 1))

    wanted = penalties()
    with torch.autocast("cpu", torch.bfloat16):
        got = penalties()
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)


def zero_centred_by_differences(network, x, y):
    with torch.enable_grad():
        x = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(network(x, y).sum(), x)
    return gradient.square().flatten(1).sum(1).mean().item() / 2


def test_lecam_pulls_towards_the_other_side_s_moving_average():
    lecam = LeCam(decay=0.9)
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -2.0])
    lecam(real, fake)
    got = lecam(real, fake)
    a_real, a_fake = 2 * 0.1 * (1 + 0.9), -1.5 * 0.1 * (1 + 0.9)
    wanted = ((real - a_fake) ** 2).mean() + ((fake - a_real) ** 2).mean()
    assert got.item() == pytest.approx(wanted.item())


def test_lecam_s_averages_move_once_a_step_by_the_mean_of_its_micro_batches():
    whole, parts = LeCam(decay=0.9), LeCam(decay=0.9)
    for step in range(3):
        real, fake = torch.arange(8.0) + step, -torch.arange(8.0).square()
        whole(real, fake)
        for i, (x, y) in enumerate(zip(real.chunk(4), fake.chunk(4), strict=True)):
            parts(x, y, micro_batch=i)
        assert parts.real.item() == pytest.approx(whole.real.item(), rel=1e-6)
        assert parts.fake.item() == pytest.approx(whole.fake.item(), rel=1e-6)
    assert set(whole.state_dict()) == {"real", "fake"}  # a checkpoint between steps needs no more


@pytest.mark.parametrize("accumulate", [1, 4])
def test_lecam_s_averages_move_once_a_step_of_training(accumulate):
    config = TrainingConfig(batch_size=8, accumulate=accumulate, lecam=0.1, precision="fp32")
    trainer = Trainer(
        ModelConfig(resolution=32, num_classes=2, base_channels=4, latent_dim=8), config, torch.device("cpu")
    )
    logits = []
    trainer.lecam.register_forward_pre_hook(lambda _, given: logits.append([x.mean().item() for x in given]))
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
    trainer.train_step(0, lambda _: (images, torch.arange(8) % 2))
    assert len(logits) == accumulate
    real, fake = torch.tensor(logits).mean(0)
    assert trainer.lecam.real.item() == pytest.approx(0.01 * real.item(), rel=1e-5)
    assert trainer.lecam.fake.item() == pytest.approx(0.01 * fake.item(), rel=1e-5)
