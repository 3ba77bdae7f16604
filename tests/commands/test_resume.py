"""sagan train --resume: strict about options, useful for more steps, and independent of where data and command are."""

import json
import re
import shutil
from dataclasses import fields

import pytest
import torch

from helpers.features import save_means
from helpers.runs import make_run
from sagan.config import DataConfig, OutputConfig, TrainingConfig
from sagan.files import load_tensors
from sagan.locate import absolute_source
from sagan.model.config import ModelConfig
from sagan.run import Run


@pytest.fixture
def run(command, train_options, tmp_path):
    assert command("train", *train_options, "--steps", 4, "--out", tmp_path / "run")[0] == 0
    return Run(tmp_path / "run")


def checkpoint(run, step):
    return load_tensors(run.checkpoint_path(step))[0]


def test_a_finished_run_continues_as_one_that_was_started_with_more_steps(command, train_options, tmp_path):
    train_options += ["--lr-decay-from", "1"]
    assert command("train", *train_options, "--steps", 4, "--out", tmp_path / "run")[0] == 0
    run = Run(tmp_path / "run")
    status, output, errors = command("train", "--resume", run.path, "--steps", 8, "--device", "cpu")
    assert status == 0, errors
    assert re.search(r"\b8 steps, not 4\b", output)
    assert Run(run.path).info.config.training.steps == 8
    assert command("train", *train_options, "--steps", 8, "--out", tmp_path / "straight")[0] == 0
    ours, theirs = checkpoint(run, 8), checkpoint(Run(tmp_path / "straight"), 8)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(t, theirs[name]) for name, t in ours.items())
    content = [json.loads((folder / "config.json").read_text()) for folder in (run.path, tmp_path / "straight")]
    assert content[0] == content[1]


def test_the_rates_are_those_of_a_run_started_with_more_steps(command, train_options, tmp_path):
    decay = ["--lr-decay-from", "0.5", "--generator-lr", "0.001", "--log-every", 1]
    assert command("train", *train_options, *decay, "--steps", 4, "--out", tmp_path / "run")[0] == 0
    _, output, _ = command("train", "--resume", tmp_path / "run", "--steps", 8)
    assert re.search(r"rates\b.*\b8 steps\b.*\bstep 4\b.*\brise again\b", output)
    rates = {row["step"]: row["learning_rate/generator"] for row in Run(tmp_path / "run").metrics()}
    assert [rates[step] for step in (3, 4)] == pytest.approx([0.001, 0.0005])
    assert [rates[step] for step in range(5, 9)] == pytest.approx([0.001, 0.00075, 0.0005, 0.00025])


def test_an_unfinished_run_may_end_earlier_but_not_before_what_is_done(command, run):
    assert command("train", "--resume", run.path, "--steps", 9)[0] == 0
    before = run.config_path.read_bytes()
    status, output, errors = command("train", "--resume", run.path, "--steps", 8)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert re.search(r"--steps 8\b.*\b9 steps\b", errors)
    assert run.config_path.read_bytes() == before
    content = json.loads(before)
    content["config"]["training"]["steps"] = 100
    run.config_path.write_text(json.dumps(content))
    assert command("train", "--resume", run.path, "--steps", 10)[0] == 0
    assert Run(run.path).metrics()[-1]["step"] == 10


def options_of_a_run():
    """Every option that belongs to a run, as words with the value that is also its default."""
    values = {"background": "255 255 255", "augment": "color", "go_on": "False"}
    yield from (["--preset", "small"], ["--out", "x"], ["--go_on", "False"])
    for part in (DataConfig, ModelConfig, TrainingConfig, OutputConfig):
        for field in fields(part):
            if field.name in ("source", "cache", "steps", "evaluate_features", "num_classes", "start"):
                continue
            default = values.get(field.name, field.default)
            yield [f"--{field.name}", *("16 self" if isinstance(default, tuple) else str(default)).split()]


@pytest.mark.parametrize("spelling", ["underscores", "dashes", "equals"])
def test_every_other_option_is_an_error_that_names_it(command, tmp_path, spelling):
    run = make_run(tmp_path / "run")
    before = run.config_path.read_bytes()
    options = [*options_of_a_run(), ["--from", str(run.path)]]
    assert len(options) > 45
    for option, *values in options if spelling == "dashes" else options[::4]:
        dashed = option.replace("_", "-")
        words = [option if spelling == "underscores" else dashed, *values]
        if spelling == "equals":
            words[:2] = [f"{dashed}={values[0]}"]
        status, output, errors = command("train", "--resume", run.path, "--steps", 8, *words)
        assert (status, output, errors.count("\n")) == (2, "", 1), words
        assert re.match(rf"sagan: {dashed}: --resume\b.*--steps\b", errors), errors
    assert run.config_path.read_bytes() == before


def test_features_other_than_the_run_s_are_refused(command, tmp_path):
    run = make_run(tmp_path / "run")
    status, _, errors = command("train", "--resume", run.path, "--evaluate-features", "inception")
    assert (status, errors.count("\n")) == (2, 1)
    assert re.search(r"--evaluate-features inception\b.*\befficientnet-lite0\b", errors)


def test_a_job_that_goes_on_may_ask_for_more_steps_only(command, train_options, tmp_path):
    options = [*train_options, "--out", tmp_path / "run", "--go-on", "True"]
    for steps in (4, 4, 6):
        assert command("train", *options, "--steps", steps)[0] == 0
    assert Run(tmp_path / "run").metrics()[-1]["step"] == 6
    status, _, errors = command("train", *options, "--steps", 8, "--seed", 1, "--r1", 2)
    assert (status, errors.count("\n")) == (2, 1)
    assert re.search(r"other options \(--r1, --seed\)", errors)


def test_moved_data_are_accepted_and_other_data_are_not(command, run, image_folder, tmp_path):
    moved = tmp_path / "elsewhere" / "images"
    shutil.copytree(image_folder, moved)
    shutil.rmtree(image_folder)
    status, _, errors = command("train", "--resume", run.path, "--steps", 5)
    assert (status, errors.count("\n")) == (2, 1)
    assert re.search(rf"{re.escape(str(image_folder))} is gone\b.*--data\b", errors)

    status, output, errors = command("train", "--resume", run.path, "--steps", 5, "--data", moved)
    assert status == 0, errors
    assert f"the same in {moved}" in output
    assert Run(run.path).info.config.data.source == str(moved)

    (moved / "cats" / "0.png").unlink()
    other = tmp_path / "other"
    shutil.copytree(moved, other)
    status, _, errors = command("train", "--resume", run.path, "--steps", 6, "--data", other)
    assert (status, errors.count("\n")) == (2, 1)
    assert re.search(rf"--data {re.escape(str(other))} is not what\b.*\bcats/0\.png", errors)
    assert Run(run.path).info.config.data.source == str(moved)
    assert Run(run.path).info.config.training.steps == 5


def test_a_run_finds_its_data_from_another_folder(command, train_options, image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(image_folder.parent)
    options = [word if word != str(image_folder) else "images" for word in train_options]
    assert command("train", *options, "--steps", 2, "--out", "run")[0] == 0
    assert Run("run").info.config.data.source == str(image_folder)
    assert command("train", *options, "--from", "run", "--steps", 2, "--out", "second")[0] == 0
    assert Run("second").info.config.training.start == str(tmp_path / "run")
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    assert command("train", "--resume", "../run", "--steps", 3)[0] == 0
    assert command("attend", "../run", "--network", "discriminator")[0] == 0
    assert command("evaluate", "../run", "--count", 8, "--patch-correlation", "False")[0] == 0


@pytest.mark.parametrize("form", ["{}", "shards-{{0..3}}.tar", "*.tar"])
def test_sources_become_absolute_where_they_are_paths(tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "images").mkdir(parents=True)
    (tmp_path / "images").mkdir()
    source = form.format("images")
    assert absolute_source(source) == str(tmp_path / source)
    assert absolute_source("~/images") == str(tmp_path / "home" / "images")
    for name in ("", "robots", "digits", "hf:user/name", "https://host/a-{0..3}.tar", "nothing-here", "~nobody-here"):
        assert absolute_source(name) == name


def test_a_home_folder_is_expanded_for_every_command(command, train_options, tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (home, here):
        folder.mkdir()
    save_means(home / "means.pt")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    assert command("train", *train_options, "--steps", 2, "--out=~/run")[0] == 0
    assert command("train", *train_options, "--steps", 2, "--out=~/second", "--from", "~/run")[0] == 0
    assert command("train", "--resume", "~/run", "--steps", 3, "--cache", "~/cache")[0] == 0
    for words in (
        ["sample", "~/run", "--out", "~/samples.png"],
        ["attend", "~/run", "--out=~/maps.png"],
        ["plot", "~/run", "--out", "~/curves.png"],
        ["interpolate", "~/run", "--out", "~/walk.png"],
        ["report", "~/run", "--out", "~/report.html"],
        ["export", "~/run", "--to", "safetensors", "--out", "~/plain.safetensors"],
        ["evaluate", "~/run", "--count", 8, "--out", "~/evaluation.json", "--features", "~/means.pt"],
        ["data", "digits", "--out", "~/sheet.png", "--cache", "~/cache"],
        ["data pack", "digits", "--out", "~/shards", "--cache", "~/cache"],
        ["push", "~/run", "user/name", "--dry-run", "True"],
    ):
        status, _, errors = command(*words[0].split(), *words[1:])
        assert status == 0, (words, errors)
    names = {path.name for path in home.iterdir()}
    assert names >= {"run", "second", "samples.png", "maps.png", "curves.png", "walk.png", "report.html", "shards"}
    assert names >= {"plain.safetensors", "evaluation.json", "sheet.png", "cache"}
    assert list(here.iterdir()) == []


def test_names_of_classes_are_no_paths(command, tmp_path):
    run = make_run(tmp_path / "run", ("~", "~root"))
    assert command("sample", run.path, "--classes", "~", "~root", "--count", 1)[0] == 0


def test_what_reads_changed_data_says_so_in_one_line(command, run, image_folder, tmp_path):
    features = ["--features", save_means(tmp_path / "means.pt"), "--patch-correlation", "False"]
    evaluate = ["evaluate", run.path, "--count", 8, *features, "--out", tmp_path / "x.json"]
    attend = ["attend", run.path, "--network", "both"]
    for words in (evaluate, attend):
        assert "has changed" not in command(*words)[1]
    (image_folder / "dogs" / "3.png").unlink()
    for words in (evaluate, attend):
        status, output, errors = command(*words)
        assert status == 0, errors
        (note,) = [line for line in output.splitlines() if "has changed" in line]
        assert re.match(rf"note: {re.escape(str(image_folder))} has changed since training \(gone: dogs/3\.png\)", note)
    remarks = json.loads((tmp_path / "x.json").read_text())["remarks"]
    assert sum("dogs/3.png" in remark for remark in remarks) == 1
    assert "has changed" not in command(*evaluate, image_folder)[1]  # named now, so not the run's

    shutil.rmtree(image_folder)
    for words, advice in ((evaluate, "after the run"), (attend, "--data")):
        status, _, errors = command(*words)
        assert (status, errors.count("\n")) == (2, 1)
        assert re.search(rf"{re.escape(str(image_folder))} is gone\b.*{advice}", errors)
