"""A training run that diverges restarts by itself; the faults are put into real runs."""

import json
import math
import re
import shutil

import pytest
import torch

from sagan import ModelConfig, TrainingConfig
from sagan.files import load_tensors
from sagan.run import Run
from sagan.training.divergence import MAX_LOSS, DivergenceMonitor
from sagan.training.recorder import prune
from sagan.training.step import Trainer

STEPS = 10


def same(a, b):
    (x, meta_x), (y, meta_y) = (load_tensors(Run(run).checkpoint_path(STEPS)) for run in (a, b))
    return meta_x == meta_y and all(torch.equal(x[name], y[name]) for name in x)


@pytest.fixture
def spoil(monkeypatch):
    """Let a training step spoil a weight: `spoil(lambda trainer, step: ...)` returns after which steps."""
    step = Trainer.train_step

    def set_fault(due, value=math.nan):
        def spoilt(self, number, batches, *, measure=False):
            values = step(self, number, batches, measure=measure)
            if due(self, number + 1):
                self.generator.head.weight.data[0, 0, 0, 0] = value
            return values

        monkeypatch.setattr(Trainer, "train_step", spoilt)

    return set_fault


# The grid sees it at once, the log a step later.
@pytest.mark.parametrize("at", [4, pytest.param(5, marks=pytest.mark.slow)])
def test_it_restarts_with_other_random_numbers_reproducibly(command, tmp_path, train_options, spoil, at):
    options = [*train_options, "--steps", STEPS, "--checkpoint-every", 3]
    command("train", *options, "--out", tmp_path / "whole")
    spoil(lambda trainer, step: step == at and not trainer.restarts)
    for name in ("a", "b"):
        status, _, errors = command("train", *options, "--out", tmp_path / name)
        assert status == 0
        assert len(re.findall(r"step 3\b.*\b1 of 3\b", errors)) == 1
        assert re.search(rf"training: 100%.* {STEPS}/{STEPS} ", errors)  # rewound with the run
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "whole")
    rows = Run(tmp_path / "a").metrics()
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10]
    assert all(math.isfinite(value) for row in rows for value in row.values())


@pytest.mark.slow
def test_killed_after_a_restart_it_ends_the_same(command, tmp_path, train_options, spoil):
    options = [*train_options, "--steps", STEPS, "--checkpoint-every", 3]
    spoil(lambda trainer, step: step == 4 and not trainer.restarts)
    command("train", *options, "--out", tmp_path / "whole")

    def killed(trainer, step):
        if trainer.restarts and step == 8:
            raise KeyboardInterrupt
        return step == 4 and not trainer.restarts

    spoil(killed)
    assert command("train", *options, "--out", tmp_path / "killed")[0] == 130
    newest = Run(tmp_path / "killed").checkpoints()[-1]
    assert load_tensors(newest)[1] == {"step": 6, "detours": 1}
    spoil(lambda trainer, step: step == 4 and not trainer.restarts)
    assert command("train", "--resume", tmp_path / "killed")[0] == 0
    assert same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_it_gives_up_with_advice_and_keeps_what_was_good(command, tmp_path, train_options, spoil, value):
    spoil(lambda trainer, step: step == 5, value)
    folder = tmp_path / "run"
    status, _, errors = command("train", *train_options, "--steps", STEPS, "--checkpoint-every", 3, "--out", folder)
    assert status == 2
    last = errors.splitlines()[-1]
    assert re.search(r"\b4 times\b.*\bstep 3\b", last)
    assert f"--from {folder}" in last
    assert "--generator-lr 0.0002 --discriminator-lr 0.0004" in last  # half of those it was trained with
    assert [path.name for path in Run(folder).checkpoints()] == ["step-00000003.safetensors"]
    for path in (*Run(folder).checkpoints(), Run(folder).generator_path):
        assert all(t.isfinite().all() for t in load_tensors(path)[0].values())


def test_before_the_first_checkpoint_it_restarts_from_step_0(command, tmp_path, train_options, spoil):
    spoil(lambda trainer, step: step == 1 and trainer.restarts < 2)
    status, _, errors = command("train", *train_options, "--steps", 4, "--out", tmp_path / "run")
    assert status == 0
    assert len(re.findall(r"step 0\b.*\b[12] of 3\b", errors)) == 2


def test_what_the_monitor_notices():
    model = ModelConfig(resolution=32, latent_dim=8, base_channels=4)
    trainer = Trainer(model, TrainingConfig(), torch.device("cpu"))

    def problem(*losses):
        monitor = DivergenceMonitor()
        for discriminator, generator in losses:
            values = {"loss/discriminator": discriminator, "loss/generator": generator}
            monitor.update({name: torch.tensor(value) for name, value in values.items()})
        found = monitor.find_problem(trainer)
        assert monitor.find_problem(trainer) == found  # asking changes nothing
        return found

    good = (1.0, 1.0)
    assert problem() is None
    assert problem((2.0, -0.9 * MAX_LOSS), good) is None
    for bad, words in ((math.nan, r"\bloss\b"), (math.inf, r"\bloss\b"), (-2 * MAX_LOSS, r"\bloss\b.*2e\+05")):
        for losses in ((bad, 1.0), (1.0, bad)):
            assert re.search(words, problem(good, losses, good))  # though the last step is good
    assert problem(good) is None
    trainer.ema.network.state_dict()["blocks.0.bn1.running_var"][0] = math.inf
    assert "weights" in problem(good)


def test_a_folder_that_vanishes_is_not_made_again(command, tmp_path, train_options, spoil):
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"

    def vanish(trainer, step):
        if step == 5:
            shutil.move(folder, elsewhere)

    spoil(vanish)
    status, _, errors = command("train", *train_options, "--steps", STEPS, "--checkpoint-every", 3, "--out", folder)
    assert status == 2
    assert str(folder) in errors.splitlines()[-1]
    assert not folder.exists()
    shutil.move(elsewhere, folder)
    spoil(lambda trainer, step: False)
    assert command("train", "--resume", folder)[0] == 0


def test_killed_between_the_weights_and_the_checkpoint(command, tmp_path, train_options, monkeypatch):
    """Whichever of the two is written first, the other must not stay behind."""
    command("train", *train_options, "--steps", 3, "--out", tmp_path / "whole")

    def killed(*arguments):
        raise KeyboardInterrupt

    for name in ("sagan.training.recorder.write_checkpoint", "sagan.run.Run.save_generator"):
        folder = tmp_path / name
        with monkeypatch.context() as patch:
            patch.setattr(name, killed)
            assert command("train", *train_options, "--steps", 3, "--out", folder)[0] == 130
        assert command("train", "--resume", folder)[0] == 0
        mine, theirs = (load_tensors(Run(path).generator_path) for path in (folder, tmp_path / "whole"))
        assert all(torch.equal(mine[0][key], theirs[0][key]) for key in theirs[0])


def test_a_damaged_checkpoint_does_not_crowd_out_a_whole_one(command, tmp_path, train_options):
    folder = tmp_path / "run"
    command("train", *train_options, "--steps", 9, "--out", folder)
    run = Run(folder)
    run.checkpoint_path(9).write_bytes(b"damaged")
    prune(run, 6, None)
    assert run.checkpoints() == [run.checkpoint_path(6), run.checkpoint_path(9)]
    content = json.loads(run.config_path.read_text())
    content["config"]["output"]["keep"] = 1
    run.config_path.write_text(json.dumps(content))
    prune(Run(folder), 6, None)
    assert run.checkpoints() == [run.checkpoint_path(6), run.checkpoint_path(9)]


def test_too_large_networks_are_one_clear_line(command, tmp_path, train_options):
    status, _, errors = command("train", *train_options, "--base-channels", 10**9, "--out", tmp_path / "run")
    assert status == 2
    assert re.search(r"^sagan: .*\bmemory\b.*--batch-size\b", errors.splitlines()[-1])
