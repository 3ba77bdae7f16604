"""`sagan list`: a line per run, whatever the folder contains besides."""

import json
from pathlib import Path

import pytest

from helpers.runs import make_run
from sagan import trained
from sagan.errors import UserError
from sagan.render.listing import find_runs, list_models


@pytest.fixture(autouse=True)
def _no_models(tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "FOLDER", tmp_path / "none")
    monkeypatch.chdir(tmp_path)


def test_runs_under_a_folder(tmp_path):
    key = "frechet_distance/EfficientNet-Lite0"
    rows = [{"step": 100, key: 90.25}, {"step": 200, key: 95.0}, {"step": 1300, "loss/generator": 1.0}]
    make_run(tmp_path / "runs" / "b", rows=rows, samples=(100, 200))
    make_run(tmp_path / "runs" / "deep" / "a", names=())
    (tmp_path / "runs" / "b" / "samples.png").touch()  # of the best step: older
    make_run(tmp_path / "runs" / "b" / "inside")  # of a run: not looked at
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "runs" / "other" / "config.json").write_text("{}")
    lines = list_models().splitlines()
    runs = [line for line in lines if not line.startswith(" ")]
    assert [line.split("  ")[0] for line in runs] == ["name", "runs/b", "runs/deep/a", "runs/other"]
    assert "32 px, 3 classes" in runs[1]
    assert "  1,300 of 100,000  " in runs[1]
    assert "90.25 Lite0 in training, step 100" in runs[1]
    assert lines[lines.index(runs[1]) + 1].strip() == "runs/b/samples/step-00000200.png"
    assert runs[2].split() == ["runs/deep/a", "32", "px", "-", "-"]
    assert runs[3].split("  ", 1)[1].strip().startswith("not a run")
    assert list(find_runs(Path("runs/deep"))) == [Path("runs/deep/a")]


@pytest.mark.parametrize("name", ["a", "emoji-64px-seed-3-longer"])
def test_it_fits_a_hundred_columns_and_the_grids_are_found(tmp_path, name):
    run = make_run(tmp_path / "runs" / name, rows=[{"step": 90_000, "loss/generator": 1.0}], samples=(90_000,))
    evaluation = {"generated": {"step": 90_000, "pictures": 2000}, "reference": {"pictures": 2000}}
    for number, network in enumerate(("EfficientNet-Lite0", "EfficientNet-Lite2")):
        metrics = [{"name": "Frechet distance", "value": 81.4 + number}]
        run.evaluations_path.mkdir(exist_ok=True)
        text = json.dumps({**evaluation, "features": {"network": network}, "figures": metrics})
        (run.evaluations_path / f"{number}.json").write_text(text)
    text = list_models()
    assert "81.4 Lite0, 82.4 Lite2" in text
    assert max(map(len, text.splitlines())) <= 100
    assert Path(text.split()[-1]).resolve() == run.sample_path(90_000)


def test_grids_are_named_from_the_current_folder(tmp_path, monkeypatch):
    make_run(tmp_path / "runs" / "a", samples=(3,))
    monkeypatch.chdir(tmp_path / "runs")
    assert list_models(tmp_path / "runs").split()[-1] == "a/samples/step-00000003.png"


def test_nothing_to_list_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no runs in runs: start with sagan train"):
        list_models()
    with pytest.raises(UserError, match="nowhere is not a folder"):
        list_models(Path("nowhere"))
