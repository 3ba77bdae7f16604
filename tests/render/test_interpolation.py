"""From a run to its walks: sagan interpolate from one end to the other, and what can go wrong."""

import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.runs import STEP, make_run
from sagan import load
from sagan.figures.interpolation import walk_classes, walk_latents
from sagan.marks import is_figure, step_of
from sagan.render.interpolation import draw_images
from sagan.sampling import draw_latents, sample

NAMES = ("cats", "dogs", "fish")


@pytest.fixture
def folder(tmp_path):
    return make_run(tmp_path / "run", NAMES).path


def tile(page, row, column, rows, columns):
    """An image of a grid, as it was before it was magnified."""
    page = np.asarray(page)
    left = page.shape[1] - 12 - columns * 67 + 3
    assert page.shape[0] == 2 * 12 + rows * 67 - 3
    return page[12 + row * 67 :, left + column * 67 :][:64:2, :64:2]


def same(a, b):
    """The same images, but for the last bit: a batch of another size may round otherwise."""
    np.testing.assert_allclose(a.astype(int), b.astype(int), atol=1)


def test_the_grid_s_images_are_the_generator_s(command, folder):
    status, output, errors = command("interpolate", folder)
    assert (status, output, errors) == (0, f"{folder / 'interpolation.png'}\n", "")
    page = Image.open(folder / "interpolation.png")
    z = draw_latents(2, 8, seed=0)
    for label in range(3):
        ends = sample(load(folder), z, torch.full((2,), label))
        same(tile(page, label, 0, 4, 9), ends[0])
        same(tile(page, label, 8, 4, 9), ends[1])
        same(tile(page, 3, 4 * label, 4, 9), ends[0])
        assert not np.array_equal(tile(page, label, 4, 4, 9), ends[0])


def test_chosen_classes_count_steps_and_seed(command, folder, tmp_path):
    options = ["--classes", "fish", "0", "--count", 2, "--steps", 3, "--seed", 5]
    assert command("interpolate", folder / "generator.safetensors", "--out", tmp_path / "x.png", *options)[0] == 0
    page = Image.open(tmp_path / "x.png")
    z = draw_latents(4, 8, seed=5)
    ends = sample(load(folder), z, torch.full((4,), 2))
    for row in range(2):
        for column in range(2):
            same(tile(page, row, 2 * column, 6, 3), ends[2 * row + column])
    assert command("interpolate", folder, "--out", tmp_path / "y.png", *options, "--truncation", 0.5)[0] == 0
    assert not np.array_equal(page, Image.open(tmp_path / "y.png"))


@pytest.mark.parametrize("classes", [[], [1], [0, 2]])
@pytest.mark.parametrize("closed", [False, True])
def test_the_walks_of_a_generator(folder, classes, closed):
    """Two within each class, whose latents move and whose class stays; then two whose class moves."""
    generator, steps = load(folder), 6
    points = 3 if closed else 2
    z = draw_latents(2 * points, 8, seed=3, truncation=0.8).view(2, points, 8)
    wanted = [
        sample(generator, walk_latents(ends, steps, closed=closed), torch.full((steps,), label))
        for label in classes or [0]
        for ends in z
    ]
    if len(classes) > 1:
        y = walk_classes(classes, 3, steps, closed=closed)
        wanted += [sample(generator, ends[:1].expand(steps, -1), y) for ends in z]
    found = draw_images(generator, classes, steps, 2, closed=closed, seed=3, truncation=0.8)
    assert found.dtype == np.uint8
    assert found.std() > 10  # images that differ, so that being near them says something
    same(found, np.stack(wanted))


def test_without_classes(command, tmp_path):
    folder = make_run(tmp_path / "run", (), image_channels=1).path
    assert command("interpolate", folder, "--count", 3)[0] == 0
    page = Image.open(folder / "interpolation-count3.png")
    ends = sample(load(folder), draw_latents(6, 8, seed=0), torch.zeros(6, dtype=torch.int64))
    same(tile(page, 2, 8, 3, 9)[..., :1], ends[5])
    assert command("interpolate", folder, "--out", tmp_path / "x.gif", "--steps", 4)[0] == 0
    assert Image.open(tmp_path / "x.gif").size == (2 * 12 + 4 * 67 - 3, 2 * 12 + 2 * 67 - 3)
    status, _, errors = command("interpolate", folder, "--classes", "cats")
    assert (status, errors.count("\n")) == (2, 1)
    assert re.search(r"--classes cats\b", errors)


def test_a_gif_has_its_frames_and_repeats(command, folder, tmp_path):
    assert command("interpolate", folder, "--out", tmp_path / "x.gif", "--steps", 20, "--seconds", 2)[0] == 0
    gif = Image.open(tmp_path / "x.gif")
    assert (gif.n_frames, gif.info["duration"], gif.info["loop"]) == (20, 100, 0)
    frames = []
    for i in range(20):
        gif.seek(i)
        frames.append(np.asarray(gif.convert("RGB"), np.float64))
    steps = [abs(a - b).mean() for a, b in zip(frames, [*frames[1:], frames[0]], strict=True)]
    assert steps[-1] <= 1.2 * max(steps[:-1])
    assert frames[0][0, 0].tolist() == [255, 255, 255]
    assert command("interpolate", folder, "--out", tmp_path / "y.gif", "--seconds", 0.8)[0] == 0
    assert Image.open(tmp_path / "y.gif").n_frames == 10


@pytest.mark.parametrize("count", [1, 2])
def test_an_mp4_is_read_back(command, folder, tmp_path, count):
    imageio = pytest.importorskip("imageio.v3")
    pytest.importorskip("imageio_ffmpeg")
    out = tmp_path / "x.mp4"
    assert command("interpolate", folder, "--out", out, "--steps", 12, "--seconds", 1, "--count", count)[0] == 0
    film = imageio.imread(out, plugin="FFMPEG")
    about = imageio.immeta(out, plugin="FFMPEG")
    assert len(film) == 12
    assert (about["codec"], about["fps"]) == ("h264", 12)
    assert about["pix_fmt"].startswith("yuv420p")
    command("interpolate", folder, "--out", tmp_path / "x.gif", "--steps", 12, "--seconds", 1, "--count", count)
    frame = np.asarray(Image.open(tmp_path / "x.gif").convert("RGB"), np.float64)
    height, width = frame.shape[:2]
    assert film.shape[1:] == (height + height % 2, width + width % 2, 3)
    assert abs(film[0, :height, :width] - frame).mean() < 12  # but for the loss of both formats
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    for film_path in (out, tmp_path / "x.gif"):  # the step of the networks, which a report writes under it
        assert step_of(film_path.read_bytes()) == STEP
    assert is_figure((tmp_path / "x.gif").read_bytes())


@pytest.mark.parametrize("missing", ["imageio", "imageio_ffmpeg"])
def test_without_its_packages_an_mp4_says_what_to_install(command, folder, monkeypatch, missing):
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    status, _, errors = command("interpolate", folder, "--out", folder / "x.mp4")
    assert (status, errors.count("\n")) == (2, 1)
    assert "pip install 'sagan-torch[video]'" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--steps 1", r"steps\b.*\b1\b"),
        ("--count 0", r"count\b.*\b0\b"),
        ("--seconds 0", r"seconds\b.*\b0\b"),
        ("--classes birds", r"--classes birds\b"),
        ("--out x.webm", r"x\.webm\b.*\.png\b"),
        ("--out x.gif --steps 200 --seconds 1", r"--steps 200\b.*\bGIF\b.*\b50\b"),
        ("--steps 100000", r"--steps 100000\b.*\b50,000\b"),
    ],
)
def test_bad_input_is_one_clear_line(command, folder, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    status, output, errors = command("interpolate", folder, *options.split())
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert re.search(message, errors)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]
    assert not (folder / "interpolation.png").exists()


def test_walks_pass_through_given_seeds_and_latents(command, folder, tmp_path):
    assert command("interpolate", folder, "--seeds", "3,8,5", "--classes", "1", "--out", tmp_path / "x.png")[0] == 0
    z = torch.cat([draw_latents(1, 8, seed=seed) for seed in (3, 8, 5)])
    ends = sample(load(folder), z, torch.full((3,), 1))
    page = Image.open(tmp_path / "x.png")
    for column, end in zip((0, 4, 8), ends, strict=True):
        same(tile(page, 0, column, 1, 9), end)
    np.save(tmp_path / "z.npy", z.numpy())
    assert command("interpolate", folder, "--latents", tmp_path / "z.npy", "--classes", "1")[0] == 0
    assert np.array_equal(page, Image.open(*folder.glob("interpolation-dogs-latents-z-????????.png")))
    for options in (["--seeds", 3], ["--seeds", "3,4", "--count", 2]):
        status, _, errors = command("interpolate", folder, *options)
        assert (status, errors.count("\n")) == (2, 1)
        assert re.search(r"\bseeds\b", errors)
    np.save(tmp_path / "z.npy", z[:1].numpy())
    status, _, errors = command("interpolate", folder, "--latents", tmp_path / "z.npy")
    assert status == 2
    assert re.search(r"z\.npy\b.*\bone latent\b", errors)
    np.save(tmp_path / "z.npy", np.zeros((20_000, 8)))
    status, _, errors = command("interpolate", folder, "--latents", tmp_path / "z.npy")
    assert status == 2
    assert re.search(r"\b50,000\b", errors)


def test_a_walk_does_not_depend_on_the_number_of_walks(folder):
    generator = load(folder)
    for closed in (False, True):
        many = draw_images(generator, [0, 1], 5, 4, closed=closed, seed=2)
        few = draw_images(generator, [1], 5, 2, closed=closed, seed=2)
        same(few, many[4:6])


def test_long_walks_are_wrapped_and_large_pages_refused(command, folder, tmp_path):
    options = ["--classes", "1", "--out", tmp_path / "x.png"]
    assert command("interpolate", folder, *options, "--steps", 100)[0] == 0
    page = Image.open(tmp_path / "x.png")
    assert page.width < 4250  # 62 images, and a label
    assert page.height == 2 * 12 + 2 * 67 - 3
    for more in (["--steps", 40_000], ["--steps", 40, "--scale", 64], ["--scale", 65]):
        status, _, errors = command("interpolate", folder, *options, *more)
        assert (status, errors.count("\n")) == (2, 1)
        assert re.search(r"\bpixels\b|\b50,000\b|\bscale\b", errors)
    status, _, errors = command("interpolate", folder, "--out", tmp_path / "x.gif", "--scale", 40)
    assert status == 2
    assert re.search(r"\bfilm\b.*\bpixels\b.*--scale\b", errors)
