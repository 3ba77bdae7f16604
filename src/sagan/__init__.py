"""Self-Attention GANs (Zhang et al. 2019): from a folder of pictures to pictures of your own."""

from sagan.attention import (
    LayerStatistics,
    attention_layers,
    attention_maps,
    attention_statistics,
    lay_on_picture,
    observe_attention,
)
from sagan.config import PRESETS, Config, DataConfig, OutputConfig, TrainingConfig
from sagan.errors import UserError
from sagan.evaluation import Evaluation, evaluate
from sagan.interop.hub import load, save_pretrained
from sagan.model.attention import SelfAttention2d
from sagan.model.config import ModelConfig
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.run import Run
from sagan.sampling import draw_latents, sample

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
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
    "attention_layers",
    "attention_maps",
    "attention_statistics",
    "draw_latents",
    "evaluate",
    "lay_on_picture",
    "load",
    "observe_attention",
    "sample",
    "save_pretrained",
]

# The names that others' libraries have; the model itself knows neither files nor the Hub.
Generator.save_pretrained = save_pretrained  # type: ignore[attr-defined]
Generator.from_pretrained = staticmethod(load)  # type: ignore[attr-defined]
