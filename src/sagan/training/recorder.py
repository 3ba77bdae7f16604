"""What is kept of a training while it goes on: the log, the grids, the evaluations and the checkpoints."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sagan.config import Config, OutputConfig
from sagan.data import Store
from sagan.data.store import cache_folder
from sagan.distributed import Processes
from sagan.errors import UserError
from sagan.figures.grid import GRID_COLUMNS, animate, draw_grid, read, save
from sagan.metric_names import best_step
from sagan.metrics.features import open_features
from sagan.metrics.monitor import Monitor
from sagan.model.generator import Generator
from sagan.run import Run
from sagan.sampling import draw_latents, sample
from sagan.training.checkpoint import save_checkpoint
from sagan.training.diagnostics import find_problems
from sagan.training.metrics_log import MetricsLog
from sagan.training.progress import say
from sagan.training.step import Trainer

MOST_FRAMES = 60  # of the animation


GRID_ROWS = 12  # classes beyond that are left out of the grids


@dataclass(frozen=True)
class Due:
    """What is to be done after a step."""

    measure: bool
    sample: bool
    evaluate: bool
    save: bool

    @property
    def anything(self) -> bool:
        """Whether the step is looked at: nothing of a training that has come apart is kept."""
        return self.measure or self.sample or self.evaluate or self.save


class Records:
    """Keeps of a training, from step `start` on, what its configuration asks for; the first process writes it.

    Args:
        run: where to.
        store: the pictures to evaluate against.
        processes: all of them evaluate, and so call `keep` alike.
        start: steps done.
        chance_loss: the loss of a discriminator whose logits are all 0.

    Raises:
        UserError: features for the evaluations that were asked for and are missing.
    """

    def __init__(self, run: Run, store: Store, processes: Processes, start: int, chance_loss: float) -> None:
        self.run, self.config, self.writes = run, run.info.config, processes.is_first
        self.processes = processes
        self.chance_loss = chance_loss
        self.monitor = open_monitor(self.config, store, processes)
        self.log = MetricsLog(run, start, writes=self.writes)
        self._problems = find_problems(self.log.rows, chance_loss)
        self._start_clock(start)

    def due(self, step: int) -> Due:
        """What the configuration asks for after a step."""
        output, last = self.config.output, step == self.config.training.steps
        evaluate = self.monitor is not None and (last or step % output.evaluate_every == 0)
        return Due(
            measure=last or step % output.log_every == 0,
            sample=last or step % output.sample_every == 0,
            evaluate=evaluate,
            save=last or evaluate or step % output.checkpoint_every == 0,
        )

    def keep(self, trainer: Trainer, step: int, values: dict[str, Tensor], due: Due) -> None:
        """Logs, draws, evaluates and saves what is due after a step, of which `values` are what it returned.

        Raises:
            UserError: the disk refuses a write, or the run's folder is gone. What was saved before is whole.
        """
        generator = trainer.ema.network
        if due.measure:
            pictures = (step - self._logged) * self.config.training.batch_size
            rate = pictures / (time.perf_counter() - self._since)
            self.log.write(step, {**_numbers(trainer, step, values), "images_per_second": rate})
        if self.writes and (due.sample or due.save):
            self.run.check_present()
        if self.writes and due.sample:
            save(draw_samples(generator, self.run), self.run.sample_path(step))
        if self.monitor is not None and due.evaluate:
            self.log.write(step, self.monitor(generator, seed=self.config.training.seed))
            if self.writes:
                draw_curve(self.run, self.log.rows, self.monitor.distance_key)
        if self.writes and (due.evaluate or due.measure):
            before, self._problems = self._problems, find_problems(self.log.rows, self.chance_loss)
            for kind in self._problems.keys() - before.keys():
                say(f"step {step}: {self._problems[kind]}")
        if self.writes and due.save:
            self.save(trainer, step)
        if due.sample or due.evaluate or due.save:  # on a slow disk longer than a collective of the next step waits
            self.processes.wait_for_first()
        if due.measure:
            self._start_clock(step)

    def save(self, trainer: Trainer, step: int) -> None:
        """Writes the checkpoint of a step and, if it is the best or nothing was evaluated, the inference weights."""
        best = best_step(self.log.rows)
        if best is None or best == step:  # before the checkpoint, behind which a resumed run does not go
            self.run.save_generator(trainer.ema.network, step)
        save_checkpoint(self.run.checkpoint_path(step), trainer, step)
        prune(self.run, step, best)

    def go_back(self, step: int) -> None:
        """Forgets what came after a step."""
        self.log.close()
        self.log = MetricsLog(self.run, step, writes=self.writes)
        self._start_clock(step)

    def finish(self, step: int) -> None:
        """Leaves the run as it is to be found after its last step, or one after which it was stopped."""
        prune(self.run, step, best_step(self.log.rows))
        finish(self.run)

    def close(self) -> None:
        """Ends the log."""
        self.log.close()

    def _start_clock(self, step: int) -> None:
        self._logged, self._since = step, time.perf_counter()


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
            say(f"training goes on without evaluations: {error}")
        return None
    return Monitor(store, features, output.evaluate_count, processes.device, share=processes)


def prune(run: Run, step: int, best: int | None) -> None:
    """Deletes the checkpoints before `step` but for the newest ones and that of the best step.

    Later ones are damaged, or `step` would be later: they are not counted.
    """
    done = [path for path in run.checkpoints() if path <= run.checkpoint_path(step)]
    for path in done[: -run.info.config.output.keep]:
        if path != run.checkpoint_path(best if best is not None else -1):
            path.unlink()


def draw_samples(generator: Generator, run: Run) -> Image.Image:
    """A grid of pictures from fixed latents: a row for each class, or square without classes."""
    names = run.info.class_names[:GRID_ROWS]
    rows = len(names) or GRID_COLUMNS
    z = draw_latents(rows * GRID_COLUMNS, run.info.config.model.latent_dim, seed=run.info.config.training.seed)
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
            say(f"{error}; left out of {run.animation_path.name}")
    if frames:
        save(frames[-1], run.samples_path)
        animate(frames, run.animation_path, 0.2)


def _numbers(trainer: Trainer, step: int, values: dict[str, Tensor]) -> dict[str, float]:
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
