"""The command `sagan train`."""

import contextlib
import math
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sagan.commands.arguments import DeviceOption, Flag, FolderOption
from sagan.commands.resume import change_steps, check_features, check_options, check_same, steps_done
from sagan.config import Config
from sagan.errors import UserError
from sagan.files import expand_home
from sagan.presets import PRESETS, PresetName
from sagan.text import format_time, printable

if TYPE_CHECKING:
    from sagan.data import Store
    from sagan.distributed import Processes
    from sagan.run import Run
    from sagan.training.recorder import Callback
    from sagan.training.speed import Speed


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
    budget: Annotated[str, tyro.conf.arg(metavar="TIME", help_behavior_hint="")] = ""
    """Time to train, such as 1h or 30m, which sets the steps by the speed measured here; of --resume, added time."""
    dry_run: Flag = 0
    """Say what would be trained, with speed, memory and time measured here, and stop; no run is written."""
    device: DeviceOption = "auto"
    config: Config = field(default_factory=lambda: PRESETS["small"])
    given: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Names of the options on the command line."""


def default_config(preset: PresetName, start: str | Path = "") -> Config:
    """Return the configuration of a preset, with the architecture of the networks that --from names.

    Raises:
        UserError: there is no such preset, or there are no such networks.
    """
    if preset not in PRESETS:
        raise UserError(f"preset must be one of {', '.join(PRESETS)}, got {preset}")
    if not start:
        return PRESETS[preset]
    from sagan.training.finetune import read_model

    return replace(PRESETS[preset], model=read_model(expand_home(start)))


def train(options: Train, callback: "Callback | None" = None, tell: Callable[[str], object] = print) -> Path:
    """Run `sagan train` or `sagan.train`; returns the run's folder.

    Args:
        options: of the command line.
        callback: called with a step and the values logged there; True from it stops training after the next step.
        tell: called with what will be trained and, at the end, with the result, in lines.
    """
    from sagan.device import choose_algorithms
    from sagan.distributed import join
    from sagan.training.announce import describe_plan, describe_result
    from sagan.training.loop import train as train_run

    budget = _read_budget(options)
    if _is_deterministic(options):  # again in training, but cuBLAS needs it before CUDA starts
        choose_algorithms(deterministic=True)
    with join(options.device) as processes, contextlib.ExitStack() as locks:
        # Plan the run: nothing is written yet.
        now = f"runs/{datetime.now():%Y%m%d-%H%M%S}"
        out = options.resume or options.out or Path(processes.first(lambda: now))
        plan = processes.in_turn(lambda: _plan_run(options, out, processes))
        speed = None
        if options.dry_run or (budget and not plan.resumes_out):
            plan, speed = _try_out(plan, budget, processes)
        if processes.is_first:
            if plan.lines:
                tell("\n".join(plan.lines))
            tell(describe_plan(out, plan.config, plan.store, processes, done=plan.done, speed=speed))
        if options.dry_run:
            return out

        # Train it.
        run = processes.in_turn(lambda: _open_run(plan, out, processes, locks))
        complete = train_run(run, plan.store, processes, callback)
        if processes.is_first and complete:
            figure = None
            if any(kind == "self" for _, kind in run.info.config.model.attention_at("generator")):
                from sagan.render.attention import write_attention

                figure, _ = write_attention(run.path, None, device=processes.device)
            tell(describe_result(run, run.generator_step(), figure))
        elif processes.is_first:
            tell(f"stopped and saved; resume with: sagan train --resume {shlex.quote(str(run.path))}")
    return out


def _read_budget(options: Train) -> float | None:
    """Return the seconds of --budget; None without one.

    Raises:
        UserError: it is not a time, or --steps stands next to it.
    """
    from sagan.training.speed import seconds

    if not options.budget:
        return None
    if "--steps" in options.given:
        raise UserError("--budget chooses the steps: pass either --budget or --steps")
    return seconds(options.budget)


def _is_deterministic(options: Train) -> bool:
    """Return whether the run is to be deterministic. A folder to resume that is not a run is refused later."""
    from sagan.run import Run

    if options.resume is None:
        return options.config.training.deterministic
    with contextlib.suppress(UserError):
        return Run(options.resume).info.config.training.deterministic
    return False


@dataclass(frozen=True)
class _Plan:
    """A run to create or to resume, checked, with its images."""

    config: Config
    """As it will be; of a new run, its number of classes is that of the data."""
    store: "Store"
    run: "Run | None"
    """The run to resume; None: a new one."""
    resumes_out: bool
    """Whether --go-on found the run."""
    done: int = 0
    """Steps of its newest checkpoint."""
    lines: tuple[str, ...] = ()
    """A line for each change of the configuration."""


def _plan_run(options: Train, out: Path, processes: "Processes") -> _Plan:
    """Find the run to resume, if any, and the images, and check that options, run and data fit together.

    Raises:
        UserError: they do not.
    """
    from sagan.data import prepare
    from sagan.data.sources import refuse_data_folder
    from sagan.data.summary import list_skipped
    from sagan.device import choose_precision
    from sagan.distributed import check_batch
    from sagan.locate import absolute_features, absolute_paths, check_present
    from sagan.run import Run, refuse_second_run
    from sagan.trained import shipped_name
    from sagan.training.finetune import check_source
    from sagan.training.guide import why_not_guided

    # Find the run to resume, if any, and its configuration.
    if options.go_on and options.out is None and not options.resume:
        raise UserError("--go-on requires --out, the folder of the run to resume")
    if options.resume:
        check_options(options.given)
    wanted, lines = (options.config, []) if options.resume else _without_missing_guide(options)
    exists = (out / "config.json").exists()
    resumes_out = options.go_on and exists
    run = Run(out) if options.resume or resumes_out else None
    if run and shipped_name(run.path):
        raise UserError(f"{out} has no training to resume: start a new run with --from {out}")
    if run:
        run.use_cache(options.config.data.cache)
        named = absolute_features(options.config.output.evaluate_features)
        check_features(run, named, given="--evaluate-features" in options.given)
        config, lines = _continued(options, run)
        if config.training.guide and (missing := why_not_guided()):
            raise UserError(f"{run.path} was trained with a guide: {missing}")
        if resumes_out:
            check_same(run, absolute_paths(wanted))
    else:
        config = absolute_paths(wanted)
    check_batch(config.training.batch_size, config.training.accumulate, processes)
    # What is missing raises before a new run is created.
    choose_precision(config.training.precision, processes.device)
    if not config.data.source:
        raise UserError("--data is missing: pass a folder of images, a .zip, hf:USER/NAME, robots, twins or digits")
    if run:
        check_present(config.data.source, "name the moved data with --data")
    elif exists:
        refuse_second_run(out)
    else:
        refuse_data_folder(out, config.data.source)

    # Open the images, and check that they are the run's.
    store = prepare(config.data, resolution=config.model.resolution, image_channels=config.model.image_channels)
    if run:
        _check_data(run, config, store)
        return _Plan(config, store, run, resumes_out, steps_done(run), tuple(lines))
    store.check_trainable()
    if processes.is_first:
        if store.skipped:
            print(list_skipped(store.skipped), file=sys.stderr)
        for note in store.notes:
            print(f"note: {note}", file=sys.stderr)
    model = replace(config.model, num_classes=store.num_classes)
    if config.training.start:
        check_source(config.training.start, model, config.training.freeze_discriminator)
    return _Plan(replace(config, model=model), store, None, resumes_out, lines=tuple(lines))


def _without_missing_guide(options: Train) -> tuple[Config, list[str]]:
    """Return the configuration asked for, without the preset's guide if its packages are missing, which a line says.

    Raises:
        UserError: they are missing, and --guide is on the command line.
    """
    from sagan.training.guide import why_not_guided

    config = options.config
    missing = why_not_guided() if config.training.guide else None
    if missing is None:
        return config, []
    if "--guide" in options.given:
        raise UserError(f"--guide: {missing}; --guide 0 trains without")
    without = replace(config, training=replace(config.training, guide=0.0))
    return without, [f"training goes without the preset's guide: {missing}"]


def _try_out(plan: _Plan, budget: float | None, processes: "Processes") -> "tuple[_Plan, Speed]":
    """Measure the speed of a planned run, and return the plan with the steps that fit the budget, if there is one.

    Raises:
        UserError: not one step fits the budget.
    """
    from sagan.training.speed import fitting_steps, try_out

    since = time.perf_counter()
    if processes.is_first and (not budget or budget > 60):  # on a slow machine nothing else would be seen for minutes
        print("measuring the speed of training, usually for less than two minutes ...", file=sys.stderr, flush=True)
    speed = try_out(plan.config, plan.store, processes, budget=budget or math.inf)
    if not budget:
        return plan, speed
    spent = processes.first(lambda: time.perf_counter() - since)
    every = plan.config.output.evaluate_every if speed.evaluation else 0
    steps = plan.done + fitting_steps(budget, speed, every, spent=spent)
    line = f"--budget: {steps - plan.done:,} steps fit {format_time(budget)}"
    if plan.run:
        config, changed = change_steps(plan.run, steps)
        return replace(
            plan, config=replace(plan.config, training=config.training), lines=(*plan.lines, line, changed)
        ), speed
    training = replace(plan.config.training, steps=steps)
    return replace(plan, config=replace(plan.config, training=training), lines=(*plan.lines, line)), speed


def _open_run(plan: _Plan, out: Path, processes: "Processes", locks: contextlib.ExitStack) -> "Run":
    """Create the planned run, or write the changed configuration of the one that is resumed; the first process writes.

    It locks the run's folder in `locks`.

    Raises:
        UserError: another process is training the run, or its folder cannot be written.
    """
    from sagan.run import Run, RunInfo, lock_for_training

    cache = plan.config.data.cache
    if not processes.is_first:
        run = Run(out)
        run.use_cache(cache)
        return run
    locks.enter_context(lock_for_training(out))
    if plan.run is None:
        return Run.create(out, RunInfo(plan.config, plan.store.class_names, plan.store.key))
    if plan.config != plan.run.info.config:
        plan.run.reconfigure(plan.config)
    return plan.run


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
    steps_given = "--steps" in options.given or (options.go_on and not options.budget)
    if steps_given and options.config.training.steps != config.training.steps:
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
    from sagan.data.diff import describe_changes, is_unchanged

    if is_unchanged(run.info.data_key, store):
        return
    source, changes = printable(config.data.source), describe_changes(run.info.data_key, store)
    if config.data.source != run.info.config.data.source:
        raise UserError(f"--data {source} is not what {run.path} was started with ({changes}): name the same images")
    raise UserError(
        f"{source} has changed since {run.path} was started ({changes}): restore it, "
        f"or start a new run on the changed data with --from {run.path} --data {source}"
    )
