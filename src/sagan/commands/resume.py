"""What `sagan train --resume` and `--go-on` accept: --steps, and where data and machine are. The rest is the run's."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sagan.config import BUILT_IN_FEATURES, Config
from sagan.errors import UserError
from sagan.text import printable

if TYPE_CHECKING:
    from sagan.run import Run

ACCEPTED = ("--steps", "--budget", "--data", "--device", "--cache", "--evaluate-features", "--dry-run")
"""Options that may stand next to --resume."""


def check_options(given: Sequence[str]) -> None:
    """Check that a command line with --resume names no option that would change the run.

    Raises:
        UserError: it does; the message names the options.
    """
    refused = [option for option in given if option not in ("--resume", *ACCEPTED)]
    if refused:
        raise UserError(
            f"{', '.join(refused)}: --resume continues a run as it was configured, and accepts only "
            f"{', '.join(ACCEPTED)} next to it; to change the run, start a new one from it with --from"
        )


def check_features(run: "Run", named: str, *, given: bool) -> None:
    """Check that a run's config.json names no program to run for its evaluations, unless the command line does too.

    Args:
        run: the run to resume.
        named: --evaluate-features of this command line, absolute.
        given: whether it stands there, or is the default.

    Raises:
        UserError: the run measures with a TorchScript file, which the command line does not name, or the command line
            names other features.
    """
    features = run.info.config.output.evaluate_features
    if features not in (*BUILT_IN_FEATURES, named):
        raise UserError(
            f"{run.config_path} evaluates with the program {printable(features)}: to run it, if you trust it, name it "
            "again with --evaluate-features"
        )
    if given and named != features:
        raise UserError(f"--evaluate-features {named}: {run.path} was started with {printable(features)}, which stays")


def check_same(run: "Run", config: Config) -> None:
    """Check that the options of a command line with --go-on are those of the run, apart from what may differ.

    Raises:
        UserError: they are not; the message names them.
    """
    from sagan.presets import different_options

    allowed = {"--num-classes", *ACCEPTED}  # the number of classes follows from the data
    differences = [name for name in different_options(config, run.info.config) if name not in allowed]
    if differences:
        raise UserError(
            f"{run.path} contains a run with other options ({', '.join(differences)}): pass those of its config.json, "
            "or choose another --out"
        )


def steps_done(run: "Run") -> int:
    """Return the step of a run's newest checkpoint, 0 without one."""
    from sagan.run import step_of_file

    checkpoints = run.checkpoints()
    return step_of_file(checkpoints[-1]) if checkpoints else 0


def change_steps(run: "Run", steps: int) -> tuple[Config, str]:
    """Return the configuration of a run that continues to another number of steps, and a line about it.

    The learning rates are then those of a run started with that number of steps.

    Raises:
        UserError: the run has done more steps.
    """
    config = run.info.config
    before = config.training.steps
    done = steps_done(run)
    if steps < done:
        raise UserError(
            f"--steps {steps}: {run.path} has done {done} steps already: pass at least as many, or start a new run "
            "from an earlier checkpoint with --from"
        )
    line = f"continuing to {steps:,} steps, not {before:,}"
    decay = config.training.lr_decay_from
    if decay < 1:
        line += (
            f"; learning rates follow the schedule of a run started with {steps:,} steps, which decays from step "
            f"{math.ceil(decay * steps):,} on"
        )
        if steps > before and done > decay * before:
            line += ": they rise again"
    return replace(config, training=replace(config.training, steps=steps)), line
