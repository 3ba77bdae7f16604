"""The command `sagan train`."""

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
    """Train a generator on images.

    A preset sets all options, and each can be overridden: sagan train --preset small --data images/ --resolution 64.
    The number of classes follows from the data. Ctrl-C saves a checkpoint and stops; --resume resumes the run.
    """

    preset: PresetName = "small"
    """Preset that sets the defaults of all options below."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="")] = None
    """Folder of a run to resume, exactly as it was configured; options other than --device are ignored."""
    out: FolderOption = None
    """Folder of the new run; default: runs/DATE-TIME."""
    go_on: bool = False
    """If --out already contains this run, resume it (for requeued jobs)."""
    device: DeviceOption = "auto"
    config: Config = field(default_factory=lambda: PRESETS["small"])


def train(options: Train) -> None:
    """Run `sagan train`."""
    from sagan.device import choose_algorithms
    from sagan.distributed import join
    from sagan.training.loop import train as train_run

    if _is_deterministic(options):  # again in training, but cuBLAS needs it before CUDA starts
        choose_algorithms(deterministic=True)
    with join(options.device) as processes, contextlib.ExitStack() as locks:
        now = f"runs/{datetime.now():%Y%m%d-%H%M%S}"
        out = options.resume or options.out or Path(processes.first(lambda: now))
        run, store = processes.in_turn(lambda: _open_run(options, out, processes, locks))
        config = run.info.config
        classes = f"{store.num_classes} classes" if store.num_classes else "no classes"
        where = str(processes.device) if processes.count == 1 else f"{processes.count} x {processes.device.type}"
        if processes.is_first:
            print(f"{len(store)} images, {classes}, {config.model.resolution} px -> {run.path} on {where}")
        complete = train_run(run, store, processes)
        if not processes.is_first:
            return
        if complete:
            print(f"done: {run.samples_path}; more with: sagan sample {run.path}")
            if any(kind == "self" for _, kind in config.model.attention_at("generator")):
                from sagan.render.attention import write_attention

                figure, _ = write_attention(run.path, None, device=processes.device)
                print(f"attention maps of the last layer: {figure}")
        else:
            print(f"stopped and saved; resume with: sagan train --resume {run.path}")


def _is_deterministic(options: Train) -> bool:
    """Return whether the run is to be deterministic. A folder to resume that is not a run is refused later."""
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


def _open_run(options: Train, out: Path, processes: "Processes", locks: contextlib.ExitStack) -> "tuple[Run, Store]":
    """Open or create the run to train, and its images.

    The first process creates a new run, and locks its folder in `locks`.

    Raises:
        UserError: options, run and data do not fit together, or another process is training the run.
    """
    from sagan.data import prepare
    from sagan.data.diff import describe_changes
    from sagan.data.summary import list_skipped
    from sagan.device import choose_precision
    from sagan.distributed import check_batch
    from sagan.run import Run, RunInfo, lock_for_training
    from sagan.trained import shipped_name
    from sagan.training.finetune import check_source

    if options.go_on and options.out is None:
        raise UserError("--go-on requires --out, the folder of the run to resume")
    resumes_out = options.go_on and (out / "config.json").exists()
    run = Run(out) if options.resume or resumes_out or not processes.is_first else None
    if run and shipped_name(run.path):
        raise UserError(f"{out} has no training to resume: start a new run with --from {out}")
    if run:
        run.use_cache(options.config.data.cache)
        check_features(run, options.config.output.evaluate_features)
    config = run.info.config if run else options.config
    check_batch(config.training.batch_size, config.training.accumulate, processes)
    choose_precision(config.training.precision, processes.device)  # raises before a new run is created
    if run and run.info.origin:
        raise UserError(
            f"{run.path} was imported, so it has no training to resume: start a new run with --from {run.path}"
        )
    if not config.data.source:
        raise UserError("--data is missing: pass a folder of images, a .zip, hf:USER/NAME, robots, twins or digits")
    store = prepare(config.data, resolution=config.model.resolution, image_channels=config.model.image_channels)
    if run is None:
        if store.skipped:
            print(list_skipped(store.skipped), file=sys.stderr)
        model = replace(config.model, num_classes=store.num_classes)
        if config.training.start:
            check_source(config.training.start, model, config.training.freeze_discriminator)
        info = RunInfo(replace(config, model=model), store.class_names, store.key)
    elif store.key != run.info.data_key:
        changes = describe_changes(run.info.data_key, store)
        raise UserError(
            f"{config.data.source} has changed since {run.path} was started ({changes}): restore it, "
            f"or start a new run on the changed data with --from {run.path} --data {config.data.source}"
        )
    elif (
        resumes_out
        and replace(options.config, model=replace(options.config.model, num_classes=store.num_classes)) != config
    ):
        raise UserError(
            f"{run.path} contains a run with other options: pass those of its config.json, or choose another --out"
        )
    if processes.is_first:
        locks.enter_context(lock_for_training(out))
    return run or Run.create(out, info), store
