"""From a run to its curves and film strip: sagan plot from one end to the other, and what can go wrong."""

import re

import numpy as np
import pytest
from PIL import Image

from helpers.runs import make_run
from sagan.figures.grid import save


def test_from_a_trained_run_to_its_figures(command, tmp_path, train_options):
    folder = tmp_path / "run"
    assert command("train", *train_options, "--steps", 8, "--out", folder)[0] == 0
    status, output, errors = command("plot", folder)
    assert (status, errors) == (0, "")
    paths = output.splitlines()
    assert paths == [str(folder / "curves.png"), str(folder / "samples-over-time.png")]
    assert Image.open(paths[0]).width > 1000
    # The last row of the strip holds images of the last grid: five of each class.
    strip, grid = (np.asarray(Image.open(path)) for path in (paths[1], folder / "samples.png"))
    left = strip.shape[1] - 12 - 10 * 67 + 3
    np.testing.assert_array_equal(
        strip[-76:-12, left : left + 5 * 67 - 3], grid[12:76, -12 - 8 * 67 + 3 :][:, : 5 * 67 - 3]
    )

    status, _, _ = command("plot", folder, "--out", tmp_path / "elsewhere" / "x.svg")
    assert status == 0
    assert sorted(p.name for p in (tmp_path / "elsewhere").iterdir()) == ["samples-over-time.png", "x.svg"]


def test_a_run_without_samples_has_curves_alone(command, tmp_path):
    run = make_run(tmp_path / "run", rows=[{"step": 1, "distance": 4.0}])
    status, output, _ = command("plot", run.path)
    lines = output.splitlines()
    assert (status, lines[0]) == (0, str(run.curves_path))
    assert len(lines) == 2
    assert "grid" in lines[1]
    assert not run.film_strip_path.exists()


@pytest.mark.parametrize("text", [None, "", '{"step": 20, "lo', '{"step": 20}\n', '[1]\n7\n{"step": "x", "fid": 1}\n'])
def test_a_log_with_nothing_in_it(command, tmp_path, text):
    run = make_run(tmp_path / "run", samples=[4])
    if text is not None:
        run.metrics_path.write_text(text)
    status, output, errors = command("plot", run.path)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert str(run.metrics_path) in errors


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_a_file_that_is_not_a_grid_is_named(command, tmp_path, content):
    run = make_run(tmp_path / "run", rows=[{"step": 1, "fid": 4.0}], samples=[4, 8])
    if content is None:
        save(Image.new("RGB", (90, 90)), run.sample_path(8))
    else:
        run.sample_path(8).write_bytes(content)
    status, _, errors = command("plot", run.path)
    assert (status, errors.count("\n")) == (2, 1)
    assert str(run.sample_path(8)) in errors
    assert ("damaged" in errors) == (content is not None)


def test_where_a_figure_cannot_be_written(command, tmp_path):
    run = make_run(tmp_path / "run", rows=[{"step": 1, "fid": 4.0}])
    (tmp_path / "file").write_text("")
    for out, message in (
        (tmp_path / "file" / "x.png", r"x\.png\b"),
        ("x.pdf", r"x\.pdf\b.*\.png\b.*\.svg\b"),
    ):
        status, _, errors = command("plot", run.path, "--out", out)
        assert (status, errors.count("\n")) == (2, 1)
        assert re.search(message, errors)
    assert command("plot", tmp_path)[0] == 2
