"""What a run's configuration says to readers elsewhere: without the folders of the machine that trained it."""

from dataclasses import replace
from pathlib import Path

from sagan.run import RunInfo


def public_info(info: RunInfo) -> RunInfo:
    """Remove the folders of the training machine from a run's configuration."""
    config = info.config
    data = replace(config.data, source=public_name(config.data.source), cache="")
    training = replace(config.training, start=public_name(config.training.start))
    output = replace(config.output, evaluate_features=Path(config.output.evaluate_features).name)
    return replace(info, config=replace(config, data=data, training=training, output=output))


def public_name(source: str) -> str:
    """Return the last component of a path; the name of a Hub data set (hf:...) is returned unchanged."""
    return source if source.startswith("hf:") else Path(source).name
