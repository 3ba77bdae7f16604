"""Checkpoints are written while training continues, and hold the step that they are named after."""

import errno
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from sagan.errors import UserError
from sagan.files import load_tensors
from sagan.run import Run
from sagan.training import recorder
from sagan.training.step import Trainer
from sagan.training.writer import BackgroundWriter

write_checkpoint = recorder.write_checkpoint


def test_the_next_write_waits_for_the_one_before():
    writer, order, first = BackgroundWriter(), [], threading.Event()

    def slow():
        first.wait(10)
        order.append("first")

    writer.start(slow)
    writer.check()  # does not wait
    assert not order
    threading.Timer(0.1, first.set).start()
    writer.start(lambda: order.append("second"))
    assert order[:1] == ["first"]
    writer.close()
    assert order == ["first", "second"]


@pytest.mark.parametrize("method", ["check", "wait", "close", "start"])
def test_an_error_is_raised_once_by_whatever_comes_next(method):
    writer = BackgroundWriter()

    def fail():
        raise UserError("the disk is full")

    writer.start(fail)
    while not writer._write.done():
        pass
    with pytest.raises(UserError, match="the disk is full"):
        writer.start(lambda: None) if method == "start" else getattr(writer, method)()
    writer.check()
    writer.close()


def test_training_continues_and_the_checkpoint_is_of_its_step(command, tmp_path, train_options, monkeypatch):
    """The write of step 3 is held back until step 5 is done, which has changed every weight."""
    three = tmp_path / "three"
    command("train", *train_options, "--steps", 3, "--lecam", "0.1", "--lr-decay-from", "1", "--out", three)
    later, step, written = threading.Event(), Trainer.train_step, []

    def train_step(self, number, batches, **options):
        log = step(self, number, batches, **options)
        if number == 4:
            later.set()
        return log

    def held(path, snapshot):
        assert later.wait(60) or snapshot.step != 3
        written.append(snapshot.step)
        write_checkpoint(path, snapshot)

    monkeypatch.setattr(Trainer, "train_step", train_step)
    monkeypatch.setattr(recorder, "write_checkpoint", held)
    options = ["--steps", 6, "--lecam", "0.1", "--lr-decay-from", "1", "--keep", 9]
    assert command("train", *train_options, *options, "--out", tmp_path / "six")[0] == 0
    assert written == [3, 6]
    (wanted, meta), (found, found_meta) = (
        load_tensors(Run(tmp_path / name).checkpoint_path(3)) for name in ("three", "six")
    )
    assert meta == found_meta
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


@pytest.mark.parametrize("at", [3, 9])
def test_a_full_disk_is_one_line(command, tmp_path, train_options, monkeypatch, at):
    """While training continues it ends at one of the next steps; after the last step, too, nothing hides it."""
    seen, step, failed = [], Trainer.train_step, threading.Event()

    def train_step(self, number, batches, **options):
        seen.append(number)
        if number == 4:
            failed.wait(60)
        return step(self, number, batches, **options)

    def full(path, snapshot):
        if snapshot.step != at:
            return write_checkpoint(path, snapshot)
        failed.set()
        raise UserError(f"{path} could not be written: {OSError(errno.ENOSPC, 'No space left on device').strerror}")

    failed.set() if at > 4 else None
    monkeypatch.setattr(Trainer, "train_step", train_step)
    monkeypatch.setattr(recorder, "write_checkpoint", full)
    status, _, errors = command("train", *train_options, "--steps", 9, "--out", tmp_path / "run")
    assert status == 2
    last = errors.splitlines()[-1]
    assert re.search(rf"^sagan: .*step-0*{at}\b.* could not be written: No space left on device$", last)
    assert "Traceback" not in errors
    assert max(seen) <= 6 if at == 3 else max(seen) == 8
    assert [int(path.stem[5:]) for path in Run(tmp_path / "run").checkpoints()] == ([] if at == 3 else [3, 6])


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux does")
def test_a_write_starts_no_threads_of_pytorch(tmp_path):
    """With more OpenMP threads than cores all sleep between operations, and small steps take 1.4 times as long."""
    program = """if True:
        import os, sys, torch
        from pathlib import Path
        from sagan import ModelConfig, TrainingConfig
        from sagan.training.checkpoint import take_snapshot, write_checkpoint
        from sagan.training.step import Trainer
        from sagan.training.writer import BackgroundWriter
        torch.set_num_threads(2)
        trainer = Trainer(ModelConfig(resolution=32, base_channels=24), TrainingConfig(), torch.device("cpu"))
        snapshot, writer = take_snapshot(trainer, 1), BackgroundWriter()
        writer.start(lambda: None)
        writer.wait()
        before = os.listdir("/proc/self/task")
        writer.start(lambda: write_checkpoint(Path(sys.argv[1]), snapshot))
        writer.wait()
        assert os.listdir("/proc/self/task") == before
    """
    path = tmp_path / "1.safetensors"
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert path.exists()
