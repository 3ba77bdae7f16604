"""The training step: the fast networks train like plain ones, and every option does what it says."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch

import reference
from helpers.trainers import CPU, MODEL, images, trainer
from sagan import ModelConfig, TrainingConfig
from sagan.distributed import Processes
from sagan.model import attention, resample, spectral_norm
from sagan.training.inputs import draw_inputs, draw_latents
from sagan.training.losses import LOSSES
from sagan.training.rng import StepRNG
from sagan.training.step import frozen, step_rng


def losses(steps, **options):
    t = trainer(**options)
    with_attention(t.generator)
    with_attention(t.discriminator)
    rows = [t.train_step(i, images) for i in range(steps)]
    return torch.tensor([[r["loss/discriminator"], r["loss/generator"]] for r in rows])


@pytest.mark.usefixtures("float64")
@pytest.mark.slow  # tests/examples/test_minimal.py compares 50 steps of another plain form
@pytest.mark.parametrize("variant", ["released", "paper", "full"])
def test_fast_and_plain_networks_train_alike_for_50_steps(variant, monkeypatch):
    """In float64: with Adam, which divides by the gradient's size, fp32 rounding doubles every few steps."""
    model = ModelConfig(resolution=32, num_classes=3, latent_dim=8, base_channels=4, attention_variant=variant)
    fast = losses(50, model=model)
    monkeypatch.setattr(resample, "upsample_conv3x3", reference.upsample_conv3x3)
    monkeypatch.setattr(resample, "conv3x3_downsample", reference.conv3x3_downsample)
    monkeypatch.setattr(attention, "attend", reference.attend)
    monkeypatch.setattr(spectral_norm.SpectralNorm, "forward", reference.spectral_norm)
    plain = losses(50, model=model)
    assert not torch.equal(fast, plain)  # another way was taken
    assert torch.allclose(fast, plain, rtol=0, atol=1e-8), (fast - plain).abs().max(0)


@pytest.mark.parametrize(
    "options",
    [
        *({"loss": name} for name in LOSSES if name != TrainingConfig.loss),
        {"loss": "relativistic", "r1": 0.1, "r2": 0.1},
        {"gradient_penalty": 10.0, "penalty_every": 2},
        {"lecam": 0.1},
        {"augment": ("color", "translation", "cutout")},
        {"discriminator_steps": 3},
        {"accumulate": 4},
    ],
    ids=str,
)
def test_every_option_trains_reproducibly(options):
    first, second = (losses(3, **options) for _ in range(2))
    assert torch.isfinite(first).all()
    assert torch.equal(first, second)
    assert not torch.equal(first, losses(3))  # and it does something


def test_other_seeds_and_no_classes():
    assert not torch.equal(losses(2), losses(2, seed=1))
    unconditional = ModelConfig(resolution=32, num_classes=0, latent_dim=8, base_channels=4)
    assert torch.isfinite(losses(2, model=unconditional)).all()


def test_each_step_changes_both_networks_and_no_gradient_reaches_the_other():
    t = trainer()
    parameters = [*t.generator.named_parameters(), *t.discriminator.named_parameters()]
    before = [p.detach().clone() for _, p in parameters]
    t.train_step(0, images)
    for (name, parameter), old in zip(parameters, before, strict=True):
        # Attention's weights have no gradient while gamma is 0, nor has the bias while the hinge's two sides cancel.
        still = name == "head.bias" or (name.startswith("attention") and "gamma" not in name)
        assert still or not torch.equal(parameter, old), name
        assert parameter.requires_grad


def test_two_time_scales_and_their_decay():
    t = trainer(generator_lr=1e-3, discriminator_lr=4e-3, lr_decay_from=0.5)
    assert [t.lr_scale(i) for i in (0, 49, 50, 75, 99)] == pytest.approx([1, 1, 1, 0.5, 0.02])
    t.train_step(75, images)
    assert t.generator_adam.param_groups[0]["lr"] == pytest.approx(5e-4)
    assert t.discriminator_adam.param_groups[0]["lr"] == pytest.approx(2e-3)


def test_discriminator_steps_take_batches_in_order():
    seen = []
    t = trainer(discriminator_steps=3)
    for step in (0, 1):
        t.train_step(step, lambda i: seen.append(i) or images(i))
    assert seen == [0, 1, 2, 3, 4, 5]


def test_accumulated_gradients_and_the_log_equal_those_of_the_whole_batch():
    """Without batch statistics and spectral norm, which see one micro-batch at a time."""
    model = ModelConfig(resolution=32, num_classes=0, base_channels=4, discriminator_spectral_norm=False)
    x, y = images(0, 8)
    gradients, logs = [], []
    for parts in (1, 4):
        t = trainer(model, accumulate=parts, discriminator_lr=1e-12)
        fakes = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
        given = itertools.cycle(fakes.chunk(parts))
        t.generator.forward = lambda z, y, given=given: next(given)
        inputs = draw_inputs(0, lambda i: (x, y), StepRNG(0), t.model, t.config, CPU)
        assert len(inputs.generator) == parts
        log = t._discriminator_gradients(inputs.discriminator[0], penalise=False)
        gradients.append([p.grad for p in t.discriminator.parameters()])
        with frozen(t.discriminator):
            logs.append(log | t._generator_gradients(inputs.generator, guided=False))
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert logs[0].keys() == logs[1].keys()
    for name, value in logs[0].items():
        assert value.item() == pytest.approx(logs[1][name].item(), abs=1e-6), name


def with_attention(network):
    """Set gamma of every attention layer to 0.5, so that attention takes part, and return the network."""
    for name, parameter in network.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.constant_(parameter, 0.5)
    return network


def written_out(generator, discriminator, step, *, parts=1, r1=0.0, r2=0.0, gradient_penalty=0.0, lecam=0.0, lazy=0.0):
    """Gradients of both networks in a step at the non-saturating loss, straight from the definitions.

    `lazy`: what the penalties of the discriminator's gradient are multiplied by on this step.
    """
    x, y = images(step)
    rng = step_rng(0, step, Processes(CPU))

    def slopes(at, labels):
        at = at.detach().requires_grad_(True)
        return torch.autograd.grad(discriminator(at, labels).sum(), at, create_graph=True)[0].flatten(1)

    means = ([], [])  # of the logits of real and of generated images, of every part so far
    for real, y_real in zip((x / 127.5 - 1).chunk(parts), y.chunk(parts), strict=True):
        n = len(real)
        z, y_fake = rng.normal(n, 8), rng.integers(n, 0, 3)
        fake = generator(z, y_fake).detach()
        logits = discriminator(torch.cat([real, fake]), torch.cat([y_real, y_fake]))
        on_real, on_fake = logits[:n], logits[n:]
        loss = (1 + (-on_real).exp()).log().mean() + (1 + on_fake.exp()).log().mean()
        for of_parts, t in zip(means, (on_real, on_fake), strict=True):
            of_parts.append(t.detach().mean())
        averages = [0.01 * torch.stack(of_parts).mean() for of_parts in means]  # from 0, moved once
        towards = (on_real - averages[1]).square().mean() + (on_fake - averages[0]).square().mean()
        loss = loss + lecam * towards
        zero_centred = [(r, at, labels) for r, at, labels in ((r1, real, y_real), (r2, fake, y_fake)) if lazy and r]
        if zero_centred:  # in one pass: a pass iterates the spectral norms
            rs, at, labels = zip(*zero_centred, strict=True)
            squares = slopes(torch.cat(at), torch.cat(labels)).square().sum(1).chunk(len(rs))
            loss = loss + sum(lazy * r / 2 * square.sum() / n for r, square in zip(rs, squares, strict=True))
        if lazy and gradient_penalty:
            t = rng.uniform(n, 0.0, 1.0, torch.float64)
            norms = slopes(t * real + (1 - t) * fake, y_real).square().sum(1).sqrt()
            loss = loss + lazy * gradient_penalty * (norms - 1).square().mean()
        (loss / parts).backward()
    ours = [p.grad.clone() for p in discriminator.parameters()]
    for labels in y.chunk(parts):
        z, y_fake = rng.normal(len(labels), 8), rng.integers(len(labels), 0, 3)
        loss = (1 + (-discriminator(generator(z, y_fake), y_fake)).exp()).log().mean()
        (loss / parts).backward()
    return ours, [p.grad for p in generator.parameters()]


WEIGHTS = {"r1": 3.0, "r2": 2.0, "gradient_penalty": 0.5, "lecam": 0.7}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("options", [{}, *({name: w} for name, w in WEIGHTS.items()), WEIGHTS], ids=str)
@pytest.mark.parametrize(("step", "lazy"), [(4, 4.0), (5, 0.0)], ids=["penalty step", "plain step"])
def test_gradients_of_both_networks_are_those_of_the_weighted_sums_written_out(options, parts, step, lazy):
    rates = {"discriminator_lr": 1e-14, "generator_lr": 1e-14}  # the discriminator stays as it is for the generator
    t = trainer(loss="non-saturating", penalty_every=4, accumulate=parts, **rates, **options)
    networks = [copy.deepcopy(with_attention(network)) for network in (t.generator, t.discriminator)]
    t.train_step(step, images)
    wanted = written_out(*networks, step, parts=parts, lazy=lazy, **options)
    for network, gradients in zip((t.discriminator, t.generator), wanted, strict=True):
        for (name, p), gradient in zip(network.named_parameters(), gradients, strict=True):
            # A bias before a batch norm has a gradient of rounding errors.
            assert (p.grad - gradient).norm() <= 1e-9 * gradient.norm() + 1e-14, name


def test_classes_of_generated_images_are_uniform_or_paired():
    t = trainer()
    labels = torch.zeros(3000, dtype=torch.int64)
    _, y = draw_latents(labels, StepRNG(0), t.model, t.config)
    assert torch.bincount(y).tolist() == pytest.approx([1000] * 3, abs=120)
    _, y = draw_latents(labels, StepRNG(0), t.model, replace(t.config, loss="relativistic"))
    assert torch.equal(y, labels)


def losses_and_gradients(dtype, **options):
    """Both losses of the first step, then the gradients of the discriminator and the generator, all in float64."""
    t = trainer(replace(MODEL, base_channels=8), discriminator_lr=1e-12, **options)
    for network in (t.generator, t.discriminator):
        with_attention(network).to(dtype)
        network.register_forward_pre_hook(lambda _, xs: tuple(x.to(dtype) if x.is_floating_point() else x for x in xs))
    t.ema.network.to(dtype)
    log = t.train_step(0, images)
    networks = (t.discriminator, t.generator)
    gradients = [torch.cat([p.grad.flatten() for p in network.parameters()]).double() for network in networks]
    return torch.stack([log["loss/discriminator"], log["loss/generator"]]).double(), gradients


@pytest.mark.parametrize("options", [{}, {"loss": "relativistic"}, {"augment": ("color",)}], ids=str)
def test_bf16_errs_by_so_much_in_a_step(options):
    """Against float64, means over seeds; measured: losses 4e-3, D's gradient 3e-2, G's, whose ReLUs switch, 9e-2."""
    errors = []
    for seed in range(6):
        found, gradients = losses_and_gradients(torch.float32, precision="bf16", seed=seed, **options)
        wanted, exact = losses_and_gradients(torch.float64, seed=seed, **options)
        relative = [(a - b).norm() / b.norm() for a, b in zip(gradients, exact, strict=True)]
        cosines = [torch.cosine_similarity(a, b, 0) for a, b in zip(gradients, exact, strict=True)]
        errors.append(torch.stack([*(found - wanted).abs(), *relative, *(1 - c for c in cosines)]))
    mean = torch.stack(errors).mean(0)
    assert (mean > 0).all()
    assert (mean < torch.tensor([0.007, 0.006, 0.05, 0.12, 1.2e-3, 8e-3])).all(), mean


def test_random_numbers_differ_from_seed_to_seed_from_step_to_step_and_after_a_restart():
    rows = [
        step_rng(seed, step, Processes(CPU), restarts).normal(2, 3)
        for seed in (0, 1, 2, 2**31 - 1)
        for step in (0, 1, 999_999)
        for restarts in (0, 1)
    ]
    assert len({tuple(row.flatten().tolist()) for row in rows}) == len(rows)
    again = step_rng(1, 999_999, Processes(CPU), 1).normal(2, 3)
    assert any(torch.equal(row, again) for row in rows)


def test_the_auxiliary_classifier_is_ac_gan_s():
    """Odena et al. 2017: D's loss gets -E[log P(c | real)] - E[log P(c | fake)], G's the second of them."""
    model = replace(MODEL, class_head="classifier", generator_attention=(), discriminator_attention=())
    t = trainer(model)
    g, d = copy.deepcopy(t.generator), copy.deepcopy(t.discriminator)
    x, y = images(0)
    log = t.train_step(0, images)
    rng = StepRNG(0)
    z, y_fake = rng.normal(8, 8), rng.integers(8, 0, 3)
    with torch.no_grad():
        h = d.features(torch.cat([x / 127.5 - 1, g(z, y_fake)]))
        logits, classes = d.logits(h), d.class_logits(h)
    log_p = classes.double().log_softmax(1)
    right = torch.cat([y, y_fake])
    expected = -log_p[range(8), right[:8]].mean() - log_p[range(8, 16), right[8:]].mean()
    assert log["loss/classes"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert log["logits/real"].item() == pytest.approx(logits[:8].mean().item(), rel=1e-4)


def test_an_auxiliary_classifier_learns_classes_that_differ():
    def black_and_white(number):
        y = torch.arange(8) % 2
        return (y * 255).to(torch.uint8)[:, None, None, None].expand(8, 3, 32, 32), y

    model = replace(MODEL, num_classes=2, class_head="classifier")
    t = trainer(model, loss="non-saturating", discriminator_lr=1e-3)
    first, *_, last = (t.train_step(i, black_and_white)["loss/classes"].item() for i in range(40))
    assert last < 0.8 * first


def test_a_discriminator_without_classifier_has_no_such_loss():
    assert "loss/classes" not in trainer().train_step(0, images)
    discriminator = trainer().discriminator
    with pytest.raises(ValueError, match="has no classifier"):
        discriminator.class_logits(discriminator.features(torch.zeros(1, 3, 32, 32)))
