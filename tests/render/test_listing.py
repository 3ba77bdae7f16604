"""`sagan list`: a line per run, whatever the folder contains besides."""

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
    assert [line.split("  ")[0] for line in lines] == ["name", "runs/b", "runs/deep/a", "runs/other"]
    assert "32 px, 3 classes" in lines[1]
    assert "  1,300 of 100,000  " in lines[1]
    assert "90.25 (EfficientNet-Lite0, step 100, during training)" in lines[1]
    assert lines[1].endswith("runs/b/samples/step-00000200.png")
    assert lines[2].split() == ["runs/deep/a", "32", "px", "-", "-", "-"]
    assert lines[3].split("  ", 1)[1].strip().startswith("not a run")
    assert list(find_runs(Path("runs/deep"))) == [Path("runs/deep/a")]


def test_nothing_to_list_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no runs in runs: start with sagan train"):
        list_models()
    with pytest.raises(UserError, match="nowhere is not a folder"):
        list_models(Path("nowhere"))
