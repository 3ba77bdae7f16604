"""The command sagan train."""

import contextlib
import sys
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sagan.commands.arguments import DeviceOption, FolderOption
from sagan.config import BUILT_IN_FEATURES, Config
from sagan.errors import UserError
from sagan.presets import PRESETS, PresetName
from sagan.text import printable

if TYPE_CHECKING:
    from sagan.data import Store
    from sagan.distributed import Processes
    from sagan.run import Run


@dataclass(frozen=True)
class Train:
    """Train a generator on pictures.

    Start from a preset and override what you like: sagan train --preset small --data pictures/ --resolution 64.
    The data decide the number of classes. Ctrl-C saves; --resume goes on.
    """

    preset: PresetName = "small"
    """What the other options start from; their defaults below are this preset's."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Folder of a run to go on with, exactly as it was configured; other options are not taken."""
    out: FolderOption = None
    """Folder of the new run; default: runs/ and the date and time."""
    go_on: bool = False
    """Where --out holds this run already, go on with it: one command that starts, and starts again."""
    device: DeviceOption = "auto"
    config: Config = field(default_factory=lambda: PRESETS["small"])


def train(options: Train) -> None:
    """Runs `sagan train`."""
    from sagan.device import choose_algorithms
    from sagan.distributed import join
    from sagan.training.loop import train as train_run

    if _is_deterministic(options):  # training says so again, but cuBLAS has to know before CUDA starts
        choose_algorithms(deterministic=True)
    with join(options.device) as processes, contextlib.ExitStack() as held:
        now = f"runs/{datetime.now():%Y%m%d-%H%M%S}"
        out = options.resume or options.out or Path(processes.first(lambda: now))
        run, store = processes.in_turn(lambda: _open_run(options, out, processes, held))
        config = run.info.config
        classes = f"{store.num_classes} classes" if store.num_classes else "no classes"
        where = str(processes.device) if processes.count == 1 else f"{processes.count} x {processes.device.type}"
        if processes.is_first:
            print(f"{len(store)} pictures, {classes}, {config.model.resolution} px -> {run.path} on {where}")
        complete = train_run(run, store, processes)
        if not processes.is_first:
            return
        if complete:
            print(f"done: {run.samples_path}; more with: sagan sample {run.path}")
            if any(kind == "self" for _, kind in config.model.attention_at("generator")):
                from sagan.render.attention import write_attention

                figure, _ = write_attention(run.path, None, device=processes.device)
                print(f"what its last attention layer looks at: {figure}")
        else:
            print(f"stopped and saved; go on with: sagan train --resume {run.path}")


def _is_deterministic(options: Train) -> bool:
    """Whether the run to train is to repeat bit for bit; a folder to resume that is not a run is refused later."""
    from sagan.run import Run

    if options.resume is None:
        return options.config.training.deterministic
    with contextlib.suppress(UserError):
        return Run(options.resume).info.config.training.deterministic
    return False


def check_features(run: "Run", named: str) -> None:
    """Check that a run's config.json names no program to run for its evaluations, unless the command line does too.

    Args:
        named: --evaluate-features of this command line.

    Raises:
        UserError: the run measures with a TorchScript file, which the command line does not name.
    """
    features = run.info.config.output.evaluate_features
    if features not in (*BUILT_IN_FEATURES, named):
        raise UserError(
            f"{run.config_path} evaluates with the program {printable(features)}: to run it, if you trust it, name it "
            "again with --evaluate-features"
        )


def _open_run(options: Train, out: Path, processes: "Processes", held: contextlib.ExitStack) -> "tuple[Run, Store]":
    """The run to train, made by the first process if it is to be new, and its pictures; `held` keeps others out."""
    from sagan.data import prepare
    from sagan.data.diff import describe_changes
    from sagan.data.summary import list_skipped
    from sagan.device import choose_precision
    from sagan.distributed import check_batch
    from sagan.run import Run, RunInfo, only_training
    from sagan.training.finetune import check_source

    if options.go_on and options.out is None:
        raise UserError("--go-on is for a run in a folder that is known before: give it with --out")
    there = options.go_on and (out / "config.json").exists()
    run = Run(out) if options.resume or there or not processes.is_first else None
    if run:
        run.use_cache(options.config.data.cache)
        check_features(run, options.config.output.evaluate_features)
    config = run.info.config if run else options.config
    check_batch(config.training.batch_size, config.training.accumulate, processes)
    choose_precision(config.training.precision, processes.device)  # complains before there is a new run
    if run and run.info.origin:
        raise UserError(f"{run.path} was imported, so has no training to resume: start from it with --from {run.path}")
    if not config.data.source:
        raise UserError("--data is missing: give a folder of pictures, a .zip, hf:USER/NAME, robots or digits")
    store = prepare(config.data, resolution=config.model.resolution, image_channels=config.model.image_channels)
    if run is None:
        if store.skipped:
            print(list_skipped(store.skipped), file=sys.stderr)
        model = replace(config.model, num_classes=store.num_classes)
        if config.training.start:
            check_source(config.training.start, model, config.training.freeze_discriminator)
        info = RunInfo(replace(config, model=model), store.class_names, store.key)
    elif store.key != run.info.data_key:
        changed = describe_changes(run.info.data_key, store)
        raise UserError(
            f"{config.data.source} has changed since {run.path} was started ({changed}): "
            f"put it back, or train on what is there now with --from {run.path} --data {config.data.source}"
        )
    elif (
        there and replace(options.config, model=replace(options.config.model, num_classes=store.num_classes)) != config
    ):
        raise UserError(f"{run.path} holds a run of other options: give those of its config.json, or another --out")
    if processes.is_first:
        held.enter_context(only_training(out))
    return run or Run.create(out, info), store
