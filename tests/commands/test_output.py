"""What commands print: saved first, replaced where the terminal cannot show it, and never in control of it."""

import json
import os
import re
import subprocess
import sys

import pytest

from helpers.features import save_means
from helpers.runs import make_run
from sagan.run import Run

ESC = "\x1b[31mred\x1b]0;title\x07"


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("cp1252", marks=pytest.mark.slow)])
def test_an_evaluation_survives_a_terminal_that_cannot_show_it(tmp_path, image_folder, encoding):
    run = make_run(tmp_path / "run", ("猫", "dogs"), source=str(image_folder))
    words = ["evaluate", str(run.path), str(image_folder), "--count", "8", "--device", "cpu"]
    words += ["--features", str(save_means(tmp_path / "means.pt"))]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-m", "sagan", *words], env=environment, capture_output=True, timeout=100)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert b"Frechet distance" in done.stdout
    (path,) = run.evaluations_path.glob("*.json")
    assert "猫" in json.loads(path.read_text(encoding="utf-8"))["generated"]["class counts"]


@pytest.mark.parametrize("words", [["evaluate", "--count", "8", "--patch-correlation", "False"], ["data"]], ids=str)
def test_results_are_saved_before_they_are_printed(command, tmp_path, image_folder, monkeypatch, words):
    run = make_run(tmp_path / "run", source=str(image_folder))
    name, *options = words
    of, out = (run.path, "x.json") if name == "evaluate" else (image_folder, "x.png")

    def refuse(*_, **__):
        raise OSError("the terminal is gone")

    monkeypatch.setattr("sagan.text.PrintableStream.write", refuse)
    status, _, errors = command(name, of, *options, "--out", tmp_path / out)
    assert (status, "the terminal is gone" in errors) == (2, True)
    assert (tmp_path / out).exists()


def test_names_do_not_control_the_terminal(command, tmp_path, image_folder, train_options):
    (image_folder / "cats").rename(image_folder / ESC)
    folder = tmp_path / f"run{ESC}"
    features = save_means(tmp_path / f"means{ESC}.pt")
    lines = []
    for words in (
        ["data", image_folder, "--out", tmp_path / f"{ESC}.png"],
        ["train", *train_options, "--steps", 2, "--out", folder],
        ["train", "--resume", folder, "--steps", 3],
        ["train", *train_options, "--steps", 2, "--from", folder, "--out", tmp_path / f"second{ESC}"],
        ["sample", folder],
        ["sample", folder, "--classes", ESC, "nope"],
        ["attend", folder, "--network", "both"],
        ["evaluate", folder, "--count", 8, "--patch-correlation", "False", "--features", features],
        ["interpolate", folder],
        ["plot", folder],
        ["report", folder],
        ["export", folder, "--to", "safetensors"],
        ["push", folder, "user/name", "--dry-run", "True"],
        ["data pack", image_folder, "--out", tmp_path / f"shards{ESC}"],
    ):
        status, output, errors = command(*words[0].split(), *words[1:])
        assert status == (2 if "nope" in words else 0), (words, errors)
        lines += re.split(r"[\n\r]+", output + errors)
    assert Run(folder).info.class_names == (ESC, "dogs")
    assert sum("?[31mred" in line for line in lines) > 10
    assert all(line.replace("\t", "").isprintable() for line in lines), [line for line in lines if "\x1b" in line]
