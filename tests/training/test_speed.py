"""Speed before and during training, and what is said of it."""

import math
from dataclasses import replace

import pytest
import torch

from sagan.config import Config, DataConfig, OutputConfig, TrainingConfig
from sagan.data import prepare
from sagan.distributed import Processes
from sagan.errors import UserError
from sagan.model.config import ModelConfig
from sagan.training import speed
from sagan.training.speed import FirstSteps, Speed, fitting_steps, try_out

CPU = torch.device("cpu")


@pytest.fixture
def config(image_folder):
    return Config(
        model=ModelConfig(resolution=32, base_channels=4, latent_dim=8),
        training=TrainingConfig(batch_size=4, precision="fp32", r1=0.1, penalty_every=3, steps=1000),
        data=DataConfig(source=str(image_folder)),
        output=OutputConfig(evaluate_every=0),
    )


@pytest.mark.parametrize(("evaluation", "every"), [(0.0, 0), (3.0, 100), (3.0, 7), (20.0, 1000)])
def test_the_steps_that_fit_take_the_budget_and_no_more(evaluation, every):
    measured = Speed(0.5, evaluation, None)
    steps = fitting_steps(600, measured, every, spent=20)
    assert 20 + measured.duration(steps, every) <= 0.95 * 600
    assert 20 + measured.duration(steps + 2, every) + evaluation > 0.95 * 600


def test_the_duration_counts_evaluations_every_so_often_and_after_the_last_step():
    assert Speed(0.5, 3.0, None).duration(200, 100) == 100 + 2 * 3
    assert Speed(0.5, 3.0, None).duration(201, 100) == 100.5 + 3 * 3
    assert Speed(0.5, 3.0, None).duration(200, 0) == 100


def test_a_budget_that_is_too_short_is_an_error():
    with pytest.raises(UserError, match=r"--budget: 10 s\b.*\b4 s\b.*\b6 s\b"):
        fitting_steps(10, Speed(4.0, 6.0, None), 100)


def test_a_trial_stops_at_its_limit(config, monkeypatch):
    monkeypatch.setattr(speed, "TRIAL_TOLERANCE", -1)  # it never settles
    steps = []
    train = speed.Trainer.train_step
    monkeypatch.setattr(speed.Trainer, "train_step", lambda self, step, *rest: (steps.append(step), train(self, step, *rest)))  # fmt: skip # noqa: E501
    store = prepare(config.data, resolution=32, image_channels=3, progress=False)
    for limit, blocks in ((0.0, 1), (math.inf, speed.TRIAL_BLOCKS)):
        steps.clear()
        assert speed.seconds_per_step(config, store, Processes(CPU), limit=limit) > 0
        assert len(steps) == 4 + 9 * blocks


@pytest.mark.parametrize("every", [0, 100])
def test_a_trial_evaluates_only_if_the_run_will(config, monkeypatch, every):
    class Monitor:
        def __init__(self, *_, **__):
            pass

        def __call__(self, generator, *, seed):
            torch.zeros(200, 200).exp()

    monkeypatch.setattr("sagan.training.recorder.Monitor", Monitor)
    store = prepare(config.data, resolution=32, image_channels=3, progress=False)
    config = replace(config, output=replace(config.output, evaluate_every=every))
    measured = try_out(config, store, Processes(CPU), budget=0.1)
    assert measured.step > 0
    assert (measured.evaluation > 0) is (every > 0)
    assert measured.memory > 1e8


def test_the_speed_of_the_first_steps_is_told_once(config, monkeypatch):
    """A clock of our own: 2 s a step, and 100 s of other work after step 10, which are not counted."""
    now = [0.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    first = FirstSteps(config, 0, CPU)
    told = {}
    for step in range(1, 60):
        now[0] += 2
        line = first.update(step, interrupted=step == 10)
        if step == 10:
            now[0] += 100
        if line:
            told[step] = line
    # Warm-up until 4; counted from 11, after the interruption, for 9 steps, three penalties' rhythm.
    assert list(told) == [20]
    assert told[20].startswith("speed: 2 s a step, 2 images/s")
    assert "about 32 min 40 s left" in told[20]  # 980 steps
