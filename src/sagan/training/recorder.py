"""What is recorded of a training run: the log, grids of samples, evaluations and checkpoints."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from sagan.config import Config, OutputConfig
from sagan.data import Store
from sagan.data.store import cache_folder
from sagan.device import choose_precision, peak_memory, peak_speed
from sagan.distributed import Processes
from sagan.errors import UserError
from sagan.figures.grid import GRID_COLUMNS, GRID_ROWS, animate, draw_grid, read, save
from sagan.figures.labels import class_labels
from sagan.metric_names import best_step, distance_key
from sagan.metrics.features import open_features
from sagan.metrics.monitor import Monitor
from sagan.model.generator import Generator
from sagan.run import Run
from sagan.sampling import SampleSet, sample
from sagan.text import short
from sagan.training.checkpoint import take_snapshot, write_checkpoint
from sagan.training.diagnostics import find_problems
from sagan.training.metrics_log import MetricsLog
from sagan.training.operations import count_operations
from sagan.training.progress import say
from sagan.training.step import Trainer
from sagan.training.stopwatch import Stopwatch
from sagan.training.writer import BackgroundWriter

Callback = Callable[[int, dict[str, float]], object]
"""Called with a step and the values logged there, by name. If it returns True, training stops after the next step."""
MAX_FRAMES = 60
"""Frames of the animation at most."""
FRAME_SECONDS = 0.2
"""Time that the animation shows a frame, in seconds."""


@dataclass(frozen=True)
class Due:
    """What is recorded after a step."""

    measure: bool
    sample: bool
    evaluate: bool
    save: bool

    @property
    def anything(self) -> bool:
        """Whether anything is due; then the step is first checked for divergence."""
        return self.measure or self.sample or self.evaluate or self.save


class Recorder:
    """Records a run from step `start` on, as its configuration asks; the first process writes.

    Args:
        run: the run to write to.
        store: the images to evaluate against.
        processes: the processes of the job. All of them evaluate, so all call `record`.
        start: steps done.
        uninformed_loss: the loss of a discriminator whose logits are all 0.
        callback: called after a line of the log was written, by the process that writes.

    Raises:
        UserError: the features that evaluations need are configured and missing.
    """

    def __init__(
        self,
        run: Run,
        store: Store,
        processes: Processes,
        start: int,
        uninformed_loss: float,
        callback: Callback | None = None,
    ) -> None:
        self.run = run
        self.config = run.info.config
        self.processes = processes
        self.writes = processes.is_first
        self.uninformed_loss = uninformed_loss
        self.callback = callback
        self.stop_requested = False  # by the callback
        self.monitor = open_monitor(self.config, store, processes)
        self.log = MetricsLog(run, start, writes=self.writes)
        self._writer = BackgroundWriter()
        self.stopwatch = Stopwatch()
        device, training = processes.device, self.config.training
        peak = peak_speed(device, choose_precision(training.precision, device)) if self.writes else None
        self._peak = (peak or 0.0) * processes.count
        self._operations = 0.0
        if self._peak:
            model = self.config.model
            self._operations = count_operations(model, discriminator_steps=training.discriminator_steps)
        self._problems = find_problems(self.log.rows, uninformed_loss)
        self._start_clock(start)

    def due(self, step: int) -> Due:
        """Return what is recorded after a step."""
        output, last = self.config.output, step == self.config.training.steps
        evaluate = self.monitor is not None and (last or step % output.evaluate_every == 0)
        return Due(
            measure=last or step % output.log_every == 0,
            sample=last or step % output.sample_every == 0,
            evaluate=evaluate,
            save=last or evaluate or step % output.checkpoint_every == 0,
        )

    def record(self, trainer: Trainer, step: int, log: dict[str, Tensor], due: Due) -> None:
        """Log, draw, evaluate and save what is due after a step that returned `log`.

        Raises:
            UserError: the disk refuses a write, or refused the previous checkpoint, or the run's folder is gone. What
                was saved before stays intact.
        """
        self._writer.check()
        generator = trainer.ema.network

        # Log the step.
        if due.measure:
            self._log(step, {**_log_row(trainer, step, log), **self._speed(step)})

        # Draw a grid of samples.
        if self.writes and (due.sample or due.save):
            self.run.check_present()
        if self.writes and due.sample:
            with self.stopwatch.pause("samples"):
                save(self._draw_samples(generator), self.run.sample_path(step), step=step)

        # Evaluate.
        if self.monitor is not None and due.evaluate:
            with self.stopwatch.pause("evaluation"):
                values = self.monitor(generator, seed=self.config.training.seed)
            self._log(step, {**values, **self.stopwatch.take("evaluation")})
            if self.writes:
                say(self._describe_evaluation(step))
                self._draw_curve(self.monitor.distance_key)

        # Warn of new problems.
        if self.writes and (due.evaluate or due.measure):
            before, self._problems = self._problems, find_problems(self.log.rows, self.uninformed_loss)
            for kind in self._problems.keys() - before.keys():
                say(f"step {step}: {self._problems[kind]}")

        # Save a checkpoint.
        if self.writes and due.save:
            with self.stopwatch.pause("checkpoint"):
                self.save(trainer, step)
        if due.sample or due.evaluate or due.save:  # on a slow disk longer than a collective of the next step waits
            self.processes.wait_for_first()
        if due.measure:
            self._start_clock(step)

    def save(self, trainer: Trainer, step: int) -> None:
        """Copy the state after a step, and write its checkpoint in the background.

        If it is the best, or none was evaluated, also write the inference weights and a grid of their samples.
        """
        generator, best = trainer.ema.network, best_step(self.log.rows)
        is_best = best is None or best == step
        self._writer.wait()  # before the copy: memory holds one snapshot at most
        if is_best:
            save(self._draw_samples(generator), self.run.samples_path, step=step)
        snapshot = take_snapshot(trainer, step)

        def write() -> None:
            self.run.check_present()
            if is_best:  # before the checkpoint, since a resumed run starts from there
                self.run.save_generator(generator, step, snapshot.average())
            write_checkpoint(self.run.checkpoint_path(step), snapshot)
            prune(self.run, step, best)

        self._writer.start(write)

    def wait(self) -> None:
        """Wait for the checkpoint that is being written.

        Raises:
            UserError: it could not be written.
        """
        self._writer.wait()

    def rewind(self, step: int) -> None:
        """Drop what was logged after a step."""
        self.log.close()
        self.log = MetricsLog(self.run, step, writes=self.writes)
        self._start_clock(step)

    def finish(self, step: int) -> None:
        """Finalise the run's files after its last step, or after one at which it was interrupted."""
        prune(self.run, step, best_step(self.log.rows))
        write_animation(self.run)

    def close(self) -> None:
        """Close the log, after the checkpoint that is being written."""
        try:
            self._writer.close()
        finally:
            self.log.close()

    def summary(self) -> str:
        """Return the newest losses and the newest distance in one short line, for the progress bar."""
        names = {"loss/discriminator": "D", "loss/generator": "G", distance_key(self.log.rows): "distance"}
        newest = {key: next((row[key] for row in reversed(self.log.rows) if key in row), None) for key in names}
        return ", ".join(f"{names[key]} {short(value)}" for key, value in newest.items() if value is not None)

    def _log(self, step: int, values: dict[str, float]) -> None:
        self.log.write(step, values)
        if self.callback and self.writes:
            self.stop_requested |= self.callback(step, dict(values)) is True

    def _describe_evaluation(self, step: int) -> str:
        """Return a line on the evaluation just logged: its distance, its diversity, and the best step so far."""
        key, row, best = distance_key(self.log.rows), self.log.rows[-1], best_step(self.log.rows)
        assert key is not None
        network = "FID" if key == "fid" else key.rpartition("/")[2]
        rank = "the best so far" if best == step else f"best: step {best:,}"
        return f"step {step:,}: distance {short(row[key])} ({network}), diversity {row['diversity']:.2f}; {rank}"

    def _start_clock(self, step: int) -> None:
        self._clock_step = step
        self.stopwatch.restart()

    def _speed(self, step: int) -> dict[str, float]:
        """Return the speed since the last line of the log, the peak memory, and the pause for the last checkpoint."""
        steps, batch_size = step - self._clock_step, self.config.training.batch_size
        values = {"images_per_second": steps * batch_size / self.stopwatch.elapsed}
        values |= self.stopwatch.steps(steps) | self.stopwatch.take("checkpoint")
        if memory := peak_memory(self.processes.device):
            values["memory_gib"] = memory / 2**30
        if self._peak:
            values["peak_share"] = batch_size / values["seconds/step"] * self._operations / self._peak
        return values

    def _draw_samples(self, generator: Generator) -> Image.Image:
        """Draw the images of `sagan sample` with the run's seed: a row for each class, or a square without classes."""
        names = self.run.info.class_names[:GRID_ROWS]
        rows = len(names) or GRID_COLUMNS
        count = GRID_COLUMNS if names else rows * GRID_COLUMNS
        seed = self.config.training.seed
        samples = SampleSet(self.config.model.latent_dim, count, range(len(names)), (seed,))
        images = sample(generator, *samples.inputs())
        return draw_grid(images, columns=GRID_COLUMNS, row_labels=class_labels(names) or None)

    def _draw_curve(self, distance_key: str) -> None:
        """Plot the distance to the data and the diversity over training, the best step marked."""
        from sagan.figures.curves import draw_curves, save_figure  # importing matplotlib takes a while

        save_figure(draw_curves(self.log.rows, [distance_key, "diversity"]), self.run.curve_path)


def open_monitor(config: Config, store: Store, processes: Processes) -> Monitor | None:
    """Return what evaluates during training; None if the run asks for none, or if the default features are missing.

    Raises:
        UserError: other features are configured and missing.
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
            say(f"training continues without evaluations: {error}")
        return None
    return Monitor(store, features, output.evaluate_count, processes.device, share=processes)


def prune(run: Run, step: int, best: int | None) -> None:
    """Delete checkpoints up to `step`, except the newest ones (`output.keep` of them) and that of the best step.

    Later checkpoints are damaged, or the run would have resumed from them: they neither count nor are deleted.
    """
    done = [path for path in run.checkpoints() if path <= run.checkpoint_path(step)]
    best_path = None if best is None else run.checkpoint_path(best)
    for path in done[: -run.info.config.output.keep]:
        if path != best_path:
            path.unlink()


def write_animation(run: Run) -> None:
    """Write up to MAX_FRAMES of all grids of samples to an animation."""
    samples = run.samples()
    every = max(1, -(-len(samples) // MAX_FRAMES))
    frames = []
    for path in reversed(samples[::-every]):  # counted from the last one, which is always included
        try:
            frames.append(read(path))
        except UserError as error:
            say(f"{error}; skipped in {run.animation_path.name}")
    if frames:
        animate(frames, run.animation_path, FRAME_SECONDS)


def _log_row(trainer: Trainer, step: int, log: dict[str, Tensor]) -> dict[str, float]:
    """Return the values to log: what the step returned, every gamma, and the learning rates."""
    row = {name: value.item() for name, value in log.items()}
    for network in ("generator", "discriminator"):
        for name, parameter in getattr(trainer, network).named_parameters():
            if name.endswith("gamma"):
                row[f"gamma/{network}.{name.removesuffix('.gamma').removeprefix('attention.')}"] = parameter.item()
    scale = trainer.lr_scale(step - 1)
    row["learning_rate/generator"] = scale * trainer.config.generator_lr
    row["learning_rate/discriminator"] = scale * trainer.config.discriminator_lr
    return row
