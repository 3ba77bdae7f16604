"""The training loop: step after step, stopped by a signal, restarted from the newest checkpoint after divergence."""

import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from types import FrameType

from sagan.data import Store, Unavailable
from sagan.device import choose_algorithms, enough_memory, keep_memory
from sagan.distributed import Processes
from sagan.errors import UserError
from sagan.run import Run
from sagan.training.batches import open_batches
from sagan.training.checkpoint import load_checkpoint, load_newest
from sagan.training.compiled import why_not_compiled
from sagan.training.divergence import MAX_RESTARTS, DivergenceMonitor, RestartPolicy, advise
from sagan.training.finetune import start_from
from sagan.training.graphs import why_not
from sagan.training.progress import progress_bar, say
from sagan.training.recorder import Callback, Recorder
from sagan.training.speed import FirstSteps
from sagan.training.step import Trainer


def train(run: Run, store: Store, processes: Processes, callback: Callback | None = None) -> bool:
    """Train a run to its last step, from its newest checkpoint if it has one; return whether it is complete.

    All processes call this; the first one writes. SIGINT or SIGTERM to one of them stops all after the current step,
    which is saved; a second signal stops at once.

    The first process calls `callback(step, values)` for every line of the metrics log. If it returns True, all stop
    after the next step, which is saved.

    Raises:
        UserError: no checkpoint is usable, training keeps diverging, or the disk refuses a write. What was saved
            before stays intact.
    """
    # Set up the machine and the networks.
    config = run.info.config
    keep_memory()
    choose_algorithms(deterministic=config.training.deterministic)
    if processes.is_first:
        run.sweep()
    refused = []
    if config.training.cuda_graph:
        refused.append(why_not(processes.device, processes))
    if config.training.compile:
        refused.append(why_not_compiled(config.training, processes))
    for reason in refused:
        if reason and processes.is_first:
            say(reason)
    trainer, step = open_trainer(run, processes)
    monitor = DivergenceMonitor()
    policy = RestartPolicy()

    # Set up data, records and the progress bar.
    steps = config.training.steps
    recorder = Recorder(run, store, processes, step, trainer.uninformed_loss(), callback)
    first_steps = FirstSteps(config, step, processes.device)
    batches = open_batches(config, store, processes)
    get_batch = recorder.stopwatch.timed(batches)
    bar = progress_bar(
        total=steps,
        initial=step,
        unit="step",
        desc="training",
        disable=not processes.is_first,
    )

    with (
        closing(recorder),
        closing(batches),
        bar,
        enough_memory(),
        stop_on_signal(announce=processes.is_first) as signals,
    ):
        while step < steps:
            # Train one step.
            due = recorder.due(step + 1)
            try:
                log = trainer.train_step(step, get_batch, measure=due.measure)
            except Unavailable:  # raised before the step changed anything
                alone = processes.count == 1  # other processes may have got their batch
                if step and alone and not monitor.find_problem(trainer):
                    recorder.save(trainer, step)
                raise
            step += 1
            monitor.update(log)

            # Save this step if it is the last because of a signal or the callback.
            stop = processes.any(signals.received or recorder.stop_requested)
            if stop:
                due = replace(due, save=True)
            bar.update()
            speed = first_steps.update(step, interrupted=due.sample or due.evaluate or due.save)
            if speed and processes.is_first:
                say(speed)

            # Restart from the newest checkpoint if training has diverged, before anything of this step is recorded.
            problem = monitor.find_problem(trainer) if due.anything else None
            if problem:
                recorder.wait()
                trainer, saved = open_trainer(run, processes)
                if policy.exhausted:
                    raise UserError(advise(run.path, config.training, saved, step, problem))
                policy.restart(trainer)
                if processes.is_first:
                    count = f"{policy.restarts} of {MAX_RESTARTS} times"
                    say(f"step {step}: {problem}; restarting from step {saved} with other random numbers ({count})")
                monitor = DivergenceMonitor()
                recorder.rewind(saved)
                bar.update(saved - step)  # backwards
                step = saved

            # Otherwise log, draw, evaluate and save what is due.
            else:
                recorder.record(trainer, step, log, due)
                if due.measure or due.evaluate:
                    bar.set_postfix_str(recorder.summary())
                if due.save:
                    policy = RestartPolicy()

            if stop:
                break
        recorder.wait()

    if processes.is_first:
        recorder.finish(step)
    return step == steps


def open_trainer(run: Run, processes: Processes) -> tuple[Trainer, int]:
    """Return a trainer at the run's newest intact checkpoint, else at its start, and the number of steps done.

    Raises:
        UserError: no checkpoint is usable, or the run cannot start from --from.
    """
    config = run.info.config
    with enough_memory():
        trainer = Trainer(config.model, config.training, processes.device, processes)
    step = processes.first(lambda: load_newest(run.checkpoints(), trainer, warn=say))
    if step and not processes.is_first:
        load_checkpoint(run.checkpoint_path(step), trainer)
    if not step and config.training.start:
        transfer = start_from(trainer, config.training.start, run.info.class_names)
        if processes.is_first:
            say(transfer.describe())
    return trainer, step


@contextmanager
def stop_on_signal(*, announce: bool = True) -> Iterator["StopSignals"]:
    """Note the first SIGINT or SIGTERM inside; the second raises KeyboardInterrupt.

    Outside of the main thread, where Python allows no handlers, signals keep their meaning.

    Args:
        announce: print a line at the first signal.
    """
    signals = StopSignals(announce)
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    previous = {number: signal.signal(number, signals.handle) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class StopSignals:
    """The signals that ask the loop to stop. A plain flag: a lock (threading.Event) could block inside a handler."""

    def __init__(self, announce: bool) -> None:
        self.announce = announce
        self.received = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGINT or SIGTERM."""
        if self.received:
            raise KeyboardInterrupt
        self.received = True
        if self.announce:
            say("stopping after this step; once more to stop at once")
