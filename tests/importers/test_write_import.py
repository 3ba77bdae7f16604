"""What an import writes: all of a run or nothing, and a step that a run can have."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sagan import files
from sagan.errors import UserError
from sagan.importers.importer import import_networks, write_import
from sagan.run import Run, read_discriminator, read_generator

DATA = Path(__file__).parent / "data" / "studiogan"


@pytest.fixture(scope="module")
def imported():
    return import_networks(DATA / "G.pth", discriminator=DATA / "D.pth")


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("writes", [0, 1, 2])  # of config.json, the checkpoint and the generator
@pytest.mark.parametrize("out", ["run", "new/folders/run", "empty", "notes"])
def test_a_disk_that_refuses_leaves_nothing(imported, tmp_path, monkeypatch, writes, out):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    before = listing(tmp_path)
    left = iter([None] * writes)
    replace = os.replace

    def refuse(*arguments):
        if next(left, "full") == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(*arguments)

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(UserError, match=r"^[^\n]*No space left on device[^\n]*$") as error:
        write_import(tmp_path / out, imported, DATA / "G.pth")
    assert str(tmp_path / out) in str(error.value)
    assert ".tmp" not in str(error.value)
    assert listing(tmp_path) == before
    monkeypatch.undo()
    run = write_import(tmp_path / out, imported, DATA / "G.pth")  # the next try is not told of a run
    assert run.path == tmp_path / out
    assert read_generator(run.path)[2] == read_generator(run.checkpoints()[0])[2] == 7
    assert read_discriminator(run.path).config == imported.config
    expected = {"config.json", "generator.safetensors", "checkpoints"} | ({"mine.txt"} if out == "notes" else set())
    assert {path.name for path in run.path.iterdir()} == expected


def test_an_interrupt_leaves_nothing(imported, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sagan.importers.importer.save_tensors", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_import(tmp_path / "run", imported, DATA / "G.pth")
    assert listing(tmp_path) == []


@pytest.mark.parametrize("path", ["file", "file/run"])
def test_a_folder_that_cannot_be_made_is_one_line(imported, tmp_path, path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(UserError, match=r"^[^\n]*file[^\n]*could not be written[^\n]*$"):
        write_import(tmp_path / path, imported, DATA / "G.pth")
    assert listing(tmp_path) == ["file"]


@pytest.mark.parametrize("step", [-1, 10**30, 2**53, True, 3.5, "9", None, torch.tensor(9), float("nan")])
def test_a_step_that_is_no_count_is_ignored(tmp_path, step):
    checkpoint = torch.load(DATA / "D.pth", weights_only=False) | {"step": step, "best_fid": np.float64(1)}
    torch.save(checkpoint, tmp_path / "D.pth")
    found = import_networks(DATA / "G.pth", discriminator=tmp_path / "D.pth")
    assert found.step == 0
    run = write_import(tmp_path / "run", found, DATA / "G.pth")
    assert read_generator(run.path)[2] == 0
    assert len(Run(run.path).checkpoints()) == 1
