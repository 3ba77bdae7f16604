"""What of a run is on show: its generator, its discriminator if there is one, and what they are called."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sagan.attention import attention_layers
from sagan.device import CPU
from sagan.errors import UserError
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.model.spectral_norm import bake_spectral_norm
from sagan.run import Run, read_discriminator, read_generator

WHITE = (255, 255, 255)
_LOGGED = 10  # rows of the metrics log that the logits are an average over


@dataclass(frozen=True)
class Networks:
    """The networks of a run, ready to use: in evaluation mode, spectral norms worked into the weights."""

    path: Path
    """As the user gave it."""
    generator: Generator
    discriminator: Discriminator | None
    class_names: tuple[str, ...]
    step: int
    """Of the generator."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why there is no 'discriminator', or why a network has no maps: 'generator_maps', 'discriminator_maps'."""
    background: tuple[int, int, int] = WHITE
    """Colour that transparent pictures are laid on."""
    logits: dict[str, float] = field(default_factory=dict)
    """Mean scores of 'real' and 'fake' pictures at the end of training; empty without a log."""

    def layers(self, network: str) -> list[str]:
        """Names of the layers with maps of the 'generator' or the 'discriminator'; none if there are none."""
        found = self.generator if network == "generator" else self.discriminator
        return [] if found is None or f"{network}_maps" in self.missing else list(attention_layers(found))


def read_networks(path: Path, device: torch.device = CPU) -> Networks:
    """Reads a run's folder, its generator.safetensors, or one of its checkpoints.

    Raises:
        UserError: there is no generator. Without a discriminator the rest is there, and `missing` says why.
    """
    generator, class_names, step = read_generator(path)
    generator = bake_spectral_norm(generator.eval()).requires_grad_(False).to(device)
    discriminator: Discriminator | None = None
    missing: dict[str, str] = {}
    background, logits = WHITE, dict[str, float]()
    if path.is_dir():
        run = Run(path)
        background, logits = run.info.config.data.background, _logits(run.metrics())
        try:
            discriminator = bake_spectral_norm(read_discriminator(path).eval()).requires_grad_(False).to(device)
        except UserError as error:
            missing["discriminator"] = str(error)
    else:
        missing["discriminator"] = f"{path.name} is a file on its own: the discriminator is in a run's folder"
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        try:
            _ = network and attention_layers(network)
        except UserError as error:
            missing[f"{name}_maps"] = str(error)
    return Networks(path, generator, discriminator, class_names, step, missing, background, logits)


def _logits(rows: list[dict[str, Any]]) -> dict[str, float]:
    found = {}
    for name in ("real", "fake"):
        values = [row[f"logits/{name}"] for row in rows[-_LOGGED:] if f"logits/{name}" in row]
        if values:
            found[name] = sum(values) / len(values)
    return found
