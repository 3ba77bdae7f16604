"""Self-Attention GANs (Zhang et al. 2019): train, sample, evaluate and inspect them."""

from sagan.api.evaluate import evaluate
from sagan.api.run import Run
from sagan.api.show import effect_png, grid, maps_png
from sagan.api.train import train
from sagan.attention_effect import AttentionEffect, attention_effect
from sagan.attention_maps import (
    AttentionMaps,
    LayerStatistics,
    attention_layers,
    attention_maps,
    attention_statistics,
    observe_attention,
    resize_maps,
)
from sagan.config import Config, DataConfig, OutputConfig, TrainingConfig
from sagan.errors import UserError
from sagan.generation import LoadedGenerator
from sagan.hub.repository import load, save_pretrained
from sagan.importers.networks import ImportedGenerator as _ImportedGenerator  # registers its architecture
from sagan.metrics.result import Evaluation
from sagan.model.attention import ChannelAttention2d, SelfAttention2d
from sagan.model.config import ModelConfig
from sagan.model.dcgan import DCGANGenerator as _DCGANGenerator
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.presets import PRESETS
from sagan.sampling import draw_latents, sample
from sagan.version import __version__

__all__ = [
    "PRESETS",
    "AttentionEffect",
    "AttentionMaps",
    "ChannelAttention2d",
    "Config",
    "DataConfig",
    "Discriminator",
    "Evaluation",
    "Generator",
    "LayerStatistics",
    "ModelConfig",
    "OutputConfig",
    "Run",
    "SelfAttention2d",
    "TrainingConfig",
    "UserError",
    "__version__",
    "attention_effect",
    "attention_layers",
    "attention_maps",
    "attention_statistics",
    "draw_latents",
    "evaluate",
    "grid",
    "load",
    "observe_attention",
    "resize_maps",
    "sample",
    "save_pretrained",
    "train",
]

# Method names as in other libraries. They are added here because the model knows neither files nor the Hub.
for _generator in (Generator, _DCGANGenerator, _ImportedGenerator):
    _generator.sample = LoadedGenerator.sample  # type: ignore[union-attr]
    _generator.save_pretrained = save_pretrained  # type: ignore[union-attr]
    _generator.from_pretrained = staticmethod(load)  # type: ignore[union-attr]

# What a notebook shows of them. Figures are drawn above the rooms of these classes.
AttentionEffect._repr_png_ = effect_png  # type: ignore[attr-defined]
AttentionMaps._repr_png_ = maps_png  # type: ignore[attr-defined]
