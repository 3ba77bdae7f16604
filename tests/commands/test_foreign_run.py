"""A run from elsewhere: code and paths in its config.json are used only where this command line names them."""

import json
import re

import pytest

from helpers.features import save_means
from sagan.run import Run


@pytest.fixture
def run(trained_run, tmp_path):
    """A run stopped after six of eight steps; its config.json names a program and a folder."""
    save_means(tmp_path / "means.pt")
    path = trained_run.config_path
    content = json.loads(path.read_text())
    content["config"]["training"]["steps"] = 8
    content["config"]["output"] |= {
        "evaluate_features": str(tmp_path / "means.pt"),
        "evaluate_every": 1,
        "evaluate_count": 8,
    }
    content["config"]["data"]["cache"] = str(tmp_path / "elsewhere")
    path.write_text(json.dumps(content))
    return Run(trained_run.path)


def test_a_program_named_by_a_run_is_not_run(run, command, monkeypatch):
    opened = []
    monkeypatch.setattr("torch.jit.load", lambda path, **_: opened.append(path))
    status, _, errors = command("train", "--resume", run.path)
    assert (status, opened) == (2, [])
    assert errors.count("\n") == 1
    assert re.search(r"config\.json\b.*means\.pt\b.*--evaluate-features\b", errors)


def test_a_program_that_the_command_line_names_too_is_run(run, command, tmp_path):
    status, _, errors = command("train", "--resume", run.path, "--evaluate-features", tmp_path / "means.pt")
    assert status == 0, errors
    assert any("frechet_distance/means" in row for row in run.metrics())


@pytest.mark.parametrize("command_line", [["train", "--resume"], ["attend", "--network", "discriminator"]])
def test_a_folder_named_by_a_run_is_not_written_to(run, command, tmp_path, command_line):
    features = ["--evaluate-features", tmp_path / "means.pt"] if command_line[0] == "train" else []
    assert command(*command_line, run.path, *features)[0] == 0
    assert not (tmp_path / "elsewhere").exists()


def test_a_cache_on_the_command_line_is_used_from_start_to_resuming(command, train_options, tmp_path):
    out, cache = tmp_path / "run", tmp_path / "mine"
    assert command("train", *train_options, "--steps", 2, "--out", out, "--cache", cache)[0] == 0
    assert list((cache / "stores").iterdir())
    assert not (tmp_path / "cache").exists()
    assert command("train", "--resume", out, "--cache", cache)[0] == 0
    assert not (tmp_path / "cache").exists()
