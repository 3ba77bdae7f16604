"""Train from Python: `sagan.train` is `sagan train` with the same options by name."""

import difflib
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from sagan.api.run import Run
from sagan.commands.train import Train, default_config
from sagan.commands.train import train as train_command
from sagan.config import Config
from sagan.locate import expand_options
from sagan.parsing import CheckedConfig, first_problem
from sagan.presets import PresetName, option_paths

if TYPE_CHECKING:
    from sagan.training.recorder import Callback

_OF_COMMAND = ("go_on", "budget", "device")  # options of the command itself that are passed on, next to named ones


def train(
    data: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    preset: PresetName | None = None,
    steps: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    callback: "Callback | None" = None,
    **options: Any,
) -> Run:
    """Train a generator on images, as `sagan train` does, and return the run.

    Shows a progress bar; what `sagan train` prints before and after is in the run. Ctrl-C, or a notebook's interrupt,
    saves after the current step and stops: the run is then returned, and `resume` continues it.

    Args:
        data: source of the images: a folder, a .zip, tar shards, hf:USER/NAME, robots, twins or digits.
        out: folder of the new run; None: runs/DATE-TIME.
        preset: 'demo', 'small', 'imagenet128' or 'paper128', which sets the defaults of all options; None: small.
        steps: total number of steps; None: the preset's, or those of the run to resume.
        resume: folder of a run to resume as it was configured, to `steps` if they are given; no other option that would
            change it is accepted.
        callback: called as callback(step, metrics) for every line of the metrics log, with its values by name. If it
            returns True, training stops after the next step, which is saved.
        options: all other options of `sagan train`, with underscores: `batch_size=16`, `augment=["color"]`,
            `generator_attention=[(32, "self")]`, `budget="1h"`, `device="cpu"`; `from_` for --from.

    Raises:
        ValueError: an option is unknown or out of its range, or run, data and options do not fit together. Messages of
            the latter kind name options as the command line does.
    """
    named = {"data": data, "out": out, "preset": preset, "steps": steps, "resume": resume}
    chosen = {name: _plain(value) for name, value in named.items() if value is not None}
    chosen |= {name.rstrip("_"): _plain(value) for name, value in options.items()}
    config = default_config(preset or "small", chosen.get("from", ""))
    paths = {_python_name(option): path for option, path in option_paths(config).items()}
    own = {name: chosen[name] for name in _OF_COMMAND if name in chosen}
    _check_names(chosen, [*paths, *named, *_OF_COMMAND])
    changes = {path: chosen[name] for name, path in paths.items() if name in chosen}
    command = Train(
        preset=preset or "small",
        resume=Path(resume) if resume is not None else None,
        out=Path(out) if out is not None else None,
        config=_configure(config, changes),
        given=tuple(f"--{name.replace('_', '-')}" for name in chosen),
        **own,
    )
    return Run(train_command(expand_options(command), callback, lambda lines: None))


def _plain(value: Any) -> Any:
    """Return a path as text, and a number of NumPy as Python's."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if isinstance(value, np.generic) else value


def _python_name(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


def _check_names(chosen: dict[str, Any], known: list[str]) -> None:
    for name in chosen:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            advice = f"did you mean {near[0]}?" if near else "sagan train --help lists them"
            raise ValueError(f"{name} is not an option of sagan.train: {advice}")


def _configure(config: Config, changes: dict[str, Any]) -> Config:
    """Return a configuration with other values of options, by their paths, checked.

    Raises:
        ValueError: a value is of another type, or out of its range.
    """
    values: dict[str, Any] = asdict(config)
    for path, value in changes.items():
        section, _, field = path.partition(".")
        values[section][field] = value
    try:
        changed: Config = TypeAdapter(CheckedConfig).validate_python(values)
    except ValidationError as error:
        where, message, _ = first_problem(error)
        options = {path: _python_name(option) for option, path in option_paths(config).items()}
        option = next((name for path, name in options.items() if f"{where}.".startswith(f"{path}.")), "")
        raise ValueError(f"{option}: {message}" if option else message) from None
    return changed
