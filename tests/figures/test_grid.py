"""What is drawn where, pixel by pixel."""

import numpy as np
import pytest
from PIL import Image

from sagan.errors import UserError
from sagan.figures.grid import animate, draw_grid, save

RNG = np.random.default_rng(0)


def noise(count, side=8, channels=3):
    return RNG.integers(256, size=(count, side, side, channels), dtype=np.uint8)


def find(page, tile):
    """Where a tile lies on the page: (left, top), once."""
    page, (height, width) = np.asarray(page), tile.shape[:2]
    corners = np.argwhere((page == tile[0, 0]).all(-1))
    hits = [(x, y) for y, x in corners if np.array_equal(page[y : y + height, x : x + width], tile)]
    assert len(hits) == 1
    return hits[0]


@pytest.mark.parametrize("labels", [None, ["cats", "a name that is much too long to fit beside a row"]])
def test_images_lie_row_by_row_unchanged(labels):
    images = noise(5, side=64)
    page = draw_grid(images, columns=3, row_labels=labels, title="five")
    places = [find(page, image) for image in images]
    assert len({y for _, y in places[:3]}) == len({y for _, y in places[3:]}) == 1
    assert [x for x, _ in places[:3]] == sorted(x for x, _ in places[:3])
    assert [x for x, _ in places[3:]] == [x for x, _ in places[:2]]
    assert page.mode == "RGB"
    assert page.getpixel((0, 0)) == (255, 255, 255)


def test_small_images_are_magnified_without_smoothing():
    (image,) = images = noise(1, side=32)
    find(draw_grid(images, columns=1), image.repeat(2, 0).repeat(2, 1))
    find(draw_grid(images, columns=1, scale=3), image.repeat(3, 0).repeat(3, 1))
    find(draw_grid(images, columns=1, scale=1), image)


def test_grey_and_transparent():
    grey = noise(1, 64, 1)
    find(draw_grid(grey, columns=1), grey[0].repeat(3, -1))
    clear, solid = noise(1, 64, 4), noise(1, 64, 4)
    clear[..., 3], solid[..., 3] = 0, 255
    find(draw_grid(solid, columns=1), solid[0, ..., :3])
    page = np.asarray(draw_grid(clear, columns=1))
    assert set(page[12:76, 12:76].ravel()) == {226, 255}


def test_labels_stand_beside_their_rows():
    images = np.full((3, 64, 64, 3), 255, np.uint8)
    page = np.asarray(draw_grid(images, columns=1, row_labels=["one", "", "three"]).convert("L"))
    inked = [bool((page[12 + row * 67 : 76 + row * 67] < 128).any()) for row in range(3)]
    assert inked == [True, False, True]


def test_labels_stand_above_their_columns_and_neighbours_share_one():
    images = np.full((4, 64, 64, 3), 255, np.uint8)
    page = np.asarray(draw_grid(images, columns=4, column_labels=["together"] * 2 + ["", "x" * 99]).convert("L"))
    inked = page[:30] < 128
    columns = [inked[:, 12 + 67 * i : 76 + 67 * i].any() for i in range(4)]
    assert columns == [True, True, False, True]
    assert inked[:, 76:79].any()  # the shared one lies across the gutter
    assert not inked[:, 76 + 67 * 2 : 79 + 67 * 2].any()
    assert not (page[33:] < 128).any()


def test_a_long_title_is_not_cut_off():
    narrow = draw_grid(noise(1), columns=1, title="a rather long title over a single image")
    assert (np.asarray(narrow)[:, -10:] == 255).all()
    assert narrow.width > 200


def test_misuse():
    with pytest.raises(ValueError, match=r"\b2 labels\b.*\b1\b"):
        draw_grid(noise(2), columns=2, row_labels=["a", "b"])
    with pytest.raises(ValueError, match=r"\b1 label.*\b2\b"):
        draw_grid(noise(2), columns=2, column_labels=["a"])
    with pytest.raises(ValueError, match="float64"):
        draw_grid(noise(2) / 255, columns=2)
    with pytest.raises(ValueError, match="frames"):
        animate([], "x.gif", 1)


def test_saved_image_is_whole_and_alone(tmp_path):
    page = draw_grid(noise(4), columns=2)
    save(page, tmp_path / "new" / "grid.png")
    np.testing.assert_array_equal(Image.open(tmp_path / "new" / "grid.png"), page)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["grid.png"]


def test_animation(tmp_path):
    frames = [draw_grid(np.full((1, 64, 64, 3), value, np.uint8), columns=1) for value in (10, 90, 250)]
    animate(frames, tmp_path / "a.gif", 0.25)
    gif = Image.open(tmp_path / "a.gif")
    assert (gif.n_frames, gif.info["duration"], gif.info["loop"]) == (3, 250, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


def test_the_paper_of_an_animation_stays_white(tmp_path):
    """Beside images whose colours fill the palette, near-white ones among them."""
    images = np.concatenate([noise(7, side=64), 255 - RNG.integers(8, size=(1, 64, 64, 3), dtype=np.uint8)])
    animate([draw_grid(images, columns=4)] * 2, tmp_path / "a.gif", 0.25)
    frame = np.asarray(Image.open(tmp_path / "a.gif").convert("RGB"))
    assert (frame[:12] == 255).all()
    assert abs(frame[12:76, 12:76].astype(int) - images[0]).mean() < 30


def test_what_cannot_be_written_is_the_users_to_mend(tmp_path):
    (tmp_path / "file").write_text("")
    page = draw_grid(noise(1), columns=1)
    for write in (lambda path: save(page, path), lambda path: animate([page], path, 1)):
        with pytest.raises(UserError, match="x\\.png"):
            write(tmp_path / "file" / "x.png")
