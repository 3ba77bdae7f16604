"""Training on data that vanish, on a server or on the disk: the run resumes as if nothing had happened."""

import os
import re

import pytest
import torch

from helpers.shards import serve
from sagan.cli import main
from sagan.data.packed import PackedImages
from sagan.data.shards import reader as shards
from sagan.data.shards import remote
from sagan.files import load_tensors
from sagan.run import Run


@pytest.fixture(autouse=True)
def _little_at_a_time(monkeypatch):
    monkeypatch.setattr(remote, "WAITS", (0.01, 0.01))
    monkeypatch.setattr(shards, "PIECE", 1)  # a piece for each image
    monkeypatch.setattr(shards, "_BATCHES_AHEAD", 2)


def test_a_server_that_vanishes_costs_nothing(tmp_path, train_options, image_folder, capsys):
    assert main(["data", "pack", str(image_folder), "--out", str(tmp_path / "packed"), "--shard-size", "1"]) == 0
    whole, run, asked = tmp_path / "whole", tmp_path / "run", []

    def refuses(path):
        asked.append(path)
        return sum(path.endswith(".tar") for path in asked) > 24  # of 32 images that eight steps take

    with serve(tmp_path) as (url, server):
        options = ["--data", f"{url}/packed", *train_options[2:], "--steps", "8", "--lecam", "0.1"]
        assert main(["train", *options, "--out", str(whole)]) == 0
        server.refuses = refuses
        capsys.readouterr()
        assert main(["train", *options, "--out", str(run)]) == 2
        errors = capsys.readouterr().err
        assert re.search(r"packed-000000\.tar\b.*\b3 attempts\b", errors.splitlines()[-1])
        assert "Traceback" not in errors
        stopped = int(Run(run).checkpoints()[-1].stem.removeprefix("step-"))
        assert 3 < stopped < 8
        assert stopped % 3  # saved then, not by the rhythm of checkpoints
        server.refuses = lambda path: False
        assert main(["train", "--resume", str(run), "--device", "cpu"]) == 0
    (a, _), (b, _) = (load_tensors(Run(one).checkpoint_path(8)) for one in (whole, run))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert a.keys() == b.keys()


def test_a_packed_store_that_is_truncated_costs_nothing_either(tmp_path, train_options, monkeypatch, capsys):
    read, reads, run = PackedImages._read, [], tmp_path / "run"

    def truncate(images, positions):
        reads.append(positions)
        if len(reads) == 5:
            os.truncate(images.path, 200)
        return read(images, positions)

    monkeypatch.setattr(PackedImages, "_read", truncate)
    assert main(["train", *train_options, "--steps", "8", "--out", str(run)]) == 2
    assert re.search(r"\btruncated\b.*\bpacked again\b", capsys.readouterr().err)
    stopped = int(Run(run).checkpoints()[-1].stem.removeprefix("step-"))
    assert stopped % 3  # saved then, not by the rhythm of checkpoints
    assert main(["train", "--resume", str(run), "--device", "cpu"]) == 0


def test_shards_that_changed_are_noticed(tmp_path, train_options, image_folder, capsys):
    packed = tmp_path / "packed"
    assert main(["data", "pack", str(image_folder), "--out", str(packed), "--shard-size", "1"]) == 0
    options = ["--data", str(packed), *train_options[2:], "--steps", "2", "--out", str(tmp_path / "run")]
    assert main(["train", *options]) == 0
    for path in packed.iterdir():
        path.unlink()
    (image_folder / "cats" / "0.png").unlink()
    assert main(["data", "pack", str(image_folder), "--out", str(packed), "--shard-size", "1"]) == 0
    assert main(["train", "--resume", str(tmp_path / "run"), "--device", "cpu"]) == 2
    assert re.search(rf"{re.escape(str(packed))}\b.*\bchanged\b", capsys.readouterr().err)
