"""Ranges of the options."""

from dataclasses import dataclass, fields

import pytest

from sagan.config import EvaluationConfig, OutputConfig, TrainingConfig, check_ranges


@dataclass
class Options:
    count: int | None = 2
    seconds: float | None = 0.5


@pytest.mark.parametrize("options", [Options(), Options(count=None, seconds=None)])
def test_values_in_range_pass(options):
    check_ranges(options, minimum={"count": 2}, positive=("seconds",))


@pytest.mark.parametrize(
    ("options", "message"), [(Options(count=1), r"count\b.*\b2\b.*\b1\b"), (Options(seconds=0), r"seconds\b.*\b0\b")]
)
def test_a_value_out_of_range_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        check_ranges(options, minimum={"count": 2}, positive=("seconds",))


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (TrainingConfig, "steps", 0),
        (TrainingConfig, "generator_lr", 0.0),
        (TrainingConfig, "beta2", 1.0),
        (TrainingConfig, "ema_decay", 1.0),
        (TrainingConfig, "lr_decay_from", 1.5),
        (TrainingConfig, "r1", -1.0),
        (TrainingConfig, "seed", 2**31),
        (OutputConfig, "keep", 0),
        (OutputConfig, "evaluate_count", 1),
        (EvaluationConfig, "count", 1),
        (EvaluationConfig, "reference_count", -1),
        (EvaluationConfig, "truncation", 0.0),
        (EvaluationConfig, "resolution", 0),
    ],
)
def test_a_field_out_of_range_is_named(kind, name, value):
    assert name in {field.name for field in fields(kind)}
    with pytest.raises(ValueError, match=rf"{name}\b.*{value}"):
        kind(**{name: value})


def test_fields_that_depend_on_one_another():
    with pytest.raises(ValueError, match=r"accumulate\b.*\b10\b"):
        TrainingConfig(batch_size=10, accumulate=3)
    with pytest.raises(ValueError, match=r"freeze_discriminator\b.*--from\b"):
        TrainingConfig(freeze_discriminator=1)
    with pytest.raises(ValueError, match=r"resize\b.*legacy\b"):
        EvaluationConfig(features="efficientnet-lite0", resize="legacy")
