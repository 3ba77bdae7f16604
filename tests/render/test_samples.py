"""sagan sample: one image per (seed, class, number), one file per image, limits before memory."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import unicodedata
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.runs import make_run
from sagan import UserError, draw_latents, load, sample
from sagan.config import DataConfig
from sagan.data import prepare
from sagan.figures.grid import cut_grid
from sagan.render.outputs import file_names
from sagan.render.samples import write_samples

LIE = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999, 8)}".ljust(128)
"""A file of a few bytes whose header promises 640 GB."""


@pytest.fixture
def folder(tmp_path):
    return make_run(tmp_path / "run", ("cats", "dogs", "mice")).path


def arrays(command, folder, *options):
    """The images that sagan sample writes as arrays, and their labels."""
    out = folder.parent / "x.npz"
    status, _, errors = command("sample", folder, "--out", out, *options)
    assert status == 0, errors
    with np.load(out) as found:
        return found["images"], found["labels"]


class TestAnImageIsAFunctionOfSeedClassAndNumber:
    def test_whatever_count_and_classes_are(self, command, folder):
        everything, labels = arrays(command, folder, "--seed", 7, "--count", 40)
        assert labels.tolist() == [0] * 40 + [1] * 40 + [2] * 40
        by_class = everything.reshape(3, 40, 32, 32, 3)
        assert len(np.unique(everything.reshape(120, -1), axis=0)) == 120  # each class has latents of its own
        for count in (1, 4, 8, 17):
            images, _ = arrays(command, folder, "--seed", 7, "--count", count)
            np.testing.assert_array_equal(images.reshape(3, count, 32, 32, 3), by_class[:, :count])
        for classes, wanted in ((["dogs"], [1]), (["mice", "cats"], [2, 0]), (["1", "dogs", "2"], [1, 2])):
            images, labels = arrays(command, folder, "--seed", 7, "--count", 5, "--classes", *classes)
            np.testing.assert_array_equal(images, by_class[wanted, :5].reshape(-1, 32, 32, 3))
            assert labels.tolist() == np.repeat(wanted, 5).tolist()

    def test_without_classes(self, command, tmp_path):
        folder = make_run(tmp_path / "run", ()).path
        many, labels = arrays(command, folder, "--count", 40)
        np.testing.assert_array_equal(arrays(command, folder, "--count", 3)[0], many[:3])
        assert labels.tolist() == [0] * 40
        z = draw_latents(3, 8, seed=0)
        np.testing.assert_array_equal(sample(load(folder), z, torch.zeros(3, dtype=torch.int64)), many[:3])

    def test_in_python(self, command, folder):
        wanted, _ = arrays(command, folder, "--seed", 7, "--classes", "dogs", "--count", 20, "--truncation", 0.8)
        generator, y = load(folder), torch.tensor([1])
        z = draw_latents(20, 8, seed=7, label=1, truncation=0.8)
        np.testing.assert_array_equal(sample(generator, z, y.expand(20)), wanted)
        for k in (0, 3, 19):
            z = draw_latents(1, 8, seed=7, label=1, truncation=0.8, start=k)
            np.testing.assert_array_equal(sample(generator, z, y), wanted[[k]])

    def test_seeds_and_latents(self, command, folder, tmp_path):
        images, _ = arrays(command, folder, "--seeds", "3,17,40-42", "--classes", "dogs", "--count", 2)
        options = ["--classes", "dogs", "--count", 2]
        wanted = [arrays(command, folder, "--seed", seed, *options)[0] for seed in (3, 17, 40, 41, 42)]
        np.testing.assert_array_equal(images, np.concatenate(wanted))
        assert len(arrays(command, folder, "--seeds", "3", "17", "3")[0]) == 2 * 3  # one of each class and seed
        z = draw_latents(5, 8, seed=1).double().numpy()
        np.save(tmp_path / "z.npy", np.asfortranarray(z))
        images, labels = arrays(command, folder, "--latents", tmp_path / "z.npy", "--classes", "2", "0")
        assert labels.tolist() == [2] * 5 + [0] * 5
        wanted = sample(load(folder), torch.from_numpy(z).float(), torch.full((5,), 2))
        np.testing.assert_array_equal(images[:5], wanted)

    def test_the_grids_of_training_and_attend_show_the_same(self, command, folder, train_options, tmp_path):
        from sagan.render.attention import generated_subject

        run = tmp_path / "trained"
        assert command("train", *train_options, "--steps", 4, "--seed", 5, "--ema-decay", 0, "--out", run)[0] == 0
        page = cut_grid(Image.open(run / "samples" / "step-00000004.png"), 32, columns=8)
        images, _ = arrays(command, run, "--seed", 5)
        assert np.abs(page.reshape(16, 32, 32, 3).astype(int) - images).max() <= 1  # spectral norms are not baked there

        subject = generated_subject(folder, 3, ["dogs"], 9, 0.7)
        assert torch.equal(subject.inputs, draw_latents(3, 8, seed=9, truncation=0.7, label=1))


class TestOneFilePerImage:
    @pytest.mark.parametrize(
        "names",
        [
            ("a b", "a-b", "a_b", "A B", "a.b", "..."),
            ("", "-", "--", " ", "/", "\\"),
            ("Straße", "STRASSE", "strasse"),
            ("猫", "🙂", "🙃", "क", "कि", "की"),
            ("x" * 300, "x" * 301, "猫" * 200),
            ("0-a", "a", "A", "1-a", "2-A"),
            ("a", "a-seed3", "a-truncation0.5"),
            ("CON", "../up", ".hidden"),
        ],
    )
    def test_as_many_as_asked_for(self, command, tmp_path, names):
        names = tuple(dict.fromkeys(names))
        folder = make_run(tmp_path / "run", names).path
        out = tmp_path / "s"
        for options in ([], ["--seed", 3], ["--truncation", 0.5], ["--seed", 3, "--truncation", 0.5], ["--scale", 2]):
            assert command("sample", folder, "--count", 2, "--out", out, *options)[0] == 0
        found = sorted(p.name for p in out.iterdir())
        assert len(found) == 5 * 2 * len(names)
        assert len({unicodedata.normalize("NFD", name).casefold() for name in found}) == len(found)
        assert not any(name.startswith(".") or len(name.encode()) > 200 for name in found)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "s"]

    def test_of_two_runs_or_two_files_of_latents(self, command, folder, tmp_path):
        """A folder keeps its images; the same images may be written again, and others may join them."""
        out, other = tmp_path / "s", make_run(tmp_path / "other", ("cats", "dogs"), seed=1).path
        assert command("sample", folder, "--count", 2, "--classes", "dogs", "--out", out)[0] == 0
        (out / "cats-00001.png").write_bytes(b"of the user")
        (tmp_path / "folder/mice-00001.png").mkdir(parents=True)
        status, _, errors = command("sample", folder, "--out", tmp_path / "folder")
        assert (status, errors.count("\n"), "mice-00001.png" in errors) == (2, 1, True)
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        for run, name in ((other, "dogs-00000.png"), (folder, "cats-00001.png")):
            status, _, errors = command("sample", run, "--count", 2, "--classes", name[:4], "--out", out)
            assert (status, errors.count("\n")) == (2, 1)
            assert re.search(rf"--out .*{name}\b.*another folder", errors)
            assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        assert command("sample", folder, "--count", 4, "--classes", "dogs", "--out", out)[0] == 0
        assert before.items() < {path.name: path.read_bytes() for path in out.iterdir()}.items()

        for seed in (0, 1):
            np.save(tmp_path / f"{seed}.npy", draw_latents(2, 8, seed=seed).numpy())
            expected = 2 if seed else 0
            assert command("sample", folder, "--latents", tmp_path / f"{seed}.npy", "--out", out)[0] == expected

    def test_names_that_do_not_collide_stay(self):
        assert file_names(["cats", "white mice", "Łódź", "猫"]) == ["cats", "white-mice", "Łódź", "猫"]
        assert file_names(["cats", "Cats"]) == ["0-cats", "1-Cats"]

    def test_the_files_hold_the_images(self, command, folder, tmp_path):
        images, _ = arrays(command, folder, "--seeds", "0,2", "--count", 9)
        command("sample", folder, "--seeds", "0,2", "--count", 9, "--out", tmp_path / "s")
        wanted = iter(images)
        for name in ("cats", "dogs", "mice"):
            for seed in (0, 2):
                for k in range(9):
                    found = Image.open(tmp_path / "s" / f"{name}-seed{seed}-{k:05d}.png")
                    np.testing.assert_array_equal(found, next(wanted))

    def test_an_archive_is_a_source_of_data(self, command, folder, tmp_path, monkeypatch):
        monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))
        images, labels = arrays(command, folder, "--count", 5)
        assert command("sample", folder, "--count", 5, "--out", tmp_path / "s.zip")[0] == 0
        store = prepare(DataConfig(str(tmp_path / "s.zip")), resolution=32, image_channels=3, progress=False)
        np.testing.assert_array_equal(store.images, images)
        assert store.labels.tolist() == labels.tolist()
        with zipfile.ZipFile(tmp_path / "s.zip") as archive:
            assert json.loads(archive.read("dataset.json"))["labels"][7] == ["dogs-00002.png", 1]

    @pytest.mark.parametrize("channels", [1, 4])
    def test_other_channels(self, command, tmp_path, channels):
        folder = make_run(tmp_path / "run", (), image_channels=channels).path
        images, _ = arrays(command, folder, "--count", 2)
        assert images.shape == (2, 32, 32, channels)
        command("sample", folder, "--count", 2, "--out", tmp_path / "s")
        np.testing.assert_array_equal(Image.open(tmp_path / "s" / "00001.png"), images[1].squeeze())

    def test_what_is_a_folder(self, command, folder, tmp_path):
        (tmp_path / "old.png").mkdir()
        for name in ("v1.5", "plain", "old.png", "a/b/c.2"):
            assert command("sample", folder, "--count", 1, "--out", tmp_path / name)[0] == 0
            assert len(list((tmp_path / name).iterdir())) == 3
        for name in ("x.jpeg", "x.JPG", "x.npy", "x.tar", "x.svg", "x.heic", "x.h5"):
            status, _, errors = command("sample", folder, "--count", 1, "--out", tmp_path / name)
            assert (status, errors.count("\n")) == (2, 1)
            assert re.search(rf"{re.escape(name)}\b.*\.npz\b.*\bfolder\b", errors)
            assert not (tmp_path / name).exists()

    def test_default_names_tell_the_options(self, command, folder):
        said = []
        for options in (
            "",
            "--seed 1",
            "--classes dogs",
            "--classes dogs cats",
            "--truncation 0.5",
            "--count 4",
            "--classes dogs --truncation 0.5 --seed 1 --count 4",
            "--seeds 1,2",
            "--scale 3",
        ):
            said.append(command("sample", folder, *options.split())[1].strip())
        names = [os.path.relpath(path, folder) for path in said]
        assert len(set(names)) == len(names)
        assert names[0] == "samples-0.png"
        assert names[6] == "samples-dogs-count4-truncation0.5-1.png"
        command("sample", folder, "--classes", *["cats", "dogs", "mice"] * 40)
        (run,) = {os.path.dirname(path) for path in said}
        assert run == str(folder)


class TestLimitsComeFirst:
    @pytest.mark.parametrize("out", ["s", "s.npz", "s.zip", "s.png", None])
    @pytest.mark.parametrize("count", [10**9, 10**30])
    def test_a_count_beyond_any_memory(self, command, folder, out, count):
        before = sorted(folder.rglob("*"))
        start = time.perf_counter()
        options = ["--out", folder.parent / out] if out else []
        status, output, errors = command("sample", folder, "--count", count, *options)
        assert (status, output, errors.count("\n")) == (2, "", 1)
        assert re.search(r"\b(images|grid)\b.*\bat most\b.*--count\b", errors)
        assert time.perf_counter() - start < 10
        assert sorted(folder.parent.iterdir()) == [folder]
        assert sorted(folder.rglob("*")) == before

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("--count 0", r"count\b.*\b0\b"),
            ("--count -3", r"count\b.*-3\b"),
            ("--seed -1", r"seed\b.*-1\b"),
            (f"--seed {2**63}", rf"seed\b.*\b{2**63}\b"),
            ("--truncation nan", r"truncation\b.*\bnan\b"),
            ("--truncation inf", r"truncation\b.*\binf\b"),
            ("--truncation -0.5", r"truncation\b.*-0\.5\b"),
            ("--truncation 0", r"truncation\b.*\b0\b"),
            ("--scale 0", r"scale\b.*\b0\b"),
            ("--scale 65", r"scale\b.*\b65\b"),
            ("--scale 64 --count 100", r"\bpixels\b.*--scale\b"),
            ("--seeds 3,x", r"seeds\b.*'x'"),
            ("--seeds 5-3", r"seeds\b.*'5-3'"),
            ("--seeds 0-999999999999", r"seeds\b.*\b100,000\b"),
            ("--seeds 1,2 --seed 3", r"seed\b.*\bseeds\b"),
            ("--latents none.npy", r"none\.npy\b.*\bexist\b"),
            ("--latents run --count 3", r"count\b.*\blatents\b"),
            ("--latents run", r"run\b.*\bfolder\b"),
            ("--out run/config.json/x.png", r"config\.json\b.*\bfolder\b"),
            ("--out run/config.json/x", r"config\.json\b.*\bfolder\b|\.png\b.*\.(svg|gif)\b"),
            ("--out " + "x" * 300 + "/y.png", r"\btoo long\b"),
        ],
    )
    def test_bad_options_are_one_line(self, command, folder, tmp_path, monkeypatch, options, message):
        monkeypatch.chdir(tmp_path)
        before = sorted(folder.iterdir())
        for name in ("sample", "attend", "interpolate"):
            if name != "sample" and options.startswith("--scale 64"):
                continue
            status, output, errors = command(name, "run", *options.split())
            assert (status, output, errors.count("\n")) == (2, "", 1), (name, errors)
            assert re.search(message, errors), (name, errors)
            assert sorted(folder.iterdir()) == before
            assert list(tmp_path.iterdir()) == [folder]

    def test_a_folder_that_cannot_be_written(self, command, folder, tmp_path, monkeypatch):
        closed = tmp_path / "closed"
        closed.mkdir()
        monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(closed))  # root may write everywhere
        for name in ("sample", "attend", "interpolate"):
            status, _, errors = command(name, folder, "--out", closed / "x" / "y.png")
            assert status == 2
            assert re.search(r"\bclosed\b.*\bwritable\b", errors)

    def test_a_disk_without_room(self, command, folder, tmp_path, monkeypatch):
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
        for out in ("s", "s.npz", "s.zip"):
            status, _, errors = command("sample", folder, "--count", 1000, "--out", tmp_path / out)
            assert status == 2
            assert re.search(r"\bneeded\b.*\bfree\b", errors)
            assert not (tmp_path / out).exists()

    @pytest.mark.parametrize(
        ("latents", "message"),
        [
            (np.zeros((3, 7)), r"\(3, 7\).*\(N, 8\)"),
            (np.zeros(8), r"\(8,\).*\(N, 8\)"),
            (np.zeros((0, 8)), r"\(0, 8\).*\(N, 8\)"),
            (np.array([[0.0] * 8, [0.0] * 7 + [np.nan]]), r"row 1\b.*\bfinite\b"),
            (np.full((2, 8), 1e300), r"row 0\b.*\bfinite\b"),
            (np.zeros((2, 8), complex), r"complex128\b.*\breal\b"),
            (np.zeros((2, 8), bool), r"bool\b.*\breal\b"),
            (np.array([["a"] * 8]), r"<U1\b.*\breal\b"),
            (np.array([[None] * 8], object), r"\bintact\b"),
            (b"no array", r"\bintact\b"),
            (LIE, r"\bintact\b"),
        ],
    )
    def test_latents_are_checked(self, command, folder, tmp_path, latents, message):
        path = tmp_path / "z.npy"
        if isinstance(latents, bytes):
            path.write_bytes(latents)
        else:
            np.save(path, latents)
        for name in ("sample", "attend", "interpolate"):
            status, output, errors = command(name, folder, "--latents", path)
            assert (status, output, errors.count("\n")) == (2, "", 1), errors
            assert re.search(message, errors), errors

    def test_no_pickle_is_run(self, command, folder, tmp_path):
        class Attack:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "hacked"),)

        import pickle

        (tmp_path / "z.npy").write_bytes(pickle.dumps(Attack()))
        assert command("sample", folder, "--latents", tmp_path / "z.npy")[0] == 2
        buffer = io.BytesIO()
        np.savez(buffer, a=np.zeros((2, 8)))
        (tmp_path / "y.npy").write_bytes(buffer.getvalue())
        status, _, errors = command("sample", folder, "--latents", tmp_path / "y.npy")
        assert status == 2
        assert ".npz" in errors
        assert not (tmp_path / "hacked").exists()


PEAK = """
import resource, sys
from pathlib import Path
from sagan.render.samples import write_samples
write_samples(Path(sys.argv[1]), Path(sys.argv[2]), count=int(sys.argv[3]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("out", ["s.npz", "s"])
def test_many_images_are_streamed(folder, tmp_path, out):
    """3,000 more images are 9 MB as arrays, and as much again as what is written; the peak grows by less."""
    peaks = []
    for count in (100, 1100):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, folder, tmp_path / str(count) / out, str(count)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 6, peaks


@pytest.mark.parametrize("out", [*(pytest.param(o, marks=pytest.mark.slow) for o in ("s.npz", "s.zip")), "s"])
def test_an_interrupt_leaves_no_half_written_file(folder, tmp_path, out):
    place = tmp_path / "out" / out
    place.parent.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "sagan", "sample", str(folder), "--count", "300000", "--out", str(place)],
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:  # until it writes
        written = list(place.iterdir()) if place.is_dir() else list(place.parent.glob(".tmp-*"))
        if len(written) > 3 or (written and not place.is_dir() and written[0].stat().st_size > 10_000):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    if out == "s":
        files = list(place.iterdir())
        assert len(files) > 3
        assert all(Image.open(path).size == (32, 32) and np.asarray(Image.open(path)).any() for path in files)
    else:
        assert list(place.parent.iterdir()) == []


def test_wide_grids_are_wrapped(command, folder, tmp_path):
    images, _ = arrays(command, folder, "--count", 70)
    assert command("sample", folder, "--count", 70, "--out", tmp_path / "x.png")[0] == 0
    page = Image.open(tmp_path / "x.png")
    assert page.width < 1800
    tiles = cut_grid(page, 32, columns=24).reshape(3, -1, 32, 32, 3)
    np.testing.assert_array_equal(tiles[:, :70].reshape(images.shape), images)
    assert (tiles[:, 70:] == 255).all()
    assert command("sample", folder, "--seeds", "4,9", "--scale", 3, "--out", tmp_path / "y.png")[0] == 0
    page = np.asarray(Image.open(tmp_path / "y.png"))
    one = arrays(command, folder, "--seeds", "9", "--classes", "mice")[0][0].repeat(3, 0).repeat(3, 1)
    np.testing.assert_array_equal(page[-12 - 96 : -12, -12 - 96 : -12], one)


def test_scale_enlarges_what_is_written(command, folder, tmp_path):
    plain, _ = arrays(command, folder, "--count", 2)
    large, _ = arrays(command, folder, "--count", 2, "--scale", 3)
    np.testing.assert_array_equal(large, plain.repeat(3, 1).repeat(3, 2))
    command("sample", folder, "--count", 1, "--scale", 3, "--out", tmp_path / "s")
    np.testing.assert_array_equal(Image.open(tmp_path / "s" / "dogs-scale3-00000.png"), large[2])


def test_from_a_checkpoint_the_default_lies_in_the_run(command, tmp_path):
    run = make_run(tmp_path / "run", ("cats", "dogs"), checkpoint=True)
    (checkpoint,) = run.checkpoints()
    status, output, _ = command("sample", checkpoint)
    assert status == 0
    assert output.strip() == str(run.path / f"samples-{checkpoint.stem}-0.png")


def test_an_ad_hoc_figure_does_not_replace_the_run_s_own(command, tmp_path):
    folder = make_run(tmp_path / "run", ("dogs",)).path
    for name, own in (("attend", "attend.png"), ("interpolate", "interpolation.png")):
        assert command(name, folder)[0] == 0
        before = (folder / own).read_bytes()
        for options in ("--seed 1", "--classes dogs", "--count 2", "--truncation 0.5", "--scale 2", "--seeds 1,2"):
            status, output, errors = command(name, folder, *options.split())
            assert status == 0, errors
            path = output.splitlines()[-1]
            assert os.path.dirname(path) == str(folder)
            assert os.path.basename(path) != own
        assert (folder / own).read_bytes() == before


def test_python_is_refused_the_same(folder):
    for bad in (float("nan"), float("inf"), 0.0, -1.0):
        with pytest.raises(ValueError, match="truncation"):
            draw_latents(1, 8, seed=0, truncation=bad)
    for options in ({"seed": -1}, {"seed": 0, "start": -1}, {"seed": 0, "label": -1}):
        with pytest.raises(ValueError, match="0 or more"):
            draw_latents(1, 8, **options)
    with pytest.raises(UserError, match=r"\bimages\b"):
        write_samples(folder, folder / "x", count=10**12)
