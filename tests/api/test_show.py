"""Grids of PIL images, and what a notebook shows of attention results."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import sagan
from helpers.runs import make_run
from sagan.figures.grid import draw_grid


@pytest.fixture
def generator(tmp_path):
    return sagan.load(make_run(tmp_path / "run").path)


def test_a_grid_is_the_grid_of_sagan_sample(generator):
    images = generator.sample(2)  # three classes
    arrays = np.stack([np.asarray(image) for image in images])
    wanted = draw_grid(arrays, columns=3)
    for grid in (sagan.grid(images, columns=3), sagan.grid(arrays, 3)):
        assert isinstance(grid, Image.Image)
        assert np.array_equal(grid, wanted)
    assert sagan.grid(images).size == draw_grid(arrays, columns=2).size
    grey = [Image.new("L", (16, 8), 100 + i) for i in range(4)]
    assert np.array_equal(sagan.grid(grey), draw_grid(np.stack([np.asarray(g)[..., None] for g in grey]), columns=2))
    assert np.array_equal(
        sagan.grid([image.convert("P") for image in grey]), sagan.grid([g.convert("RGB") for g in grey])
    )


@pytest.mark.parametrize(
    ("images", "columns", "message"),
    [
        ([], None, "at least one image"),
        ([Image.new("L", (8, 8))] * 2, 0, "columns must be 1 or more, got 0"),
        ([Image.new("L", (8, 8)), Image.new("L", (9, 8))], None, "must have one size"),
    ],
)
def test_grids_that_make_no_sense(images, columns, message):
    with pytest.raises(ValueError, match=message):
        sagan.grid(images, columns)


def shown(result):
    return np.asarray(Image.open(io.BytesIO(result._repr_png_())).convert("RGB"))


def test_maps_are_shown_next_to_their_images(generator):
    z, y = sagan.draw_latents(8, 8, seed=0), [0, 1] * 4
    maps = sagan.attention_maps(generator, z, y, queries=[(3, 4), (20, 9)])
    assert list(maps) == ["16.0"]
    assert isinstance(maps, dict)
    page = shown(maps)
    assert np.array_equal(page, shown(sagan.attention_maps(generator, z[:6], y[:6], queries=[(3, 4), (20, 9)])))
    points = torch.tensor([[[3.5, 4.9], [20.0, 9.0]]] * 8)  # of each image, in the same pixels
    assert np.array_equal(page, shown(sagan.attention_maps(generator, z, y, queries=points)))
    assert not np.array_equal(page, shown(sagan.attention_maps(generator, z, y, queries=[(3, 4), (9, 20)])))
    assert sagan.attention_maps(generator, z, y, queries="all")._repr_png_() is None
    assert sagan.attention_maps(generator, z, y, queries=[(1, 1)] * 50)._repr_png_() is None


def test_maps_of_a_discriminator_are_shown_next_to_its_inputs(tmp_path):
    run = make_run(tmp_path / "run", checkpoint=True)
    discriminator = sagan.run.read_discriminator(run.path)
    x = 2 * torch.rand(2, 3, 32, 32) - 1
    maps = sagan.attention_maps(discriminator, x, [0, 1], queries=[(3, 4)])
    assert torch.equal(maps.images, x)
    assert shown(maps).std() > 0


def test_an_effect_is_shown_with_and_without(generator):
    z = sagan.draw_latents(8, 8, seed=0)
    effect = sagan.attention_effect(generator, z, 1)
    page = shown(effect)
    assert page.shape == shown(sagan.attention_effect(generator, z[:6], 1)).shape
    assert not np.array_equal(page, shown(sagan.attention_effect(generator, z, 2)))
