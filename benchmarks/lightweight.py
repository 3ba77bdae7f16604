"""Build lightweight-gan (lucidrains) from a checkout, with the interface of peers.py: another architecture than SAGAN.

It has no classes, and refuses machines without CUDA: here it also runs on a CPU, to see that it does.
"""

import importlib
import random
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from peers import Anything, Contender, modules, stub
from sagan import ModelConfig, TrainingConfig

NAME = "lightweight-gan"
LATENT_DIM, ATTENTION, PENALTY, EVERY, RATE = 256, [32], 10.0, 4, 2e-4  # the defaults of its command and of its trainer
AUGMENTED = ["cutout", "translation"]


def lightweight(root: Path, model: ModelConfig, training: TrainingConfig, images: int) -> Contender:
    """Build its networks as its command does by default, and its trainer's step, without gradient accumulation.

    Args:
        images: how many there are to learn from, which determines the share of batches that it augments.
    """
    modules(root, "lightweight_gan")
    stub("lightweight_gan", root / "lightweight_gan")
    stub("torchvision", transforms=Anything)  # for its data and grids
    stub("kornia")
    stub("kornia.filters", filter2d=Anything)  # for --antialias
    stub("adabelief_pytorch", AdaBelief=Anything)  # for --optimizer adabelief
    with patch.object(torch.cuda, "is_available", lambda: True):
        code: Any = importlib.import_module("lightweight_gan.lightweight_gan")
    code.Blur = torch.nn.Identity  # as its trainer does without --antialias
    torch.manual_seed(training.seed)
    random.seed(training.seed)  # for whether a batch is augmented
    device = torch.get_default_device()
    networks = type("Networks", (code.LightweightGAN,), {"cuda": lambda self, _: self.to(device)})(
        latent_dim=LATENT_DIM, image_size=model.resolution, attn_res_layers=ATTENTION, disc_output_size=1, lr=RATE
    )
    n = training.batch_size
    augment = {"prob": min(0.5, (1e5 - images) * 3e-6) if images < 1e5 else 0.0, "types": AUGMENTED}
    steps = 0

    def latents() -> Tensor:
        return torch.randn(n, LATENT_DIM, device=device)

    def step(real: Tensor, labels: Tensor) -> None:
        nonlocal steps
        networks.train()
        real, penalised = (real + 1) / 2, steps % EVERY == 0
        networks.D_opt.zero_grad()
        with torch.no_grad():
            fake = networks.G(latents())
        if penalised:
            real.requires_grad_()
        fake, (on_fake, small_fake, _) = networks.D_aug(
            fake, detach=True, input_requires_grad=penalised, return_discr_input=True, **augment
        )
        on_real, small_real, reconstruction = networks.D_aug(real, calc_aux_loss=True, **augment)
        loss = code.hinge_loss(on_real, on_fake) + code.hinge_loss(small_real, small_fake) + reconstruction
        if penalised:
            pairs = ([on_real, small_real], real), ([on_fake, small_fake], fake)
            slopes = [
                torch.autograd.grad(outputs, inputs, [torch.ones_like(t) for t in outputs], create_graph=True)[0]
                for outputs, inputs in pairs
            ]
            loss = loss + PENALTY * (torch.cat(slopes).flatten(1).norm(2, dim=1) ** 2).mean()
        loss.backward()
        networks.D_opt.step()
        networks.G_opt.zero_grad()
        on_fake, small_fake, _ = networks.D_aug(networks.G(latents()), **augment)
        (on_fake.mean() + small_fake.mean()).backward()
        networks.G_opt.step()
        steps += 1

    def draw(generator: torch.nn.Module, z: Tensor, y: Tensor) -> Tensor:
        return 2 * generator(z).clamp(0, 1) - 1

    # Up to step 20,000 its average is a copy of the generator, up to 1,000 steps old.
    about = "its Trainer.train written out; no classes; sampled from its generator"
    return Contender(about, networks.G, networks.D, step, networks.G, draw, LATENT_DIM)
