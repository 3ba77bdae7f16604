"""The command lines and programs that the page gives do draw the same."""

import shlex

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.runs import make_run
from sagan.cli import main
from sagan.explorer.engine import Explorer, to_base64, to_png
from sagan.explorer.networks import read_networks
from sagan.explorer.schemas import Grid, Sample, Upload, Walk
from sagan.explorer.snippets import UPLOAD_NAME, grid_command, image_commands, python_program
from sagan.figures.attention import draw_maps
from sagan.render import attention as attention_files

POINTS = [(3.0, 4.0), (20.0, 31.0)]


def execute(command):
    words = shlex.split(command)
    assert words[0] == "sagan"
    assert main(words[1:]) == 0


@pytest.mark.parametrize("labels", [(0, 1, 2), (2,), (2, 0)])
def test_the_grid_s_command_writes_the_grid(explorer, tmp_path, monkeypatch, labels):
    monkeypatch.chdir(tmp_path)
    asked = Grid(labels=labels, count=3, seed=4, truncation=0.7)
    execute(grid_command(explorer.networks, asked))
    assert np.array_equal(Image.open("grid.png"), explorer.grid_page(asked))


def test_the_image_s_commands_write_the_image_and_its_maps(explorer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = Sample(seed=4, index=2, label=2)
    sample, attend = image_commands(explorer.networks, spec, POINTS)
    execute(sample)
    last = np.asarray(Image.open(sorted((tmp_path / "images").iterdir())[-1]))
    assert np.abs(last.astype(int) - explorer.view(spec).image).max() <= 1
    drawn = []

    def record(sections, **options):
        drawn.extend(sections)
        return draw_maps(sections, **options)

    monkeypatch.setattr(attention_files, "draw_maps", record)
    execute(attend)
    assert "--points 3,4 20,31" in attend
    assert Image.open("attend.png").format == "PNG"
    shown = [layer for layer in explorer.maps(spec, POINTS) if layer.network == "generator"]
    for section, layer in zip(drawn, shown, strict=True):
        assert np.abs(section.images[-1].astype(int) - explorer.view(spec).image).max() <= 1
        assert section.points[-1].tolist() == [[3, 4], [20, 31]]
        for i, found in layer.maps.items():
            assert section.maps[-1, i].max() * section.maps[-1, i].size == pytest.approx(found.peak, rel=1e-3)
    assert image_commands(explorer.networks, spec, []) == [sample]


def values(program):
    found = {}
    exec(program, found)
    return found


def close(maps, drawn):
    """Peaks of maps by layer against what the page shows."""
    for layer in drawn:
        for i, shown in layer.maps.items():
            peak = maps[layer.name][0, i].max().item() * maps[layer.name][0, i].numel()
            assert peak == pytest.approx(shown.peak, rel=1e-3)


@pytest.mark.parametrize(
    "spec",
    [
        Sample(seed=4, index=2, label=2, truncation=0.5),
        Walk(
            start=Sample(seed=4, index=2, label=2),
            end=Sample(seed=5, index=0, label=0, truncation=1.2),
            latent=0.3,
            label=0.4,
        ),
        Walk(start=Sample(seed=4, index=2, label=1), end=Sample(seed=5, index=0, label=1), latent=0.3, label=0.0),
    ],
)
def test_the_program_computes_the_image_its_maps_and_scores(explorer, spec):
    found = values(python_program(explorer.networks, spec, POINTS))
    view = explorer.view(spec)
    assert np.abs(found["image"].astype(int) - view.image).max() <= 1
    drawn = explorer.maps(spec, POINTS)
    close(found["maps"], [layer for layer in drawn if layer.network == "generator"])
    close(found["discriminator_maps"], [layer for layer in drawn if layer.network == "discriminator"])
    assert torch.allclose(found["scores"], torch.tensor(view.scores.by_class), rtol=1e-3, atol=1e-4)


def test_the_program_scales_gammas_where_no_command_can(explorer):
    spec, gammas = Sample(seed=4, index=2, label=1), {"generator/16.0": 0.5, "discriminator/4.0": 0.0}
    found = values(python_program(explorer.networks, spec, POINTS, gammas))
    view = explorer.view(spec, gammas)
    assert np.abs(found["image"].astype(int) - view.image).max() <= 1
    assert np.abs(explorer.view(spec).image.astype(int) - view.image).max() > 1
    assert torch.allclose(found["scores"], torch.tensor(view.scores.by_class), rtol=1e-3, atol=1e-4)
    assert image_commands(explorer.networks, spec, POINTS, gammas) == []
    assert image_commands(explorer.networks, spec, POINTS, {"generator/16.0": 1.0}) != []
    assert grid_command(explorer.networks, Grid(count=3, seed=0, gammas=gammas)) == ""


def test_the_program_for_an_image_of_ones_own(explorer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)
    (tmp_path / UPLOAD_NAME).write_bytes(to_png(image))
    own = Upload(png=to_base64(image))
    found = values(python_program(explorer.networks, own, POINTS))
    close(found["discriminator_maps"], explorer.maps(own, POINTS))
    assert torch.allclose(found["scores"], torch.tensor(explorer.view(own).scores.by_class), rtol=1e-3, atol=1e-4)
    assert image_commands(explorer.networks, own, POINTS) == []


def test_names_are_quoted(tmp_path):
    folder = make_run(tmp_path / "a run; rm", ("--count", "white mice", 'a"\n$(b)')).path
    networks = read_networks(folder)
    for label, name in enumerate(networks.class_names):
        sample, *_ = image_commands(networks, Sample(seed=0, index=0, label=label), [])
        words = shlex.split(sample)
        assert words[:4] == ["sagan", "sample", str(folder), "--classes"]
        assert words[4] == ("0" if label == 0 else name)
        assert words[5] == "--count"
        compile(python_program(networks, Sample(seed=0, index=0, label=label), POINTS), "program", "exec")


def test_without_classes(tmp_path):
    networks = read_networks(make_run(tmp_path / "run", ()).path)
    assert "--classes" not in grid_command(networks, Grid(count=3, seed=0))
    explorer, spec = Explorer(networks), Sample(seed=0, index=1)
    found = values(python_program(networks, spec, POINTS))
    assert np.abs(found["image"].astype(int) - explorer.view(spec).image).max() <= 1
    close(found["maps"], explorer.maps(spec, POINTS))
