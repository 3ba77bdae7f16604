"""Compile both networks with torch.compile, which fuses what lies between convolutions and products into few kernels.

It compiles forward passes and their gradients and leaves the modules as they are, so state dicts and copies do not
change. Penalties differentiate twice, which compiled functions cannot, so they call the discriminator itself.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sagan.config import TrainingConfig
from sagan.distributed import Processes
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.text import format_time
from sagan.training.progress import say

BACKEND = "inductor"
"""PyTorch's compiler: C++ on the CPU, Triton on CUDA."""


def discriminate(
    discriminator: Discriminator, x: Tensor, y: Tensor, *, classify: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Return the logits (N,) of images x, and the auxiliary classifier's (N, num_classes).

    One pass of the network computes both. The second is None without a classifier, or if not `classify`.
    """
    if not classify or discriminator.classifier is None:
        return discriminator(x, y), None
    h = discriminator.features(x)
    return discriminator.logits(h, y), discriminator.class_logits(h)


class Passes:
    """The forward passes of a training step, through the networks as they are until `compile` is called.

    Attributes:
        generate: maps z and y to images, as the generator does.
        discriminate: maps images and labels to logits, as the function of this name does.
    """

    def __init__(self, generator: Generator, discriminator: Discriminator) -> None:
        self._networks = generator, discriminator
        self._set(generator, discriminate)

    def _set(self, generate: Callable[..., Tensor], discriminate: Callable[..., Any]) -> None:
        self.generate = generate
        self.discriminate: Callable[..., tuple[Tensor, Tensor | None]] = partial(discriminate, self._networks[1])

    def compile(self, rehearse: Callable[[], object], changed: Sequence[nn.Module], *, announce: bool) -> None:
        """Compile both passes; if that fails, say so in one line and leave them as they are.

        Args:
            rehearse: computes the gradients of a step. The compiler works when a function is called with new shapes,
                so it runs here, where nothing is lost if it fails.
            changed: modules whose buffers `rehearse` changes; they are restored.
            announce: print what happens.
        """
        # Without PyTorch's own CUDA graphs: `training.graphs` records the whole step.
        options: dict[str, Any] = {"backend": BACKEND, "dynamic": False, "fullgraph": True}
        self._set(torch.compile(self._networks[0], **options), torch.compile(discriminate, **options))
        if announce:
            say("--compile: compiling both networks before the first step, which takes minutes")
        begun = time.perf_counter()
        buffers = [(buffer, buffer.clone()) for module in changed for buffer in module.buffers()]
        try:
            rehearse()
        except Exception as error:  # of any kind: an error of the networks themselves returns in the next step
            self._set(self._networks[0], discriminate)
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            if announce:
                say(f"--compile: the networks cannot be compiled ({reason}); training continues without")
        else:
            if announce:
                say(f"--compile: done after {format_time(time.perf_counter() - begun)}")
        finally:
            for buffer, before in buffers:
                buffer.copy_(before)


def why_not_compiled(config: TrainingConfig, processes: Processes) -> str | None:
    """Return why networks are not compiled here, in one line; None if they are."""
    if processes.count > 1 and (config.sync_batch_norm or config.lecam):
        # A process that fails to compile would leave the others waiting for its messages.
        return "--compile: ignored with several processes and --sync-batch-norm or --lecam, which send within a pass"
    return None
