"""From a run to its curves and film strip: sagan plot from one end to the other, and what can go wrong."""

import json

import numpy as np
import pytest
from PIL import Image

from sagan import Config, ModelConfig
from sagan.cli import main
from sagan.figures.grid import draw_grid, save
from sagan.run import Run, RunInfo

RNG = np.random.default_rng(0)


def plot(capsys, *arguments):
    status = main(["plot", *map(str, arguments)])
    output = capsys.readouterr()
    return status, output.out.splitlines(), output.err


def run_with(path, rows=(), samples=()):
    """A run of two classes with a log and grids of noise, without training."""
    model = ModelConfig(resolution=32, num_classes=2, latent_dim=8, base_channels=4)
    run = Run.create(path, RunInfo(Config(model=model), ("cats", "dogs"), "key"))
    run.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in samples:
        images = RNG.integers(256, size=(16, 32, 32, 3), dtype=np.uint8)
        save(draw_grid(images, columns=8, row_labels=["cats", "dogs"]), run.sample_path(step))
    return run


def test_from_a_trained_run_to_its_figures(capsys, tmp_path, train_options):
    folder = tmp_path / "run"
    assert main(["train", *train_options, "--steps", "8", "--out", str(folder)]) == 0
    capsys.readouterr()
    status, paths, errors = plot(capsys, folder)
    assert (status, errors) == (0, "")
    assert paths == [str(folder / "curves.png"), str(folder / "samples-over-time.png")]
    assert Image.open(paths[0]).width > 1000
    # The last row of the strip holds pictures of the last grid: five of each class.
    strip, grid = (np.asarray(Image.open(path)) for path in (paths[1], folder / "samples.png"))
    left = strip.shape[1] - 12 - 10 * 67 + 3
    np.testing.assert_array_equal(
        strip[-76:-12, left : left + 5 * 67 - 3], grid[12:76, -12 - 8 * 67 + 3 :][:, : 5 * 67 - 3]
    )

    status, paths, _ = plot(capsys, folder, "--out", tmp_path / "elsewhere" / "x.svg")
    assert status == 0
    assert sorted(p.name for p in (tmp_path / "elsewhere").iterdir()) == ["samples-over-time.png", "x.svg"]


def test_a_run_without_samples_has_curves_alone(capsys, tmp_path):
    run = run_with(tmp_path / "run", [{"step": 1, "distance": 4.0}])
    status, lines, _ = plot(capsys, run.path)
    assert (status, lines[0]) == (0, str(run.curves_path))
    assert "no grid of samples yet" in lines[1]
    assert not run.film_strip_path.exists()


@pytest.mark.parametrize("text", [None, "", '{"step": 20, "lo', '{"step": 20}\n', '[1]\n7\n{"step": "x", "fid": 1}\n'])
def test_a_log_with_nothing_in_it(capsys, tmp_path, text):
    run = run_with(tmp_path / "run", samples=[4])
    run.metrics_path.unlink()
    if text is not None:
        run.metrics_path.write_text(text)
    status, lines, errors = plot(capsys, run.path)
    assert (status, lines, errors.count("\n")) == (2, [], 1)
    assert f"{run.metrics_path} holds nothing to draw yet" in errors


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_a_grid_that_is_none_is_named(capsys, tmp_path, content):
    run = run_with(tmp_path / "run", [{"step": 1, "fid": 4.0}], samples=[4, 8])
    if content is None:
        save(Image.new("RGB", (90, 90)), run.sample_path(8))
    else:
        run.sample_path(8).write_bytes(content)
    status, _, errors = plot(capsys, run.path)
    assert (status, errors.count("\n")) == (2, 1)
    what = "is not a grid of this run's samples" if content is None else "is damaged, no PNG that can be read"
    assert f"{run.sample_path(8)} {what}" in errors


def test_where_a_figure_cannot_be_written(capsys, tmp_path):
    run = run_with(tmp_path / "run", [{"step": 1, "fid": 4.0}])
    (tmp_path / "file").write_text("")
    for out, message in (
        (tmp_path / "file" / "x.png", "could not be written"),
        ("x.pdf", "x.pdf: give a .png or a .svg"),
    ):
        status, _, errors = plot(capsys, run.path, "--out", out)
        assert (status, errors.count("\n")) == (2, 1)
        assert message in errors
    assert plot(capsys, tmp_path)[0] == 2
