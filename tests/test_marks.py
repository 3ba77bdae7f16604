"""Images of `sagan sample --out FOLDER` say so in their files: they are not data by accident, and can be on purpose."""

import io

import numpy as np
import pytest
from PIL import Image

from sagan.config import DataConfig
from sagan.data import prepare
from sagan.data.hints import find_drawn
from sagan.data.shards.pack import pack
from sagan.errors import UserError
from sagan.figures.grid import mark_sample, save
from sagan.marks import FIGURE, FIGURE_KEY, checksum_of, is_figure, is_sample, step_of


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))


def pixels(number):
    return np.full((8, 8, 3), number, np.uint8)


def write(root, *, real=(), samples=()):
    """Write images at these relative paths, each in another grey."""
    for number, name in enumerate((*real, *samples)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels(number))
        if name in samples:
            save(mark_sample(image, "0123abcd"), path)
        else:
            image.save(path)
    return root


def load(source, **options):
    config = DataConfig(str(source))
    return prepare(config, resolution=8, image_channels=3, progress=False, **options)


def test_a_sample_is_marked_and_its_pixels_are_kept(tmp_path):
    path = write(tmp_path, samples=["x.png"]) / "x.png"
    assert is_sample(path.read_bytes())
    assert not is_figure(path.read_bytes())
    assert (np.array(Image.open(path)) == pixels(0)).all()
    copy = io.BytesIO()
    Image.open(path).save(copy, "PNG")  # what another program writes is another image
    assert not is_sample(copy.getvalue())


def test_what_a_mark_says_ends_where_its_text_ends(tmp_path):
    """Behind it stands a checksum, whose bytes may be letters or digits too."""
    rng = np.random.default_rng(0)
    for number in range(300):
        checksum, step = f"{rng.integers(2**63):016x}", int(rng.integers(10**6))
        save(mark_sample(Image.fromarray(pixels(0)), checksum), tmp_path / "x.png")
        assert checksum_of((tmp_path / "x.png").read_bytes()) == checksum
        page = Image.fromarray(pixels(0))
        page.info[FIGURE_KEY] = FIGURE
        save(page, tmp_path / "y.png", step=step)
        data = (tmp_path / "y.png").read_bytes()
        assert (step_of(data), is_figure(data), checksum_of(data)) == (step, True, None), number


REAL = {"flat": ("1.png", "2.png"), "classes": ("a/1.png", "a/2.png", "b/3.png"), "one class": ("a/1.png", "a/2.png")}
SAMPLES = {"among": ("00000.png", "a/00001.png"), "in a folder": ("s/0.png", "s/1.png", "s/deeper/2.png")}


@pytest.mark.parametrize("real", REAL.values(), ids=REAL)
@pytest.mark.parametrize("samples", SAMPLES.values(), ids=SAMPLES)
def test_among_other_images_they_are_skipped(tmp_path, real, samples):
    if "/" not in real[0]:
        samples = [name for name in samples if not name.startswith("a/")]
    before = load(write(tmp_path / "before", real=real))
    root = write(tmp_path / "after", real=real, samples=samples)
    for _ in range(2):  # packed, then opened
        after = load(root)
        assert (list(after.names), after.class_names) == (list(before.names), before.class_names)
        assert after.key == before.key  # so a run can be resumed after samples were drawn into its data
        (note,) = after.notes
        assert note.startswith(f"{len(samples)} image")
        assert "folder of nothing else" in note
    everything = load(root, samples=True)
    assert len(everything) > len(before)


def test_a_folder_of_nothing_else_is_used(tmp_path):
    root = write(tmp_path / "s", samples=[f"{i}.png" for i in range(5)])
    for _ in range(2):
        store = load(root)
        assert len(store) == 5
        assert any("written by sagan sample" in note for note in store.notes)
    packed = pack(DataConfig(str(root)), tmp_path / "shards", shard_size=10**6, resolution=8, image_channels=3)
    assert packed is not None
    assert len(load(tmp_path / "shards")) == 5


def test_class_folders_of_nothing_else_are_used(tmp_path):
    store = load(write(tmp_path / "s", samples=["a/0.png", "a/1.png", "b/2.png"]))
    assert store.labels.tolist() == [0, 0, 1]
    assert store.class_names == ("a", "b")


def test_only_the_first_image_of_a_folder_is_opened():
    opened = []
    names = [f"{folder}/{i}.{kind}" for folder in "abc" for i in range(9) for kind in ("png", "jpg")]
    assert find_drawn(names, lambda name: opened.append(name) or b"") == {}
    assert opened == ["a/0.png", "b/0.png", "c/0.png"]


def test_shards_are_packed_without_them(tmp_path):
    root = write(tmp_path / "x", real=["1.png", "2.png"], samples=["3.png"])
    pack(DataConfig(str(root)), tmp_path / "shards", shard_size=10**6, resolution=8, image_channels=3)
    assert len(load(tmp_path / "shards")) == 2


def test_the_commands(tmp_path, train_options, image_folder, command):
    run = tmp_path / "run"
    assert command("train", *train_options, "--steps", 2, "--out", run)[0] == 0
    for out in (tmp_path / "s", image_folder / "s"):
        assert command("sample", run, "--count", 6, "--out", out)[0] == 0
        assert all(is_sample(path.read_bytes()) for path in out.glob("*.png"))
    status, text, errors = command("train", *train_options, "--steps", 2, "--out", tmp_path / "second")
    assert status == 0
    assert errors.count("12 images that sagan wrote were skipped") == 1
    assert "24 images, 2 classes" in text
    assert "12 images that sagan wrote" in command("data", image_folder, "--out", tmp_path / "sheet.png")[1]
    status, _, _ = command("train", "--resume", run)  # the data are the same
    assert status == 0
    for folder in (tmp_path / "s", image_folder):
        count = len(list(folder.rglob("*.png")))
        options = ["--neighbours", "False", "--resolution", "32", "--features", "efficientnet-lite0"]
        status, text, _ = command("evaluate", folder, image_folder, *options)
        assert status == 0
        assert f"images {count} of" in text.replace(",", "") or f"images {count}" in text.replace(",", "")


def test_a_folder_of_figures_alone_is_refused(tmp_path):
    from sagan.figures.grid import draw_grid

    save(draw_grid(np.zeros((2, 8, 8, 3), np.uint8), columns=2), tmp_path / "x" / "grid.png")
    with pytest.raises(UserError, match="drawn by sagan"):
        load(tmp_path / "x")
