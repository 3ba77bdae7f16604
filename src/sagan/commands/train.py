"""The command `sagan train`."""

import contextlib
import sys
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sagan.commands.arguments import DeviceOption, FolderOption
from sagan.commands.resume import change_steps, check_features, check_options, check_same
from sagan.config import Config
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
    """Folder of a run to resume as it was configured; --steps N continues it to N, --data names data that moved."""
    out: FolderOption = None
    """Folder of the new run; default: runs/DATE-TIME."""
    go_on: bool = False
    """If --out already contains this run, resume it (for requeued jobs)."""
    device: DeviceOption = "auto"
    config: Config = field(default_factory=lambda: PRESETS["small"])
    given: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Names of the options on the command line."""


def train(options: Train) -> None:
    """Run `sagan train`."""
    from sagan.device import choose_algorithms
    from sagan.distributed import join
    from sagan.run import read_generator
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
            step = read_generator(run.path)[2]
            best = "" if step == config.training.steps else f", the best of {config.training.steps:,}"
            print(f"done: {run.samples_path} (step {step:,}{best}); more of it with: sagan sample {run.path}")
            if any(kind == "self" for _, kind in config.model.attention_at("generator")):
                from sagan.render.attention import write_attention

                figure, _ = write_attention(run.path, None, device=processes.device)
                print(f"attention maps of the last layer, step {step:,}: {figure}")
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


def _open_run(options: Train, out: Path, processes: "Processes", locks: contextlib.ExitStack) -> "tuple[Run, Store]":
    """Open or create the run to train, and its images.

    The first process creates a new run, or changes the steps or the source of one that is resumed; it locks the run's
    folder in `locks`.

    Raises:
        UserError: options, run and data do not fit together, or another process is training the run.
    """
    from sagan.data import prepare
    from sagan.data.summary import list_skipped
    from sagan.device import choose_precision
    from sagan.distributed import check_batch
    from sagan.locate import absolute_features, absolute_paths, check_present
    from sagan.run import Run, RunInfo, lock_for_training
    from sagan.trained import shipped_name
    from sagan.training.finetune import check_source

    # Find the run to resume, if any, and its configuration.
    if options.go_on and options.out is None and not options.resume:
        raise UserError("--go-on requires --out, the folder of the run to resume")
    if options.resume:
        check_options(options.given)
    resumes_out = options.go_on and (out / "config.json").exists()
    run = Run(out) if options.resume or resumes_out or not processes.is_first else None
    if run and shipped_name(run.path):
        raise UserError(f"{out} has no training to resume: start a new run with --from {out}")
    lines: list[str] = []
    if run:
        run.use_cache(options.config.data.cache)
        named = absolute_features(options.config.output.evaluate_features)
        check_features(run, named, given="--evaluate-features" in options.given)
        config, lines = _continued(options, run)
        if resumes_out:
            check_same(run, absolute_paths(options.config))
    else:
        config = absolute_paths(options.config)
    check_batch(config.training.batch_size, config.training.accumulate, processes)
    choose_precision(config.training.precision, processes.device)  # raises before a new run is created
    if not config.data.source:
        raise UserError("--data is missing: pass a folder of images, a .zip, hf:USER/NAME, robots, twins or digits")
    if run:
        check_present(config.data.source, "name the moved data with --data")

    # Open the images, and check that they are the run's.
    store = prepare(config.data, resolution=config.model.resolution, image_channels=config.model.image_channels)
    if run is None:
        if store.skipped:
            print(list_skipped(store.skipped), file=sys.stderr)
        for note in store.notes:
            print(f"note: {note}", file=sys.stderr)
        model = replace(config.model, num_classes=store.num_classes)
        if config.training.start:
            check_source(config.training.start, model, config.training.freeze_discriminator)
        info = RunInfo(replace(config, model=model), store.class_names, store.key)
    else:
        _check_data(run, config, store)

    # Write the configuration, after everything was checked.
    if processes.is_first:
        locks.enter_context(lock_for_training(out))
        if run and config != run.info.config:
            run.reconfigure(config)
            for line in lines:
                print(line)
    return run or Run.create(out, info), store


def _continued(options: Train, run: "Run") -> tuple[Config, list[str]]:
    """Return the configuration with which a run is resumed, and a line for each change.

    Raises:
        UserError: the run was imported, or has done more steps than --steps.
    """
    from sagan.locate import absolute_source

    if run.info.origin:
        raise UserError(
            f"{run.path} was imported, so it has no training to resume: start a new run with --from {run.path}"
        )
    config, lines = run.info.config, []
    if ("--steps" in options.given or options.go_on) and options.config.training.steps != config.training.steps:
        config, line = change_steps(run, options.config.training.steps)
        lines.append(line)
    source = absolute_source(options.config.data.source)
    if "--data" in options.given and source != config.data.source:
        config = replace(config, data=replace(config.data, source=source))
        lines.append(f"the data are the same in {printable(source)}")
    return config, lines


def _check_data(run: "Run", config: Config, store: "Store") -> None:
    """Check that images are those that a run was started with.

    Raises:
        UserError: they are not.
    """
    from sagan.data.diff import describe_changes

    if store.key == run.info.data_key:
        return
    source, changes = printable(config.data.source), describe_changes(run.info.data_key, store)
    if config.data.source != run.info.config.data.source:
        raise UserError(f"--data {source} is not what {run.path} was started with ({changes}): name the same images")
    raise UserError(
        f"{source} has changed since {run.path} was started ({changes}): restore it, "
        f"or start a new run on the changed data with --from {run.path} --data {source}"
    )
