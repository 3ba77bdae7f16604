"""`sagan data`: what it writes is never read back, and any name can be printed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sagan.config import DataConfig
from sagan.data import prepare


def sagan(*arguments, **environment):
    """Run the command line in a process of its own, whose standard output has the encoding of the environment."""
    return subprocess.run(
        [sys.executable, "-m", "sagan", *arguments], env=os.environ | environment, capture_output=True, check=False
    )


def count(source):
    return len(prepare(DataConfig(str(source)), resolution=32, image_channels=3, progress=False))


@pytest.mark.parametrize("source", [".", "cats", ".."])
def test_the_sheet_is_not_read_the_next_time(command, image_folder, monkeypatch, source):
    folder = image_folder / "cats"
    monkeypatch.chdir(folder if source == ".." else folder.parent if source == "cats" else folder)
    before = count(source)
    for _ in range(2):
        status, out, _ = command("data", source, "--resolution", "32")
        assert status == 0
        assert re.search(rf"\b{before} images?\b|\bimages +{before}\b", out)
    assert count(source) == before
    assert not list(image_folder.rglob("*contact-sheet*.png")) or source == "cats"


def test_the_sheet_lies_where_it_was_asked_for(command, image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("data", str(image_folder), "--resolution", "32")[0] == 0
    (sheet,) = tmp_path.glob("contact-sheet-images-????????.png")
    content = sheet.read_bytes()
    for options in (["--resolution", "64"], ["--resolution", "32", "--labels", "False"]):
        assert command("data", str(image_folder), *options)[0] == 0
    assert command("data", str(image_folder / "cats"), "--resolution", "32")[0] == 0
    assert len(list(tmp_path.glob("contact-sheet-*.png"))) == 4
    assert sheet.read_bytes() == content
    for _ in range(2):  # even in the source
        assert (
            command("data", str(image_folder), "--resolution", "32", "--out", str(image_folder / "cats" / "0.5.png"))[0]
            == 0
        )
        assert count(image_folder) == 24


def test_training_in_the_folder_of_its_images_and_looking_at_them_changes_nothing(
    command, train_options, image_folder, monkeypatch
):
    monkeypatch.chdir(image_folder)
    options = ["--data", ".", *train_options[2:]]
    assert command("train", *options, "--steps", "3")[0] == 0
    (run,) = (image_folder / "runs").iterdir()
    for arguments in (("data", "."), ("sample", run, "--out", run.parent.parent / "cats" / "grid.png"), ("plot", run)):
        assert command(*arguments)[0] == 0
    status, _, errors = command("train", "--resume", run)
    assert status == 0, errors
    assert count(".") == 24


@pytest.mark.parametrize(
    "encoding", ["ascii", *(pytest.param(encoding, marks=pytest.mark.slow) for encoding in ("cp1252", "utf-8"))]
)
def test_names_that_the_terminal_cannot_show(image_folder, tmp_path, encoding):
    names = ["猫", os.fsdecode(b"caf\xe9"), "\x1b[31mred", "\x1b]0;title\x07"]
    for number, name in enumerate(names):
        (image_folder / name).mkdir()
        shutil.copy(next((image_folder / "cats").iterdir()), image_folder / name / f"{number}.png")
    for arguments in (
        ("data", str(image_folder), "--resolution", "32"),
        ("data", str(image_folder / "nope" / "\x1b[31m猫\x1b]0;title\x07")),
    ):
        done = sagan(*arguments, "--out", str(tmp_path / "x.png"), PYTHONIOENCODING=encoding)
        assert b"Traceback" not in done.stderr
        assert done.returncode == (2 if "nope" in arguments[1] else 0)
        assert b"\x1b" not in done.stdout + done.stderr
        assert b"\x07" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "words", [["sample", "x\x1b[31m"], ["evaluate", "x\x1b]0;t\x07"], ["train", "--from", "x\x1b[2J"]]
)
def test_errors_that_repeat_a_name_do_not_control_the_terminal(command, words):
    status, _, errors = command(*words)
    assert status == 2
    assert errors.count("\n") == 1
    assert errors[:-1].isprintable()


@pytest.mark.parametrize("arguments", [["data", os.fsdecode(b"caf\xe9")], ["train", "--out", os.fsdecode(b"\xff/x")]])
def test_arguments_that_are_not_text_are_refused_before_anything_is_written(command, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir(tmp_path))
    status, _, errors = command(*arguments)
    assert status == 2
    assert re.fullmatch(r"sagan: .*\bUTF-8\b.*\n", errors)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("position", [11, *(pytest.param(p, marks=pytest.mark.slow) for p in (0, 23))])
def test_a_store_that_is_truncated_under_a_training_run(command, train_options, image_folder, monkeypatch, position):
    """What was a bus error is one line, and the run can be resumed."""
    from sagan.data import Batches

    load, seen = Batches.__call__, []

    def truncate(self, index):
        seen.append(index)
        if len(seen) == 5:
            os.truncate(self.store.path / "images.npy", 128 + position * 32 * 32 * 3)
        return load(self, index)

    monkeypatch.chdir(image_folder.parent)
    monkeypatch.setattr(Batches, "__call__", truncate)
    status, _, errors = command("train", *train_options, "--steps", "12", "--out", "run")
    assert status == 2
    assert re.search(r"^sagan: .*\btruncated\b.*\bpacked again\b.*$", errors, re.MULTILINE)
    assert command("train", "--resume", "run")[0] == 0


def test_a_run_whose_store_was_zeroed_is_resumed_on_the_right_images(command, train_options, image_folder, monkeypatch):
    monkeypatch.chdir(image_folder.parent)
    assert command("train", *train_options, "--steps", "3", "--out", "run")[0] == 0
    store = prepare(DataConfig(str(image_folder)), resolution=32, image_channels=3, progress=False)
    images = np.array(store.images)
    with (store.path / "images.npy").open("rb+") as file:
        file.seek(128)
        file.write(bytes(images.size))
    assert command("train", "--resume", "run")[0] == 0
    again = prepare(DataConfig(str(image_folder)), resolution=32, image_channels=3, progress=False)
    np.testing.assert_array_equal(again.images, images)


def test_what_is_written_next_to_class_folders_keeps_a_run_from_nothing(
    command, train_options, image_folder, monkeypatch
):
    """Folders without images next to the classes, such as exports and shards, do not change the data."""
    monkeypatch.chdir(image_folder)
    options = ["--data", ".", *train_options[2:]]
    assert command("train", *options, "--steps", "3", "--out", "runs/one")[0] == 0
    assert command("data", "pack", ".", "--out", "shards")[0] == 0
    assert command("sample", "runs/one", "--count", "2", "--out", "exports/s.npz")[0] == 0
    assert command("data", ".", "--resolution", "32", "--out", "sheets/x.png")[0] == 0
    Path("notes").mkdir()
    status, _, errors = command("train", "--resume", "runs/one", "--steps", "6")
    assert status == 0, errors
    assert count(".") == 24
    assert "note:" not in command("attend", "runs/one", "--network", "discriminator")[1]


def test_a_folder_without_images_is_named_and_is_no_class(command, image_folder, tmp_path):
    (image_folder / "exports").mkdir()
    (image_folder / "exports" / "s.npz").write_bytes(b"x")
    output = command("data", str(image_folder), "--resolution", "32", "--out", str(tmp_path / "x.png"))[1]
    assert re.search(r"\bexports: .*\bnot a class\b", output)
    assert re.search(r"\b2 classes\b|\bclasses +2\b|cats +12", output)
