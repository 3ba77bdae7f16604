"""The built-in set of robots against plain Pillow."""

import numpy as np
import pytest
from PIL import Image

from sagan.config import DataConfig
from sagan.data import prepare
from sagan.data.builtin import robots
from sagan.errors import UserError

SIDE = 48
FAST = ("robots", "monsters", "cats")  # the other two sets are many large parts


@pytest.fixture(scope="session")
def variants():
    return {name: robots.load(name, SIDE) for name in FAST}


def pasted(class_name, row):
    """Compose the image of a row of choices with Pillow at full size on white, then shrink it: (S, S, 3)."""
    files = robots.layer_files(class_name)
    variant = files[int(row[0]) % len(files)]
    page = Image.new("RGBA", (1024, 1024), "white")
    for layer, number in zip(variant, row[1:], strict=True):
        part = Image.open(layer[int(number) % len(layer)]).convert("RGBA")
        page.alpha_composite(part.resize((1024, 1024)))
    return np.asarray(page.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)).astype(float)


@pytest.mark.parametrize("class_name", FAST)
def test_as_if_pasted_at_full_size(variants, class_name):
    choices = robots.choose(class_name, 12, seed=5)
    images = robots.finish(robots.compose(variants[class_name], choices, SIDE), 3, (255, 255, 255))
    for image, row in zip(images[::3], choices[::3], strict=True):
        difference = abs(image - pasted(class_name, row))
        # Shrinking before compositing differs a little where edges meet; a wrong part or order differs far more.
        assert difference.mean() < 3
        assert np.quantile(difference, 0.95) < 18
        assert abs(image - pasted(class_name, row + 1)).mean() > 6


def test_layers_go_in_the_order_of_robohash():
    for class_name, folder in robots.SETS.items():
        layers = [[part[0].parent.name for part in variant] for variant in robots.layer_files(class_name)]
        assert len(layers) == (10 if folder == "set1" else 1)
        for names in layers:
            ranks = [name.split("#")[1] for name in names]
            assert ranks == sorted(ranks)
    assert [len(robots.layer_files(name)[0]) for name in robots.SETS] == [5, 7, 7, 5, 8]


def test_a_robot_is_of_one_colour():
    for variant in robots.layer_files("robots"):
        assert len({part.parent.parent.name for layer in variant for part in layer}) == 1


def test_every_part_is_as_likely(variants):
    choices = robots.choose("cats", 3000, seed=0)
    for layer, column in zip(variants["cats"][0], choices[:, 1:].T, strict=True):
        counts = np.bincount((column % len(layer.parts)).astype(int), minlength=len(layer.parts))
        expected = 3000 / len(layer.parts)
        assert ((counts - expected) ** 2 / expected).sum() < 3 * len(layer.parts)


def test_seeds_and_counts(variants):
    few, more, other = (robots.choose("cats", n, seed) for n, seed in ((5, 1), (50, 1), (5, 2)))
    np.testing.assert_array_equal(more[:5], few)
    assert (few != other).all()
    assert (few[:, :6] != robots.choose("robots", 5, 1)).any()


def test_alpha_grey_and_background(variants):
    images = robots.compose(variants["robots"], robots.choose("robots", 6, seed=0), SIDE)
    kept = robots.finish(images, 4, (0, 0, 0))
    alpha = kept[..., 3:] / 255
    for background in ((255, 255, 255), (10, 200, 90)):
        composited = robots.finish(images, 3, background)
        assert abs(composited - (kept[..., :3] * alpha + np.array(background) * (1 - alpha))).max() <= 2
        grey = robots.finish(images, 1, background)
        assert grey.shape == (6, SIDE, SIDE, 1)
        assert abs(grey[..., 0] - composited @ [0.299, 0.587, 0.114]).max() <= 2
    assert (kept[..., 3] == 0).any()
    assert (kept[..., 3] == 255).any()


def test_parts_that_no_image_has_are_not_read(variants):
    for name in ("robots", "monsters"):  # with variants and without
        choices = robots.choose(name, 4, seed=2)
        few = robots.load(name, SIDE, choices)
        read = sum(int(layer.parts.any((1, 2, 3)).sum()) for variant in few for layer in variant)
        assert 0 < read <= 4 * (choices.shape[1] - 1)
        found, wanted = (robots.compose(loaded, choices, SIDE) for loaded in (few, variants[name]))
        np.testing.assert_array_equal(found, wanted)


@pytest.fixture
def few_parts(monkeypatch):
    """Two parts a layer: enough to test what is done with them."""
    layer_files = robots.layer_files
    monkeypatch.setattr(
        robots,
        "layer_files",
        lambda name: [[layer[:2] for layer in variant] for variant in layer_files(name)[:2]],
    )


def test_render_and_prepare(few_parts, monkeypatch):
    images, labels = robots.render(103, 16, 3, seed=0)
    assert images.shape == (103, 16, 16, 3)
    assert labels.tolist() == [i % 5 for i in range(103)]

    config = DataConfig(source="robots", robots=103)
    store = prepare(config, resolution=16, image_channels=3, progress=False)
    np.testing.assert_array_equal(store.images, images)
    np.testing.assert_array_equal(store.labels, labels)
    assert store.class_names == ("robots", "monsters", "robot heads", "cats", "people")
    assert store.names[6] == "monsters/000006"
    assert store.sizes[:5].tolist() == [[300, 300], [350, 350], [1015, 1015], [1024, 1024], [1024, 1024]]
    assert not prepare(
        DataConfig(source="robots", robots=103, labels=False), resolution=16, image_channels=3, progress=False
    ).num_classes

    monkeypatch.setattr(robots, "load", None)  # the second time, no part is read
    assert prepare(config, resolution=16, image_channels=3, progress=False).key == store.key


def test_many_batches_are_one_rendering(few_parts):
    """Images larger than a batch's budget, so that every batch holds one round of classes."""
    batches = list(robots.render_batches(12, 160, 1, seed=0))
    assert len(batches) > 1
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), robots.render(12, 160, 1, 0)[0])
    assert np.concatenate([labels for _, labels in batches]).tolist() == [i % 5 for i in range(12)]


def test_robots_without_their_parts(monkeypatch):
    monkeypatch.setattr(robots.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install robohash"):
        prepare(DataConfig(source="robots"), resolution=8, image_channels=3)


def test_number_of_robots():
    with pytest.raises(UserError, match=r"robots\b.*\b0\b"):
        prepare(DataConfig(source="robots", robots=0), resolution=8, image_channels=3)
