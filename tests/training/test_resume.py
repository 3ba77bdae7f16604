"""A run that is killed and resumed ends as one that was never stopped, bit for bit."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sagan.errors import UserError
from sagan.files import load_tensors
from sagan.metric_names import depends_on_machine
from sagan.run import Run

STEPS = 40


def start(arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "sagan", "train", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def steps_logged(run):
    """The number of steps that a run's log has come to so far."""
    try:
        rows = Run(run).metrics()
    except UserError:  # there is no run yet
        return 0
    return rows[-1]["step"] if rows else 0


def same_tensors(a, b):
    (x, meta_x), (y, meta_y) = load_tensors(a), load_tensors(b)
    assert x.keys() == y.keys()
    assert meta_x == meta_y
    return all(torch.equal(x[name], y[name]) for name in x)


def without_speed(run):
    return [{k: v for k, v in row.items() if not depends_on_machine(k)} for row in run.metrics()]


def test_killed_at_random_moments(command, tmp_path, train_options, request):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = [*train_options, "--steps", str(STEPS), "--lecam", "0.1", "--augment", "color", "translation"]
    options += ["--guide", "0.1"]
    assert command("train", *options, "--out", whole)[0] == 0

    rng, kills = random.Random(0), request.config.getoption("--kills")
    arguments = [*options, "--out", str(killed)]
    for kill in range(kills):
        process = start(arguments)
        moment = STEPS * (kill + rng.random()) / (kills + 1)
        while process.poll() is None and steps_logged(killed) < moment:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.1)  # anywhere in a step, a checkpoint or a grid
        process.send_signal(signal.SIGKILL)
        process.wait()
        print(f"killed near step {steps_logged(killed)}, newest checkpoint", *Run(killed).checkpoints()[-1:])
        arguments = ["--resume", str(killed), "--device", "cpu"]
    status, _, errors = command("train", *arguments)
    assert status == 0, errors

    assert same_tensors(Run(whole).checkpoint_path(STEPS), Run(killed).checkpoint_path(STEPS))
    assert same_tensors(Run(whole).generator_path, Run(killed).generator_path)
    assert without_speed(Run(whole)) == without_speed(Run(killed))
    assert Run(whole).samples_path.read_bytes() == Run(killed).samples_path.read_bytes()


@pytest.mark.slow
def test_killed_again_and_again_from_the_images_on():
    script = Path(__file__).parents[2] / "benchmarks" / "kills.py"
    done = subprocess.run([sys.executable, script, "--kills", "20"], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"\b20 kills\b.*\bbit for bit\b", done.stdout)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_interrupted_saves_and_says_how_to_go_on(tmp_path, train_options, number):
    run = tmp_path / "run"
    process = start([*train_options, "--steps", "100000", "--out", str(run)])
    while steps_logged(run) < 4:
        time.sleep(0.02)
        assert process.poll() is None, process.communicate()
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert f"sagan train --resume {run}" in output
    assert "Traceback" not in errors
    stopped = Run(run).checkpoints()[-1]
    assert stopped != Run(run).checkpoint_path(100000)
    assert Run(run).samples_path.exists()


def test_a_damaged_checkpoint_is_skipped_with_a_message(command, tmp_path, train_options):
    run = tmp_path / "run"
    assert command("train", *train_options, "--steps", "9", "--out", run)[0] == 0
    wanted = load_tensors(Run(run).checkpoint_path(9))
    newest = Run(run).checkpoints()[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    status, _, errors = command("train", "--resume", run, "--device", "cpu")
    assert status == 0, errors
    assert re.search(rf"{re.escape(str(newest))}\b.*\bdamaged\b", errors)
    again = load_tensors(Run(run).checkpoint_path(9))
    assert all(torch.equal(wanted[0][name], again[0][name]) for name in wanted[0])

    for path in Run(run).checkpoints():
        path.write_bytes(b"nothing")
    status, _, errors = command("train", "--resume", run, "--device", "cpu")
    assert status == 2
    assert re.search(rf"{re.escape(str(run))}\b.*\bcheckpoint\b", errors)
    assert "Traceback" not in errors
