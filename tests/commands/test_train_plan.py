"""What `sagan train` says before and after, --budget and --dry-run."""

import re
import shlex
from pathlib import Path

import pytest

from sagan.cli import COMMANDS, main
from sagan.run import Run
from sagan.training import speed
from sagan.training.speed import Speed


@pytest.fixture
def half_a_second(monkeypatch):
    """Half a second a step, whatever this machine needs; the trial itself takes no time."""
    budgets = []

    def try_out(config, store, processes, *, budget):
        budgets.append(budget)
        return Speed(0.5, 0.0, 3 * 2**30)

    monkeypatch.setattr(speed, "try_out", try_out)
    return budgets


def test_before_training_it_says_what_will_happen(command, train_options, tmp_path):
    status, output, _ = command("train", *train_options, "--steps", 2, "--out", tmp_path / "run")
    assert status == 0
    parameters = [f"{sum(p.numel() for p in network.parameters()):,}" for network in networks(tmp_path / "run")]
    for name, facts in (
        ("data", r"24 images, 2 classes, 32 px, from \S*images"),
        ("networks", rf"generator {parameters[0]} parameters, discriminator {parameters[1]}"),
        ("training", r"2 steps of 4 images; fp32 on cpu"),
        ("run", rf"{tmp_path / 'run'}; samples every 4 steps in {tmp_path / 'run' / 'samples'}"),
    ):
        assert re.search(rf"^{name} +{facts}$", output, re.MULTILINE), output


def networks(path):
    from sagan.model.build import build_discriminator, build_generator

    model = Run(path).info.config.model
    return build_generator(model), build_discriminator(model)


def test_a_dry_run_measures_and_writes_nothing(command, train_options, tmp_path):
    status, output, errors = command("train", *train_options, "--steps", 40, "--dry-run", "--out", tmp_path / "run")
    assert status == 0, errors
    assert re.search(r"^speed +[\d.]+ s a step, [\d.]+ images/s; [\d.]+ GiB of memory; about .* to train", output, re.M)
    assert "measuring the speed" in errors  # before the trial, which may take minutes
    assert not (tmp_path / "run").exists()
    assert "done" not in output


def test_a_trial_ends_after_a_minute_without_a_budget(command, train_options, monkeypatch):
    limits = []

    def seconds_per_step(config, store, processes, *, limit):
        limits.append(limit)
        return 0.5

    monkeypatch.setattr(speed, "seconds_per_step", seconds_per_step)
    assert command("train", *train_options, "--dry-run")[0] == 0
    assert limits == [speed.TRIAL_SECONDS]


def test_a_dry_run_of_a_resumed_run_leaves_it_as_it_was(command, train_options, tmp_path, half_a_second):
    assert command("train", *train_options, "--steps", 2, "--out", tmp_path / "run")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    status, output, _ = command("train", "--resume", tmp_path / "run", "--steps", 42, "--dry-run")
    assert status == 0
    assert "42 steps of 4 images, 2 of them done" in output
    assert "about 20 s to train" in output
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_a_budget_chooses_the_steps_and_ends_with_them(command, train_options, tmp_path, half_a_second):
    decay = ["--lr-decay-from", 0.5]
    status, output, errors = command("train", *train_options, *decay, "--budget", "4s", "--out", tmp_path / "run")
    assert status == 0, errors
    run = Run(tmp_path / "run")
    steps = run.info.config.training.steps
    assert steps == 7  # 0.95 * 4 s
    assert "7 steps fit 4 s" in output
    assert run.checkpoints()[-1].stem == "step-00000007"
    rates = [row["learning_rate/generator"] for row in run.metrics()]
    assert rates[-1] < 0.4 * rates[0]  # the schedule's end

    status, output, errors = command("train", "--resume", run.path, "--budget", "3s")
    assert status == 0, errors
    assert Run(run.path).info.config.training.steps == 7 + 5
    assert "continuing to 12 steps, not 7" in output
    assert run.checkpoints()[-1].stem == "step-00000012"
    assert half_a_second == [4, 3]


def test_a_requeued_job_keeps_the_steps_that_its_budget_chose(command, train_options, tmp_path, half_a_second):
    options = [*train_options, "--go-on", "True", "--out", tmp_path / "run", "--budget", "2s"]
    for _ in range(2):
        assert command("train", *options)[0] == 0
        assert Run(tmp_path / "run").info.config.training.steps == 3
    assert half_a_second == [2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", "soon"], r"--budget soon\b.*\b2h\b"),
        (["--budget", "1h", "--steps", "5"], r"--budget\b.*--steps"),
        (["--budget", "0.2s"], r"--budget\b.*0\.5 s"),
    ],
)
def test_wrong_budgets_are_one_line(command, train_options, tmp_path, half_a_second, options, message):
    status, output, errors = command("train", *train_options, *options, "--out", tmp_path / "run")
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert re.search(message, errors)
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_there_is_refused_before_anything_is_measured(command, train_options, tmp_path, half_a_second):
    options = [*train_options, "--out", tmp_path / "run"]
    assert command("train", *options, "--steps", 1)[0] == 0
    assert command("train", *options, "--budget", "1h")[0] == 2
    assert half_a_second == []


def test_the_last_lines_are_commands_that_a_shell_understands(command, train_options, tmp_path, capsys):
    folder = tmp_path / "it's mine (2)"
    status, output, _ = command("train", *train_options, "--steps", 3, "--out", folder)
    assert status == 0
    assert re.search(r"^done: 3 steps", output, re.MULTILINE)
    for file in ("generator.safetensors", "samples.png", "attend.png"):
        assert f"{folder / file} (step 3)" in output
    words = [shlex.split(line) for line in output.partition("next:\n")[2].splitlines()]
    assert [w[1] for w in words] == ["sample", "evaluate", "attend", "report", "train"]
    assert all(w[0] == "sagan" and w[1] in COMMANDS and str(folder) in w for w in words)
    for w in (words[0], words[2], words[4]):
        assert main(w[1:]) == 0, capsys.readouterr().err


def test_the_folder_of_the_images_does_not_become_the_run(command, train_options, tmp_path):
    images = Path(train_options[train_options.index("--data") + 1])
    before = sorted(images.rglob("*"))
    status, _, errors = command("train", *train_options, "--out", images)
    assert (status, errors) == (
        2,
        f"sagan: --out {images} is the folder of the images: choose another, such as one inside\n",
    )
    assert sorted(images.rglob("*")) == before
