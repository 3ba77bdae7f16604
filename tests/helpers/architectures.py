"""A configuration for every architecture, option, preset and study variant of the networks."""

from typing import Any

from sagan.importers.networks import ImportedConfig
from sagan.model.config import ModelConfig
from sagan.presets import PRESETS
from sagan.study.variants import STUDIES

_SMALL = {"resolution": 32, "latent_dim": 8, "base_channels": 8, "num_classes": 3}
_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no classes": {"num_classes": 0},
    "grey": {"image_channels": 1},
    "linear upsampling": {"upsampling": "linear"},
    "paper attention": {"attention_variant": "paper"},
    "full attention": {"attention_variant": "full"},
    "direct attention": {"attention_variant": "direct"},
    "reductions": {"value_reduction": 4, "query_reduction": 2},
    "channel attention": {
        "generator_attention": ((8, "channel"), (16, "self")),
        "discriminator_attention": ((8, "self"), (16, "channel"), (16, "self")),
    },
    "residual blocks": {
        "generator_attention": ((32, "residual"), (4, "self")),
        "discriminator_attention": ((4, "residual"), (16, "residual")),
    },
    "no attention": {"generator_attention": (), "discriminator_attention": ()},
    "no spectral norm": {"generator_spectral_norm": False, "discriminator_spectral_norm": False},
    "auxiliary classifier": {"class_head": "classifier"},
    "64 px": {"resolution": 64},
    "256 px": {"resolution": 256, "base_channels": 1},
    "dcgan": {"architecture": "dcgan"},
    "heykeetae": {
        "architecture": "dcgan",
        "resolution": 64,
        "attention_variant": "direct",
        "generator_attention": ((16, "self"), (32, "self")),
        "discriminator_attention": ((8, "self"), (4, "self")),
    },
    "dcgan with an auxiliary classifier": {
        "architecture": "dcgan",
        "resolution": 128,
        "class_head": "classifier",
    },
}
_IMPORTED_OPTIONS: dict[str, dict[str, Any]] = {
    "class norms": {"class_spectral_norm": True},
    "bilinear": {"upsampling": "bilinear"},
    "rectified": {"shortcut": "rectified", "discriminator_inner": "in"},
    "activations": {"generator_activation": "elu", "discriminator_activation": "leaky-relu"},
    "widths": {
        "generator_widths": (6, 10, 12, 4),
        "discriminator_widths": (8, 6, 10, 12, 9),
        "discriminator_halvings": 2,
    },
    "every block halves": {"discriminator_widths": (8, 6, 10, 12), "discriminator_halvings": 4},
}

CONFIGS = (
    {name: ModelConfig(**_SMALL | options) for name, options in _OPTIONS.items()}
    | {name: ImportedConfig(**_SMALL | options) for name, options in _IMPORTED_OPTIONS.items()}
    | {f"preset {name}": preset.model for name, preset in PRESETS.items()}
    | {
        f"study {name}, {variant.name}": variant.config.model
        for name, study in STUDIES.items()
        for variant in study.variants(PRESETS["demo"])
    }
)
