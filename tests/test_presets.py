"""The command that `train_command` writes gives the same configuration again, for presets and for every option."""

import shlex
from dataclasses import fields, is_dataclass, replace
from typing import get_args

import pytest

from sagan import PRESETS, Config, DataConfig, ModelConfig, OutputConfig, TrainingConfig
from sagan.cli import COMMANDS
from sagan.presets import PresetName, compare_with_preset, option_arguments, train_command

CHANGED = Config(
    data=DataConfig(crop="pad", source="-my 'images'; rm", labels=False, background=(1, 2, 3), robots=7, flips=True),
    model=ModelConfig(
        resolution=64,
        upsampling="linear",
        generator_attention=((32, "self"), (16, "channel")),
        discriminator_attention=(),
        attention_variant="full",
        value_reduction=4,
        discriminator_spectral_norm=False,
    ),
    training=TrainingConfig(
        start="runs/a run",
        freeze_discriminator=1,
        steps=7,
        batch_size=10,
        accumulate=5,
        discriminator_steps=2,
        loss="wasserstein",
        generator_lr=3e-5,
        discriminator_lr=0.25,
        beta1=0.25,
        beta2=0.5,
        lr_decay_from=0.25,
        ema_decay=0.125,
        ema_start=3,
        sync_batch_norm=True,
        augment=("cutout",),
        r1=0.1,
        r2=0.2,
        gradient_penalty=10.0,
        penalty_every=3,
        lecam=0.3,
        guide=0.2,
        precision="bf16",
        deterministic=True,
        cuda_graph=True,
        compile=True,
        seed=9,
    ),
    output=OutputConfig(
        log_every=2,
        sample_every=3,
        checkpoint_every=4,
        keep=5,
        evaluate_every=6,
        evaluate_count=8,
        evaluate_features="my features.pt",
    ),
)
NO_AUGMENTATION = replace(PRESETS["small"], training=replace(PRESETS["small"].training, augment=()))


@pytest.fixture
def parse(command, monkeypatch):
    """Parse a `sagan train` command with the parser of the command line, without training."""

    def parse(line, networks):
        words = shlex.split(line)
        assert words[:2] == ["sagan", "train"]
        parsed = []
        monkeypatch.setitem(COMMANDS, "train", (COMMANDS["train"][0], parsed.append))
        # There is no run to start --from; it would have networks of this shape, since others are refused.
        monkeypatch.setattr("sagan.training.finetune.read_model", lambda start: networks)
        assert command(*words[1:]) == (0, "", "")
        return parsed[0]

    return parse


def leaves(config, prefix=""):
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


@pytest.mark.parametrize("config", [*PRESETS.values(), Config(), CHANGED, NO_AUGMENTATION])
def test_the_command_gives_the_configuration_again(parse, config):
    config = replace(config, data=replace(config.data, cache="/somewhere"))
    options = parse(train_command(config, "runs/my run"), networks=config.model)
    assert str(options.out) == "runs/my run"
    # The cache folder belongs to the machine, the number of classes to the data.
    model = replace(options.config.model, num_classes=config.model.num_classes)
    assert replace(options.config, model=model, data=replace(options.config.data, cache="/somewhere")) == config


@pytest.mark.parametrize("start", ["", "runs/a run"])
def test_changed_options_come_back_with_and_without_networks_to_start_from(parse, start):
    training = replace(CHANGED.training, start=start, freeze_discriminator=1 if start else 0)
    config = replace(CHANGED, training=training, model=replace(CHANGED.model, num_classes=0))
    assert parse(train_command(config, "x"), networks=config.model).config == config


def test_every_option_of_training_data_and_output_is_changed_above():
    """So that a new option without a way back from the command line fails here."""
    defaults = dict(leaves(Config()))
    same = {name for name, value in leaves(CHANGED) if value == defaults[name] and not name.startswith("model.")}
    assert same == {"data.cache"}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_s_command_names_only_the_preset(name):
    assert train_command(PRESETS[name], "x") == f"sagan train --preset {name} --out x"
    assert compare_with_preset(PRESETS[name]) == (name, [])


def test_the_nearest_preset_and_what_differs():
    config = PRESETS["demo"]
    config = replace(config, training=replace(config.training, steps=300), model=replace(config.model, num_classes=2))
    assert compare_with_preset(config) == ("demo", [("--steps", "300", "1700")])
    assert compare_with_preset(NO_AUGMENTATION) == ("small", [("--augment", "(none)", "color translation cutout")])


def test_the_names_of_presets_are_those_of_the_option():
    assert get_args(PresetName) == tuple(PRESETS)


@pytest.mark.parametrize(
    ("value", "arguments"),
    [(1e-8, ["1e-08"]), (None, ["None"]), ((), []), (((32, "self"), (16, "channel")), ["32", "self", "16", "channel"])],
)
def test_arguments_of_values(value, arguments):
    assert option_arguments(value) == arguments
