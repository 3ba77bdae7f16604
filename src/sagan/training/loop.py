"""The training loop: steps, and between them the log, the grids, the evaluations and the checkpoints."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from sagan.config import Config, OutputConfig
from sagan.data import Batches, Prefetcher, Store
from sagan.data.remote import Unreachable
from sagan.data.store import cache_folder
from sagan.errors import UserError
from sagan.figures.grid import animate, draw_grid, read, save
from sagan.metrics.features import open_features
from sagan.metrics.monitor import Monitor
from sagan.model.generator import Generator
from sagan.run import Run, best_step
from sagan.sampling import draw_latents, sample
from sagan.training.checkpoint import load_checkpoint, load_newest, save_checkpoint
from sagan.training.health import find_problems
from sagan.training.log import MetricsLog
from sagan.training.machine import enough_memory, keep_memory
from sagan.training.processes import Processes
from sagan.training.progress import Bar
from sagan.training.recovery import Retries, Watch
from sagan.training.step import Trainer
from sagan.training.transfer import start_from

MOST_FRAMES = 60  # of the animation
GRID_COLUMNS = 8
GRID_ROWS = 12  # classes beyond that are left out of the grids


def train(run: Run, store: Store, processes: Processes) -> bool:
    """Trains a run to its last step, going on from its newest checkpoint if it has one.

    SIGINT or SIGTERM end it after the step in hand, saved; a second one at once. Returns whether it is complete. All
    processes call this; the first one writes, and a signal to one ends all.

    Raises:
        UserError: nothing usable to go on from, or the disk refuses a write. What was saved before is whole.
    """
    keep_memory()
    torch.backends.cudnn.benchmark = True  # shapes stay the same: the quickest kernels are worth looking for
    config, device, writes = run.info.config, processes.device, processes.is_first
    if writes:
        run.sweep()
    trainer, step = open_trainer(run, processes)
    rank, count = processes.rank, processes.count
    order = Batches(
        store, config.training.batch_size, seed=config.training.seed, flips=config.data.flips, rank=rank, count=count
    )
    batches = Prefetcher(order, device)
    monitor = open_monitor(config, store, processes)
    log = MetricsLog(run, step, writes=writes)
    chance_loss = trainer.chance_loss()
    problems = find_problems(log.rows, chance_loss)
    total = config.training.steps
    pictures = config.training.batch_size
    watch, retries = Watch(), Retries()
    bar = Bar(
        total=total * pictures,
        initial=step * pictures,
        unit="images",
        unit_scale=True,
        desc="training",
        disable=not writes,
    )
    try:
        with bar, enough_memory(), interruptible(tell=writes) as interrupted:
            logged, since = step, time.perf_counter()
            while step < total:
                last = step + 1 == total
                measure = last or _due(step + 1, config.output.log_every)
                sampled = last or _due(step + 1, config.output.sample_every)
                evaluated = monitor is not None and (last or _due(step + 1, config.output.evaluate_every))
                try:
                    values = trainer.step(step, batches, measure=measure)
                except Unreachable:  # before anything of this step was done, unless the discriminator takes several
                    at_rest = step and config.training.discriminator_steps == 1
                    if writes and at_rest and not watch.problem(trainer):
                        save_state(run, trainer, step, best_step(log.rows))
                    raise
                step += 1
                stop = processes.any(interrupted())
                bar.update(pictures)
                watch.see(values)
                saved = last or evaluated or stop or _due(step, config.output.checkpoint_every)
                if (measure or sampled or saved) and (problem := watch.problem(trainer)):
                    log.close()
                    trainer, back = open_trainer(run, processes)
                    told = retries.go_on(run, trainer, back, step, problem)
                    if writes:
                        _say(told)
                    log = MetricsLog(run, back, writes=writes)
                    step = logged = bar.go_back(back, pictures)
                    since = time.perf_counter()
                    if stop:
                        break
                    continue
                if measure:
                    row = _read(trainer, step, values)
                    row["images_per_second"] = (step - logged) * pictures / (time.perf_counter() - since)
                    bar.set_postfix_str(f"D {row['loss/discriminator']:.2f} G {row['loss/generator']:.2f}")
                    log.write(step, row)
                if writes and (sampled or saved):
                    run.check_present()
                if writes and sampled:
                    image = draw_samples(trainer.ema.network, run, config)
                    save(image, run.sample_path(step))
                if monitor is not None and evaluated:
                    log.write(step, monitor(trainer.ema.network, seed=config.training.seed))
                    if writes:
                        draw_curve(run, log.rows, monitor.distance_key)
                if writes and (evaluated or measure):
                    before, problems = problems, find_problems(log.rows, chance_loss)
                    for kind in problems.keys() - before.keys():
                        _say(f"step {step}: {problems[kind]}")
                if saved and writes:
                    save_state(run, trainer, step, best_step(log.rows))
                if saved:
                    retries = Retries()
                if measure:
                    logged, since = step, time.perf_counter()
                if stop:
                    break
    finally:
        batches.close()
        log.close()
    if writes:
        prune(run, step, best_step(log.rows))
        finish(run)
    return step == total


def open_trainer(run: Run, processes: Processes) -> tuple[Trainer, int]:
    """A trainer at the run's newest checkpoint that is whole, else at its start; and the number of steps done.

    Raises:
        UserError: nothing usable to go on from.
    """
    config = run.info.config
    with enough_memory():
        trainer = Trainer(config.model, config.training, processes.device, processes)
    step = processes.first(lambda: load_newest(run.checkpoints(), trainer, warn=_say))
    if step and not processes.is_first:
        load_checkpoint(run.checkpoint_path(step), trainer)
    if not step and config.training.start:
        came = start_from(trainer, config.training.start, run.info.class_names)
        if processes.is_first:
            _say(came)
    return trainer, step


def open_monitor(config: Config, store: Store, processes: Processes) -> Monitor | None:
    """What evaluates during training; None where that is not asked for, or its default features are missing.

    Raises:
        UserError: other features were asked for and are missing.
    """
    output = config.output
    if not output.evaluate_every or len(store) < 2:
        return None
    try:
        features = open_features(output.evaluate_features, cache=cache_folder(config.data) / "features")
    except UserError as error:
        if output.evaluate_features != OutputConfig.evaluate_features:
            raise
        if processes.is_first:
            _say(f"training goes on without evaluations: {error}")
        return None
    return Monitor(store, features, output.evaluate_count, processes.device, share=processes)


def save_state(run: Run, trainer: Trainer, step: int, best: int | None) -> None:
    """Writes the checkpoint of a step and, if it is the best or nothing was evaluated, the inference weights."""
    if best is None or best == step:  # before the checkpoint, behind which a resumed run does not go
        run.save_generator(trainer.ema.network, step)
    save_checkpoint(run.checkpoint_path(step), trainer, step)
    prune(run, step, best)


def prune(run: Run, step: int, best: int | None) -> None:
    """Deletes the checkpoints before `step` but for the newest ones and that of the best step.

    Later ones are damaged, or `step` would be later: they are not counted.
    """
    done = [path for path in run.checkpoints() if path <= run.checkpoint_path(step)]
    for path in done[: -run.info.config.output.keep]:
        if path != run.checkpoint_path(best if best is not None else -1):
            path.unlink()


def draw_samples(generator: Generator, run: Run, config: Config) -> Image.Image:
    """A grid of pictures from fixed latents: a row for each class, or square without classes."""
    names = run.info.class_names[:GRID_ROWS]
    rows = len(names) or GRID_COLUMNS
    z = draw_latents(rows * GRID_COLUMNS, config.model.latent_dim, seed=config.training.seed)
    y = torch.arange(rows).repeat_interleave(GRID_COLUMNS) if names else torch.zeros(len(z), dtype=torch.int64)
    return draw_grid(sample(generator, z, y), columns=GRID_COLUMNS, row_labels=names or None)


def draw_curve(run: Run, rows: list[dict[str, Any]], key: str) -> None:
    """The distance to the data and the diversity over training, the best step marked."""
    from sagan.figures.curves import draw_curves, save_figure  # matplotlib takes its time to import

    save_figure(draw_curves(rows, [key, "diversity"]), run.curve_path)


def finish(run: Run) -> None:
    """Puts the newest grid in samples.png, and all of them into an animation."""
    samples = run.samples()
    every = max(1, -(-len(samples) // MOST_FRAMES))
    frames = []
    for path in reversed(samples[::-every]):  # the last one among them
        try:
            frames.append(read(path))
        except UserError as error:
            _say(f"{error}; left out of {run.animation_path.name}")
    if frames:
        save(frames[-1], run.samples_path)
        animate(frames, run.animation_path, 0.2)


@contextmanager
def interruptible(*, tell: bool = True) -> Iterator["Interrupted"]:
    """Turns the first SIGINT or SIGTERM, told if so, into a question that the loop asks; the second stops at once."""
    interrupted = Interrupted(tell)
    previous = {s: signal.signal(s, interrupted.handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)


class Interrupted:
    """Whether a signal has come."""

    def __init__(self, tell: bool) -> None:
        self.signal: int | None = None
        self.tell = tell

    def __call__(self) -> bool:
        return self.signal is not None

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        if self.tell:
            _say("stopping after this step; once more to stop at once")


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def _due(step: int, every: int) -> bool:
    return step % every == 0


def _read(trainer: Trainer, step: int, values: dict[str, torch.Tensor]) -> dict[str, float]:
    """The numbers to log: what the step returned, every gamma, and the learning rates."""
    row = {name: value.item() for name, value in values.items()}
    for network in ("generator", "discriminator"):
        for name, parameter in getattr(trainer, network).named_parameters():
            if name.endswith("gamma"):
                row[f"gamma/{network}.{name.removesuffix('.gamma').removeprefix('attention.')}"] = parameter.item()
    share = trainer.learning_rate(step - 1)
    row["learning_rate/generator"] = share * trainer.config.generator_lr
    row["learning_rate/discriminator"] = share * trainer.config.discriminator_lr
    return row
