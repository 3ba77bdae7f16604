"""examples/minimal.py trains as the package does, has the paper's networks, and runs."""

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from sagan import PRESETS, ModelConfig, TrainingConfig
from sagan.data.builtin import robots
from sagan.distributed import Processes
from sagan.training.step import Trainer, step_rng

FILE = Path(__file__).parents[2] / "examples" / "minimal.py"
CPU = torch.device("cpu")
STEPS, CLASSES, LATENT_DIM, CH, BATCH = 50, 3, 8, 8, 4


def load_minimal():
    spec = importlib.util.spec_from_file_location("minimal", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


minimal = load_minimal()


# All that this file knows of the package's names: adapt it here.


def package_trainer():
    """The package's trainer with the recipe of imagenet128 at 32 px, its average starting in the middle."""
    preset = PRESETS["imagenet128"].training
    config = TrainingConfig(
        steps=STEPS,
        batch_size=BATCH,
        loss=preset.loss,
        generator_lr=preset.generator_lr,
        discriminator_lr=preset.discriminator_lr,
        beta1=preset.beta1,
        beta2=preset.beta2,
        ema_decay=preset.ema_decay,
        ema_start=STEPS // 2,
        precision="fp32",
    )
    model = ModelConfig(resolution=32, num_classes=CLASSES, latent_dim=LATENT_DIM, base_channels=CH)
    return Trainer(model, config, CPU)


def package_step(trainer, step):
    log = trainer.train_step(step, batch)
    return log["loss/discriminator"], log["loss/generator"]


def package_latents(trainer, step):
    """The latents (2, N, latent_dim) and classes (2, N) of a step: D's, then G's."""
    rng = step_rng(trainer.config.seed, step, Processes(CPU))
    pairs = [(rng.normal(BATCH, LATENT_DIM), rng.integers(BATCH, 0, CLASSES)) for _ in range(2)]
    return [torch.stack(tensors) for tensors in zip(*pairs, strict=True)]


SN, BN = "sn", "bn"  # a layer's spectral norm, the last batch norm of the generator; bn1 of a block is BN + "1"
ATTENTION = {"g": "query", "f": "key", "h": "value", "v": "output"}


def package_names(network):
    """minimal.py's name of every tensor of a network ('generator' or 'discriminator') -> the package's."""
    blocks = {f"blocks.{i}": f"blocks.{i}" for i in range(3)}
    layers, plain = {"head": "head"}, {"attention.gamma": "attention.16.0.gamma"}
    for own, theirs in ATTENTION.items():
        layers[f"attention.{own}"] = f"attention.16.0.{theirs}"
    if network == "generator":
        layers["stem"] = "stem"
        batch_norms = {f"{own}.bn{i}": f"{theirs}.{BN}{i}" for own, theirs in blocks.items() for i in (1, 2)}
        plain |= {"bn.weight": f"{BN}.scale", "bn.bias": f"{BN}.shift"}
        plain |= {f"bn.{name}": f"{BN}.{name}" for name in ("running_mean", "running_var")}
    else:
        layers["embed"] = "embed"
        blocks["blocks.3"] = "last"
        batch_norms = {}
    for own, theirs in blocks.items():
        for name in ("conv1", "conv2", "shortcut"):
            if theirs != "last" or name != "shortcut":
                layers[f"{own}.{name}"] = f"{theirs}.{name}"
    for own, theirs in batch_norms.items():
        plain |= {f"{own}.{name}": f"{theirs}.{name}" for name in ("scale", "shift")}
        plain |= {f"{own}.norm.{name}": f"{theirs}.{name}" for name in ("running_mean", "running_var")}
    for own, theirs in layers.items():
        plain[f"{own}.parametrizations.weight.original"] = f"{theirs}.weight"
        plain[f"{own}.parametrizations.weight.0.u"] = f"{theirs}.{SN}.u"
        if own != "embed" and own not in {f"attention.{name}" for name in ATTENTION}:
            plain[f"{own}.bias"] = f"{theirs}.bias"
    return plain


# From here on, the package is reached through the above.

# A batch norm takes away the biases before it: their gradients, and so their values, are nothing but rounding.
CANCELLED = {"blocks.2.conv2.bias", "blocks.2.shortcut.bias", "bn.running_mean"} | {
    f"blocks.{i}.{name}" for i in range(3) for name in ("conv1.bias", "bn2.norm.running_mean")
}


def batch(number):
    rng = torch.Generator().manual_seed(number)
    x = torch.randint(256, (BATCH, 3, 32, 32), generator=rng, dtype=torch.uint8)
    return x, torch.randint(CLASSES, (BATCH,), generator=rng)


def own_tensors(network):
    return {name: t for name, t in network.state_dict().items() if not name.endswith("num_batches_tracked")}


def disturb(network):
    """Let attention take part from the first step, and make classes differ."""
    rng = torch.Generator().manual_seed(1)
    for name, t in network.state_dict().items():
        if name.endswith("gamma"):
            t.fill_(0.5)
        if name.endswith(("scale", "shift")):
            t.add_(0.1 * torch.randn(t.shape, generator=rng))


@pytest.mark.usefixtures("float64")
def test_50_steps_equal_the_package(monkeypatch):
    trainer = package_trainer()
    theirs = {"generator": trainer.generator, "discriminator": trainer.discriminator}
    own = {
        "generator": minimal.Generator(CLASSES, 32, CH, LATENT_DIM),
        "discriminator": minimal.Discriminator(CLASSES, 32, CH),
    }
    names = {network: package_names(network) for network in own}
    for network in own:
        assert own_tensors(own[network]).keys() == names[network].keys()
        assert theirs[network].state_dict().keys() == set(names[network].values())
        disturb(theirs[network])
        for name, t in own_tensors(own[network]).items():
            t.copy_(theirs[network].state_dict()[names[network][name]])
    before = {network: {name: p.detach().clone() for name, p in own[network].named_parameters()} for network in own}
    average = copy.deepcopy(own["generator"]).eval()

    monkeypatch.setattr(minimal, "EMA_START", trainer.config.ema_start)
    config = trainer.config
    rates = {"generator": config.generator_lr, "discriminator": config.discriminator_lr}
    adams = [torch.optim.Adam(own[n].parameters(), rates[n], (config.beta1, config.beta2)) for n in own]
    own["ema"], theirs["ema"], names["ema"] = average, trainer.ema.network, names["generator"]
    for step in range(STEPS):
        expected = package_step(trainer, step)
        images, labels = batch(step)
        losses = minimal.train_step(
            own["generator"], own["discriminator"], *adams, images / 127.5 - 1, labels, *package_latents(trainer, step)
        )
        minimal.update_average(average, own["generator"], step)
        assert losses == pytest.approx([t.item() for t in expected], rel=1e-9), step
        for network in own:
            check_equal(network, step, own[network], theirs[network].state_dict(), names[network])

    for network, initial in before.items():
        for name, p in own[network].named_parameters():
            assert not torch.equal(p, initial[name]), f"{network}: {name} was not trained"
    assert not torch.equal(average.stem.bias, own["generator"].stem.bias)


def check_equal(network, step, own, theirs, names):
    """Compare every tensor of a network of minimal.py with the package's, `theirs` by name."""
    for name, t in own_tensors(own).items():
        error, size = (t - theirs[names[name]]).norm().item(), theirs[names[name]].norm().item()
        if network != "discriminator" and name in CANCELLED:
            assert error < 1e-8, f"step {step}, {network}: {name} differs by {error:.1e}"
        else:
            assert error <= 1e-9 * size, f"step {step}, {network}: {name} differs by {error / size:.1e} of its norm"


def test_the_networks_at_128_px_have_the_released_parameters():
    with torch.device("meta"):
        networks = minimal.Generator(1000, 128, 64, 128), minimal.Discriminator(1000, 128, 64)
    assert [sum(p.numel() for p in network.parameters()) for network in networks] == [42_078_852, 39_463_618]


def test_the_rates_are_the_papers():
    paper = PRESETS["paper128"].training
    assert (paper.generator_lr, paper.discriminator_lr) == (minimal.GENERATOR_LR, minimal.DISCRIMINATOR_LR)
    assert (paper.beta1, paper.beta2) == minimal.BETAS


def test_it_is_short():
    assert len(FILE.read_text(encoding="utf-8").splitlines()) < 250


def test_it_runs_on_a_folder(image_folder, monkeypatch, capsys):
    short = load_minimal()
    short.BATCH_SIZE, short.BASE_CHANNELS = 4, 8
    monkeypatch.chdir(image_folder.parent)
    short.main(["images", "--steps", "50"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 50: loss D ")
    assert lines[-1] == "samples: minimal.png"
    grid = Image.open("minimal.png")
    assert grid.size == (8 * 32, 2 * 32)
    assert len(grid.getcolors(1 << 16)) > 100


def test_it_reads_a_folder_and_robots(image_folder, monkeypatch):
    images, labels = minimal.load_images(image_folder)
    assert images.shape == (24, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert labels.tolist() == 12 * [0] + 12 * [1]
    first = ImageOps.fit(Image.open(image_folder / "cats" / "0.png"), (32, 32))
    assert torch.equal(images[0], torch.from_numpy(np.array(first)).permute(2, 0, 1))

    # One class, that of the fewest parts: resizing all of them takes seconds.
    monkeypatch.setattr(robots, "SETS", {"cats": robots.SETS["cats"]})
    monkeypatch.setattr(robots, "CLASS_NAMES", ("cats",))
    images, labels = minimal.load_images(None)
    assert images.shape == (5000, 3, 32, 32)
    assert labels.dtype == torch.int64
    assert labels.max() == 0
    assert torch.equal(images[7], torch.from_numpy(robots.render(8, 32, 3, seed=0)[0][7]).permute(2, 0, 1))
