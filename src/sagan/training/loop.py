"""The training loop: one step after another, stopped by a signal, taken back when training comes apart."""

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from types import FrameType

from sagan.data import Batches, Prefetcher, Store
from sagan.data.shards.remote import Unreachable
from sagan.device import choose_algorithms, enough_memory, keep_memory
from sagan.distributed import Processes
from sagan.run import Run
from sagan.training.checkpoint import load_checkpoint, load_newest
from sagan.training.divergence import Retries, Watch
from sagan.training.finetune import start_from
from sagan.training.progress import Bar, say
from sagan.training.recorder import Records
from sagan.training.step import Trainer


def train(run: Run, store: Store, processes: Processes) -> bool:
    """Trains a run to its last step, going on from its newest checkpoint if it has one.

    SIGINT or SIGTERM end it after the step in hand, saved; a second one at once. Returns whether it is complete. All
    processes call this; the first one writes, and a signal to one ends all.

    Raises:
        UserError: nothing usable to go on from, or the disk refuses a write. What was saved before is whole.
    """
    keep_memory()
    config = run.info.config
    choose_algorithms(deterministic=config.training.deterministic)
    total, pictures = config.training.steps, config.training.batch_size
    rank, count = processes.rank, processes.count
    if processes.is_first:
        run.sweep()
    trainer, step = open_trainer(run, processes)
    order = Batches(store, pictures, seed=config.training.seed, flips=config.data.flips, rank=rank, count=count)
    watch, retries = Watch(), Retries()
    with (
        closing(Records(run, store, processes, step, trainer.chance_loss())) as records,
        closing(Prefetcher(order, processes.device)) as batches,
        Bar(
            total=total * pictures,
            initial=step * pictures,
            unit="images",
            unit_scale=True,
            desc="training",
            disable=not processes.is_first,
        ) as bar,
        enough_memory(),
        interruptible(tell=processes.is_first) as interrupted,
    ):
        while step < total:
            due = records.due(step + 1)
            try:
                values = trainer.step(step, batches, measure=due.measure)
            except Unreachable:  # before anything of this step was done, unless the discriminator takes several
                alone = count == 1  # of many, others may have got theirs
                if step and alone and config.training.discriminator_steps == 1 and not watch.problem(trainer):
                    records.save(trainer, step)
                raise
            step += 1
            if stop := processes.any(interrupted()):
                due = replace(due, save=True)
            bar.update(pictures)
            watch.see(values)
            if due.anything and (problem := watch.problem(trainer)):
                trainer, back = open_trainer(run, processes)
                told = retries.go_on(run, trainer, back, step, problem)
                if processes.is_first:
                    say(told)
                records.go_back(back)
                step = bar.go_back(back, pictures)
            else:
                if due.measure:
                    bar.set_postfix_str(f"D {values['loss/discriminator']:.2f} G {values['loss/generator']:.2f}")
                records.keep(trainer, step, values, due)
                if due.save:
                    retries = Retries()
            if stop:
                break
    if processes.is_first:
        records.finish(step)
    return step == total


def open_trainer(run: Run, processes: Processes) -> tuple[Trainer, int]:
    """A trainer at the run's newest checkpoint that is whole, else at its start; and the number of steps done.

    Raises:
        UserError: nothing usable to go on from.
    """
    config = run.info.config
    with enough_memory():
        trainer = Trainer(config.model, config.training, processes.device, processes)
    step = processes.first(lambda: load_newest(run.checkpoints(), trainer, warn=say))
    if step and not processes.is_first:
        load_checkpoint(run.checkpoint_path(step), trainer)
    if not step and config.training.start:
        came = start_from(trainer, config.training.start, run.info.class_names)
        if processes.is_first:
            say(came)
    return trainer, step


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
            say("stopping after this step; once more to stop at once")
