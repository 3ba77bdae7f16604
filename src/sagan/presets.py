"""The named presets, and the options in which a run differs from them."""

import shlex
from dataclasses import fields, is_dataclass
from typing import Any, Literal

from sagan.config import Config, DataConfig, OutputConfig, TrainingConfig
from sagan.model.config import ModelConfig

# Not compared: the cache folder belongs to the machine, the number of classes to the data.
_NOT_COMPARED = ("data.cache", "model.num_classes")

PresetName = Literal["demo", "small", "imagenet128", "paper128"]

PRESETS: dict[PresetName, Config] = {
    # The built-in robots in five minutes on two CPU cores.
    "demo": Config(
        data=DataConfig(source="robots"),
        model=ModelConfig(resolution=32, num_classes=5, latent_dim=64, base_channels=24),
        training=TrainingConfig(
            steps=1700,
            batch_size=16,
            loss="relativistic",
            r1=1.0,
            r2=1.0,
            penalty_every=4,
            guide=0.1,
            generator_lr=7e-4,
            discriminator_lr=1.4e-3,
            beta2=0.99,
            lr_decay_from=0.7,
            ema_decay=0.99,
        ),
        output=OutputConfig(
            log_every=20, sample_every=200, checkpoint_every=500, evaluate_every=500, evaluate_count=192
        ),
    ),
    # A few hundred to a few thousand of one's own images.
    "small": Config(
        data=DataConfig(source=""),
        model=ModelConfig(resolution=64, latent_dim=128, base_channels=32, upsampling="linear"),
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
    # The paper's text to the letter: unpooled keys, C/8 value channels, Adam (0, 0.9), no average.
    "paper128": Config(
        data=DataConfig(source=""),
        model=ModelConfig(resolution=128, num_classes=1000, attention_variant="paper"),
        training=TrainingConfig(steps=1_000_000, batch_size=256, ema_decay=0.0, precision="fp32"),
    ),
}


def compare_with_preset(config: Config) -> tuple[PresetName, list[tuple[str, str, str]]]:
    """Return the nearest preset, and the options that differ from it: option, own value, the preset's value.

    The cache folder and the number of classes, which follows from the data, are not compared.
    """
    own = _flatten(config)

    def differences(preset: Config) -> list[tuple[str, str, str]]:
        theirs = _flatten(preset)
        return [
            (_option_name(key), _format(value), _format(theirs.get(key)))
            for key, value in own.items()
            if value != theirs.get(key) and key not in _NOT_COMPARED
        ]

    name = min(PRESETS, key=lambda name: len(differences(PRESETS[name])))
    return name, differences(PRESETS[name])


def option_paths(config: Config) -> dict[str, str]:
    """Return where a configuration holds each option: 'training.batch_size' by '--batch-size'."""
    return {_option_name(key): key for key in _flatten(config)}


def different_options(a: Config, b: Config) -> list[str]:
    """Return the names of the options in which two configurations differ."""
    theirs = _flatten(b)
    return [_option_name(key) for key, value in _flatten(a).items() if value != theirs[key]]


def train_command(config: Config, out: str) -> str:
    """Return the `sagan train` command that trains a run with this configuration in the folder `out`."""
    preset, differences = compare_with_preset(config)
    values = {_option_name(key): value for key, value in _flatten(config).items()}
    words = ["sagan", "train", "--preset", preset]
    for option, _, _ in differences:
        arguments = option_arguments(values[option])
        if arguments and arguments[0].startswith("-"):  # written apart, it would be parsed as an option
            words.append(f"{option}={arguments[0]}")
        else:
            words += [option, *arguments]
    return shlex.join([*words, "--out", out])


def option_arguments(value: Any) -> list[str]:
    """Return the arguments that give an option this value on the command line; a tuple gives several."""
    if not isinstance(value, tuple):
        return [str(value)]
    return [argument for part in value for argument in option_arguments(part)]


def _flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return every field of nested dataclasses by its path, e.g. 'training.steps'."""
    values: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        key = prefix + field.name
        values |= _flatten(value, f"{key}.") if is_dataclass(value) else {key: value}
    return values


def _option_name(key: str) -> str:
    renamed = {"data.source": "--data", "training.start": "--from"}
    return renamed.get(key) or "--" + key.rpartition(".")[2].replace("_", "-")


def _format(value: Any) -> str:
    return " ".join(option_arguments(value)) or "(none)"
