"""The named presets, and what a run differs in from them: the command line that repeats it."""

import shlex
from dataclasses import fields, is_dataclass
from typing import Any, Literal

from sagan.config import Config, DataConfig, OutputConfig, TrainingConfig
from sagan.model.config import ModelConfig

# Not the run's own: where pictures are kept, and what the data decide.
_NOT_CHOSEN = ("data.cache", "model.num_classes")

PresetName = Literal["demo", "small", "imagenet128", "paper128"]

PRESETS: dict[PresetName, Config] = {
    # The built-in robots in five minutes on two CPU cores.
    "demo": Config(
        data=DataConfig(source="robots"),
        model=ModelConfig(resolution=32, num_classes=5, latent_dim=64, base_channels=24),
        training=TrainingConfig(
            steps=1200,
            batch_size=32,
            loss="relativistic",
            r1=0.5,
            r2=0.5,
            penalty_every=4,
            generator_lr=5e-4,
            discriminator_lr=1e-3,
            beta2=0.99,
            lr_decay_from=0.7,
            ema_decay=0.99,
        ),
        output=OutputConfig(
            log_every=20, sample_every=100, checkpoint_every=300, evaluate_every=300, evaluate_count=192
        ),
    ),
    # A few hundred to a few thousand pictures of one's own.
    "small": Config(
        data=DataConfig(source=""),
        model=ModelConfig(resolution=64, latent_dim=128, base_channels=32),
        training=TrainingConfig(
            steps=20_000,
            batch_size=32,
            loss="relativistic",
            r1=1.0,
            r2=1.0,
            penalty_every=4,
            generator_lr=4e-4,
            discriminator_lr=8e-4,
            beta2=0.99,
            lr_decay_from=0.7,
            augment=("color", "translation", "cutout"),
        ),
        output=OutputConfig(log_every=20, sample_every=250, checkpoint_every=250),
    ),
    # The recipe that reaches FID 12.83 on ImageNet 128 (docs/presets.md).
    "imagenet128": Config(
        data=DataConfig(source=""),
        model=ModelConfig(resolution=128, num_classes=1000),
        training=TrainingConfig(steps=1_000_000, batch_size=256, beta2=0.999, ema_decay=0.999, ema_start=2000),
    ),
    # The paper's text to the letter: all keys, values of C/8, Adam (0, 0.9), no average.
    "paper128": Config(
        data=DataConfig(source=""),
        model=ModelConfig(resolution=128, num_classes=1000, attention_variant="paper"),
        training=TrainingConfig(steps=1_000_000, batch_size=256, ema_decay=0.0, precision="fp32"),
    ),
}


def compare_with_preset(config: Config) -> tuple[PresetName, list[tuple[str, str, str]]]:
    """The preset nearest to a configuration, and what differs: option, own value and the preset's.

    Left out are the cache folder, and the number of classes, which the data decide.
    """
    own = _options(config)

    def differing(preset: Config) -> list[tuple[str, str, str]]:
        theirs = _options(preset)
        return [
            (_option_name(key), _text(value), _text(theirs[key]))
            for key, value in own.items()
            if value != theirs[key] and key not in _NOT_CHOSEN
        ]

    name = min(PRESETS, key=lambda name: len(differing(PRESETS[name])))
    return name, differing(PRESETS[name])


def train_command(config: Config, out: str) -> str:
    """The command that trains a run as a configuration says, into the folder `out`."""
    preset, differences = compare_with_preset(config)
    own = {_option_name(key): value for key, value in _options(config).items()}
    words = ["sagan", "train", "--preset", preset]
    for option, _, _ in differences:
        values = _words(own[option])
        words += [f"{option}={values[0]}"] if values and values[0].startswith("-") else [option, *values]
    return shlex.join([*words, "--out", out])


def _options(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every option by its path: 'training.steps'."""
    found: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        key = prefix + field.name
        found |= _options(value, f"{key}.") if is_dataclass(value) else {key: value}
    return found


def _option_name(key: str) -> str:
    named = {"data.source": "--data", "training.start": "--from"}
    return named.get(key) or "--" + key.rpartition(".")[2].replace("_", "-")


def _words(value: Any) -> list[str]:
    """A value as the command line takes it."""
    return [word for part in value for word in _words(part)] if isinstance(value, tuple) else [str(value)]


def _text(value: Any) -> str:
    return " ".join(_words(value)) or "(none)"
