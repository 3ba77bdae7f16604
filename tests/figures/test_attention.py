"""What of the attention figure is drawn where, and where its points are put."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from sagan.errors import UserError
from sagan.figures.attention import MapSection, choose_points, draw_maps, save_figure, to_image
from sagan.figures.map_colours import COLOURS, TOP, paint_map, ramp_colours, scale_position

RNG = np.random.default_rng(0)


def section(points, maps, *, resolution=32, channels=3, labels=None):
    points = np.asarray(points, np.int64)
    images = np.full((len(points), resolution, resolution, channels), 90, np.uint8)
    return MapSection("Generator, layer 16.0", "numbers", images, points, np.asarray(maps, np.float32), labels)


def one_hot(row, column, side=8):
    one = np.zeros((side, side), np.float32)
    one[row, column] = 1
    return one


def rgb(colour):
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def colour(number):
    return rgb(COLOURS[number])


def tiles(figure, page):
    """The drawn images, as arrays of the page, in the order of drawing: those that have a frame."""
    found = []
    for artist in figure.artists:
        if isinstance(artist, Rectangle):
            (left, bottom), (right, top) = np.round(artist.get_window_extent().get_points()).astype(int)
            found.append(np.asarray(page)[page.height - top : page.height - bottom, left:right].astype(int))
    return found


def drawn(*sections, **options):
    figure = draw_maps(sections, **options)
    page = to_image(figure)
    return tiles(figure, page), page


def test_points_and_maps_lie_where_they_belong():
    (image, first, second), _ = drawn(section([[(5, 20), (28, 3)]], [[one_hot(1, 6), one_hot(7, 0)]]))
    assert first.shape == image.shape
    assert len(first) % 32 == 0
    pixel = len(first) // 32

    def area(x, y, side, margin):
        """A square of the image, in pixels of the page, smaller by the margin all around."""
        near, far = max(0, y * pixel + margin), max(0, x * pixel + margin)
        return slice(near, (y + side) * pixel - margin), slice(far, (x + side) * pixel - margin)

    for number, tile, (x, y), (row, column) in ((0, first, (5, 20), (1, 6)), (1, second, (28, 3), (7, 0))):
        for page in (image, tile):
            assert (np.abs(page[area(x, y, 1, 0)] - colour(number)).sum(2) < 10).any()  # the dot
        peak = tile[area(4 * column, 4 * row, 4, 4)]
        assert (peak == rgb(ramp_colours(2)[1])).all()  # far above the top of the scale
        tile[area(4 * column, 4 * row, 4, -4)] = tile[area(x, y, 1, -16)] = rgb(ramp_colours(2)[0])
        assert (tile[4:-4, 4:-4] == rgb(ramp_colours(2)[0])).all()  # nothing else on it


def test_an_even_map_looks_even_and_other_maps_have_its_scale():
    even, peaked = np.full((8, 8), 1 / 64), np.full((8, 8), 0.5 / 64)
    peaked[0, 0] = 32.5 / 64
    found, _ = drawn(section([[(31, 31), (31, 0)]], [[even, peaked]]))
    own, _ = drawn(section([[(31, 31), (31, 0)]], [[even, peaked]]), own_scale=True)
    centre = [tile[len(tile) // 2, len(tile) // 2].tolist() for tile in (*found[1:], *own[1:])]
    ramp = [rgb(colour) for colour in ramp_colours(256)]
    assert centre[0] == ramp[round(255 * (1 / TOP) ** 0.5)]
    assert centre[1] == ramp[round(255 * (0.5 / TOP) ** 0.5)]
    assert centre[2] == ramp[255]  # its own peak
    assert centre[3] == ramp[round(255 * (0.5 / 32.5) ** 0.5)]


@pytest.mark.parametrize("queries", range(1, 9))
@pytest.mark.parametrize("resolution", [32, 64, 256])
def test_the_page_is_as_wide_as_its_columns_or_its_texts(queries, resolution):
    points = [[(i, i) for i in range(queries)]]
    found, page = drawn(section(points, [[one_hot(0, 0)] * queries], resolution=resolution))
    assert len(found) == 1 + queries
    inked = np.flatnonzero((np.asarray(page) < 250).any((0, 2)))
    assert inked[0] == pytest.approx(page.width - 1 - inked[-1], abs=20)  # both margins
    assert all(len(tile) % resolution == 0 for tile in found)  # all pixels have the same size


def test_few_points_have_larger_tiles_where_the_texts_leave_room():
    points, maps = [[(5, 5)]], [[one_hot(0, 0)]]
    (small, _), _ = drawn(section(points, maps))
    wide = replace(section(points, maps), subtitle="queries, keys, distances and shares " * 3)
    (large, _), page = drawn(wide)
    assert len(large) > len(small)
    assert 2 * len(large) > 0.8 * page.width


def test_smooth_maps_peak_at_the_same_place():
    (_, tile), _ = drawn(section([[(0, 0)]], [[one_hot(2, 5)]]), smooth=True)
    pixel = len(tile) // 32
    weight = tile[32:-8, 32:-8, 1] - tile[32:-8, 32:-8, 1].min()  # green; without the dot and the frame
    down, across = (np.average(np.arange(len(weight)) + 32.5, weights=weight.sum(axis)) / pixel for axis in (1, 0))
    assert (across, down) == (pytest.approx(4 * 5.5, abs=0.1), pytest.approx(4 * 2.5, abs=0.1))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("resolution", [32, 128])
def test_any_images_in_several_sections(channels, resolution):
    labels = ["cats $x^", "A NAME THAT IS MUCH TOO LONG TO FIT NEXT TO A ROW"]
    points = [[(0, 0)], [(resolution - 1, resolution - 1)]]
    one = section(points, [[one_hot(0, 0)], [one_hot(7, 7)]], resolution=resolution, channels=channels, labels=labels)
    found, page = drawn(one, one)
    assert len(found) == 8
    assert (np.asarray(page)[:, :4] == 255).all()  # no label runs out of the page
    assert (np.asarray(page)[:, -4:] == 255).all()


def test_maps_are_painted_by_the_root_of_their_weight():
    weights = np.array([[0, 0.5, 1, 2, 8, 99]], np.float32)
    shown = paint_map(weights)
    ramp = [rgb(colour) for colour in ramp_colours(256)]
    assert shown[0].tolist() == [ramp[round(255 * scale_position(float(w)))] for w in weights[0]]
    assert (scale_position(0), scale_position(2), scale_position(TOP), scale_position(99)) == (0, 0.5, 1, 1)
    luma = np.array(ramp) @ (0.299, 0.587, 0.114)
    assert (np.diff(luma[::8]) > 0).all()  # lighter with every step, so without colours too


def test_an_image_under_a_map_and_a_map_without_weight():
    image = np.zeros((1, 2, 1), np.uint8)
    image[0, 1] = 255
    under = paint_map(np.ones((1, 2), np.float32), image=image).astype(int)[0]
    alone = paint_map(np.ones((1, 2), np.float32))[0]
    assert (alone[0] == alone[1]).all()  # nothing of the image
    assert (under[1] - under[0] > 100).all()
    assert (paint_map(np.zeros((1, 1), np.float32), top=None) == rgb(ramp_colours(2)[0])).all()


def test_white_numbers_can_be_read_on_every_marker():
    """WCAG 2.2, 1.4.3: a contrast of 4.5:1."""
    for number in range(len(COLOURS)):
        channels = np.array(colour(number)) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        assert 1.05 / (linear @ (0.2126, 0.7152, 0.0722) + 0.05) >= 4.5


def test_shares_stand_below_the_maps():
    one = section([[(1, 1), (30, 30)]], [[one_hot(0, 0), one_hot(7, 7)]])
    figure = draw_maps([replace(one, shares=np.array([[0.027, 0.4]], np.float32))])
    texts = [text.get_text() for text in figure.texts]
    assert {"64× · adds 2.7 %", "64× · adds 40 %"} <= set(texts)
    assert any("|γ·o| / |x|" in text for text in texts)
    assert not any("|γ·o| / |x|" in text.get_text() for text in draw_maps([one]).texts)


def scene():
    """A white image with a red disc and a blue bar."""
    image = np.full((64, 64, 3), 255, np.uint8)
    rows, columns = np.indices((64, 64))
    disc = (rows - 22) ** 2 + (columns - 20) ** 2 < 13**2
    bar = (rows > 44) & (rows < 58) & (columns > 8) & (columns < 56)
    image[disc], image[bar] = (220, 30, 30), (30, 30, 220)
    return image, disc, bar


def test_points_lie_in_distinct_regions_and_on_an_edge():
    image, disc, bar = scene()
    (points,) = choose_points(image[None], 4)
    regions = ["disc" if disc[y, x] else "bar" if bar[y, x] else "ground" for x, y in points[:3]]
    assert regions[0] == "ground"  # the largest first
    assert sorted(regions) == ["bar", "disc", "ground"]
    for x, y in points[:3]:  # well inside
        assert (image[y - 3 : y + 4, x - 3 : x + 4] == image[y, x]).all()
    x, y = points[3]
    assert len(np.unique(image[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3), axis=0)) > 1


@pytest.mark.parametrize(("side", "channels"), [(32, 3), (64, 4), (128, 1), (256, 3)])
@pytest.mark.parametrize("kind", ["noise", "flat"])
def test_chosen_points_are_distinct_pixels_and_the_same_again(side, channels, kind):
    image = RNG.integers(256, size=(2, side, side, channels), dtype=np.uint8) if kind == "noise" else None
    image = np.full((2, side, side, channels), 7, np.uint8) if image is None else image
    points = choose_points(image, 5)
    assert points.shape == (2, 5, 2)
    assert points.min() >= 0
    assert points.max() < side
    assert all(len(np.unique(p, axis=0)) == 5 for p in points)
    assert np.array_equal(points, choose_points(image, 5))


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_the_number_of_points_is_the_one_requested(count):
    assert choose_points(scene()[0][None], count).shape == (1, count, 2)


@pytest.mark.parametrize("suffix", ["png", "svg", "PNG"])
def test_saved_figures_are_the_same_bytes(tmp_path, suffix):
    for name in ("a", "b"):
        save_figure(draw_maps([section([[(1, 2)]], [[one_hot(0, 3)]], labels=["短"])]), tmp_path / f"{name}.{suffix}")
    a, b = (tmp_path / f"{name}.{suffix}" for name in ("a", "b"))
    assert a.read_bytes() == b.read_bytes()
    assert len(list(tmp_path.iterdir())) == 2
    if suffix == "svg":
        assert a.read_text().count("<image") == 3  # the image, the map and the scale
        assert 'href="http' not in a.read_text()  # nothing is fetched from elsewhere
    else:
        assert Image.open(a).size == to_image(draw_maps([section([[(1, 2)]], [[one_hot(0, 3)]], labels=["短"])])).size


def test_misuse(tmp_path):
    with pytest.raises(ValueError, match=r"\b9 points\b.*\b8\b"):
        draw_maps([section([[(0, 0)] * 9], [[one_hot(0, 0)] * 9])])
    with pytest.raises(ValueError, match="maps"):
        draw_maps([section([[(0, 0)]], [[one_hot(0, 0)] * 2])])
    with pytest.raises(UserError, match=r"x\.pdf\b.*\.png\b.*\.svg\b"):
        save_figure(draw_maps([section([[(0, 0)]], [[one_hot(0, 0)]])]), tmp_path / "x.pdf")
