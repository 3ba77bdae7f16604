import numpy as np
import pytest
from PIL import Image

from sagan.figures.film_strip import choose_steps, draw_film_strip
from sagan.figures.grid import cut_grid, draw_grid

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("side", "channels"), [(32, 3), (64, 3), (128, 1)])
@pytest.mark.parametrize("labels", [None, ["cats", "a name that is much too long to fit next to a row", ""]])
def test_a_grid_is_cut_into_its_images(side, channels, labels):
    images = RNG.integers(256, size=(24, side, side, channels), dtype=np.uint8)
    cut = cut_grid(draw_grid(images, columns=8, row_labels=labels), side, columns=8)
    assert cut.shape == (3, 8, side, side, 3)
    np.testing.assert_array_equal(cut.reshape(24, side, side, 3), np.broadcast_to(images, (24, side, side, 3)))


def test_pages_that_are_no_such_grid():
    page = draw_grid(np.zeros((16, 32, 32, 3), np.uint8), columns=8)
    for other, side, columns in ((page, 128, 8), (page, 32, 9), (Image.new("RGB", (20, 20)), 32, 8)):
        with pytest.raises(ValueError, match=r"\bgrid\b"):
            cut_grid(other, side, columns=columns)


def test_chosen_steps_are_spread_and_hold_both_ends():
    assert choose_steps([300, 100, 200]) == [100, 200, 300]
    steps = choose_steps(range(500, 1_000_001, 500))
    assert (steps[0], steps[-1], len(steps)) == (500, 1_000_000, 10)
    ratios = np.divide(steps[1:], steps[:-1])
    assert abs(np.log(ratios / ratios.mean())).max() < 0.25
    assert choose_steps(range(100, 1501, 100))[:4] == [100, 200, 300, 500]
    assert choose_steps([0, *range(1, 50)])[0] == 0


def strip_of(rows, columns, names):
    """A strip of two steps, as images, with the grids that it was drawn from."""
    grids = {step: RNG.integers(256, size=(rows, columns, 64, 64, 3), dtype=np.uint8) for step in (20, 5)}
    shown = min(rows, len(names), 10)
    each = min(columns, 10 // shown) if shown else columns
    page = np.asarray(draw_film_strip(grids, names))
    top = 12 + (15 + 6 if names else 0)
    left = page.shape[1] - 12 - (max(1, shown) * each) * 67 + 3
    tiles = [
        [
            page[top + i * 67 : top + i * 67 + 64, left + j * 67 : left + j * 67 + 64]
            for j in range(max(1, shown) * each)
        ]
        for i in range(2)
    ]
    return grids, tiles, each


@pytest.mark.parametrize(("rows", "names"), [(5, "abcde"), (12, "abcdefghijkl"), (2, "ab"), (1, "a"), (8, "")])
def test_columns_are_latents_and_rows_are_steps(rows, names):
    grids, tiles, each = strip_of(rows, 8, list(names))
    for row, step in zip(tiles, (5, 20), strict=True):
        for column, tile in enumerate(row):
            np.testing.assert_array_equal(tile, grids[step][column // each, column % each])


def test_grids_of_several_shapes():
    with pytest.raises(ValueError, match="shapes"):
        draw_film_strip({1: np.zeros((1, 8, 32, 32, 3), np.uint8), 2: np.zeros((2, 8, 32, 32, 3), np.uint8)})
    with pytest.raises(ValueError, match="shapes"):
        draw_film_strip({})
