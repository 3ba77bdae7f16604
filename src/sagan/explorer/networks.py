"""Read the networks of a run that the page shows: its generator and, if there is one, its discriminator."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sagan.attention_maps import attention_layers
from sagan.device import CPU
from sagan.errors import UserError
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.model.spectral_norm import for_inference
from sagan.run import Run, load_generator, read_discriminator
from sagan.trained import find

WHITE = (255, 255, 255)
_LOGIT_ROWS = 10  # rows at the end of the metrics log that the logits are averaged over


@dataclass(frozen=True)
class Networks:
    """The networks of a run, ready to use: in evaluation mode, with spectral norms folded into the weights."""

    path: Path
    """As the user passed it."""
    generator: Generator
    discriminator: Discriminator | None
    class_names: tuple[str, ...]
    step: int
    """Training step of the generator."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why there is no 'discriminator', or why a network has no maps ('generator_maps', 'discriminator_maps')."""
    background: tuple[int, int, int] = WHITE
    """Colour that transparent images are composited over."""
    logits: dict[str, float] = field(default_factory=dict)
    """Mean logits of 'real' and 'fake' images at the end of training; {} without a log."""

    def layers(self, network: str) -> list[str]:
        """Return the names of the layers with maps of the 'generator' or the 'discriminator'."""
        module = self.generator if network == "generator" else self.discriminator
        if module is None or f"{network}_maps" in self.missing:
            return []
        return list(attention_layers(module))


def read_networks(path: Path, device: torch.device = CPU) -> Networks:
    """Read a run's folder, its generator.safetensors, one of its checkpoints, or a trained model by name.

    Raises:
        UserError: there is no generator. A missing discriminator is not an error; `missing` says why.
    """
    generator, class_names, step = load_generator(path, device)
    discriminator: Discriminator | None = None
    missing: dict[str, str] = {}
    background = WHITE
    logits: dict[str, float] = {}
    if find(path).is_dir():
        run = Run(path)
        background = run.info.config.data.background
        logits = _mean_logits(run.metrics())
        try:
            discriminator = for_inference(read_discriminator(path), device)
        except UserError as error:
            missing["discriminator"] = str(error)
    else:
        missing["discriminator"] = f"{path.name} is a single file: the discriminator is in a run's folder"
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        if network is None:
            continue
        try:
            attention_layers(network)
        except UserError as error:
            missing[f"{name}_maps"] = str(error)
    return Networks(path, generator, discriminator, class_names, step, missing, background, logits)


def _mean_logits(rows: list[dict[str, Any]]) -> dict[str, float]:
    logits = {}
    for name in ("real", "fake"):
        values = [row[f"logits/{name}"] for row in rows[-_LOGIT_ROWS:] if f"logits/{name}" in row]
        if values:
            logits[name] = sum(values) / len(values)
    return logits
