"""Whatever a file has become, it is read or refused in words: no traceback, no hang, little memory, nothing lost."""

import faulthandler
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import damage
from sagan import Config, ModelConfig, TrainingConfig, UserError
from sagan.cli import main
from sagan.config import DataConfig
from sagan.data import prepare
from sagan.importers.importer import import_networks
from sagan.run import Run, RunInfo, read_discriminator, read_generator
from sagan.training.checkpoint import load_newest, take_snapshot, write_checkpoint
from sagan.training.recorder import write_animation
from sagan.training.step import Trainer

SECONDS = 20
"""For any one file; more counts as a hang, and ends the tests with all stacks shown."""
MEGABYTES = 500
"""That all files of one test together may add to the memory of the process."""
PICTURES = pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
FILES = pytest.mark.parametrize("count", [8, pytest.param(100, marks=pytest.mark.slow)])
DATA = Path(__file__).parent / "importers" / "data"
MODEL = ModelConfig(resolution=32, latent_dim=8, base_channels=4, num_classes=2)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux tells it")


@pytest.fixture(autouse=True)
def _bounded():
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    yield
    faulthandler.cancel_dump_traceback_later()
    more = memory("VmHWM") - before
    print(f"peak memory: {more:.0f} MB more")
    assert more < MEGABYTES


def memory(what):
    """The resident set of this process, now or at its peak, MB."""
    return int(re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def refused_or_read(read):
    """Calls a reader; whether it read. Anything but a UserError of one line is raised."""
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=sys.__stderr__)
    message = ""
    try:
        read()
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    return not message


def read_all(readers, whole):
    """How many were read of the rest of `readers`, if none of them raised; after each the `whole` one still can be."""
    read = sum(refused_or_read(reader) for reader in readers)
    assert refused_or_read(whole)
    return read


@PICTURES
def test_damaged_images(tmp_path, monkeypatch, count):
    """All in one folder with whole ones: the whole ones are there exactly, of the others each is there or named."""
    monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(1)
    whole = rng.integers(256, size=(10, 32, 32, 3), dtype=np.uint8)
    for i, pixels in enumerate(whole):
        Image.fromarray(pixels).save(folder / f"whole-{i}.png")
    names = set()
    for name, data in damage.damaged_images(count):
        (folder / name).write_bytes(data)
        names.add(name)
    faulthandler.dump_traceback_later(SECONDS + count / 5, exit=True, file=sys.__stderr__)
    store = prepare(DataConfig(source=str(folder)), resolution=32, image_channels=3, progress=False)
    left_out = {one.name for one in store.skipped}
    assert set(store.names) | left_out == names | {f"whole-{i}.png" for i in range(10)}
    assert not set(store.names) & left_out
    assert len(left_out) > count / 3
    for i, pixels in enumerate(whole):
        assert np.array_equal(store.images[store.names.index(f"whole-{i}.png")], pixels)


@FILES
def test_damaged_archives(tmp_path, monkeypatch, count):
    monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(2)
    path = tmp_path / "inner" / "data.zip"
    path.parent.mkdir()

    def reader(data):
        path.write_bytes(data)
        return lambda: prepare(DataConfig(source=str(path)), resolution=32, image_channels=3, progress=False)

    whole = damage.plain_zip(rng)
    read_all((reader(damage.hostile_zip(rng)) for _ in range(count)), lambda: reader(whole)())
    assert {path.name for path in tmp_path.iterdir()} == {"inner", "cache"}
    assert {path.name for path in path.parent.iterdir()} == {"data.zip"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of two checkpoints, a log and grids, and networks saved as others save them."""
    folder = tmp_path_factory.mktemp("damage")
    config = Config(DataConfig(source="digits"), MODEL, TrainingConfig(steps=9, batch_size=4))
    run = Run.create(folder / "run", RunInfo(config, ("cats", "dogs"), "key"))
    trainer = Trainer(MODEL, config.training, torch.device("cpu"))

    def batch(number):
        return torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])

    for step in (1, 2):
        trainer.train_step(step - 1, batch)
        write_checkpoint(run.checkpoint_path(step), take_snapshot(trainer, step))
    run.save_generator(trainer.ema.network, 2)
    rows = [{"step": i, "loss/discriminator": 1.5, "fid": 100.0 - i} for i in range(1, 3)]
    run.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run.path / "samples").mkdir()
    for step in (1, 2):
        Image.new("RGB", (40, 40)).save(run.sample_path(step))
    return run


def copy(made, tmp_path, number):
    return shutil.copytree(made.path, tmp_path / f"run-{number}")


@FILES
def test_damaged_checkpoints(made, tmp_path, count):
    """The newest of two: the one before is gone on with. Also the inference weights, half of the times."""
    rng = np.random.default_rng(3)
    whole = made.checkpoint_path(2).read_bytes()
    generator = made.generator_path.read_bytes()
    trainer = Trainer(MODEL, TrainingConfig(), torch.device("cpu"))
    read = 0
    for number in range(count):
        kind = damage.damaged if number % 2 else damage.hostile_safetensors
        run = Run(copy(made, tmp_path, number % 2))
        run.checkpoint_path(2).write_bytes(kind(rng, whole))
        run.generator_path.write_bytes(kind(rng, generator))
        said = []
        assert refused_or_read(lambda run=run, said=said: load_newest(run.checkpoints(), trainer, said.append))
        assert all(str(run.checkpoint_path(2)) in line for line in said)
        for reader in (read_generator, read_discriminator):
            read += refused_or_read(lambda reader=reader, run=run: reader(run.path))
        refused_or_read(lambda run=run: read_generator(run.checkpoint_path(2), averaged=False))
        assert made.checkpoint_path(1).read_bytes() == run.checkpoint_path(1).read_bytes()
        shutil.rmtree(run.path)
    assert read < 0.1 * count  # there is a checksum


@FILES
def test_damaged_configurations(made, tmp_path, capsys, count):
    rng = np.random.default_rng(4)
    whole = made.config_path.read_bytes()
    for number in range(count):
        path = copy(made, tmp_path, number)
        data = damage.damaged(rng, whole) if number % 3 == 2 else damage.hostile_json(rng, whole)
        (path / "config.json").write_bytes(data)
        for reader in (read_generator, read_discriminator):
            refused_or_read(lambda reader=reader, path=path: reader(path))
        faulthandler.dump_traceback_later(SECONDS, exit=True, file=sys.__stderr__)
        status = main(["sample", str(path), "--count", "1", "--out", str(tmp_path / "out.png")])
        said = capsys.readouterr().err
        assert status in (0, 2)
        assert "Traceback" not in said
        assert len(said.splitlines()) == (status == 2)
        shutil.rmtree(path)


@FILES
def test_damaged_logs_and_grids(made, tmp_path, capsys, count):
    rng = np.random.default_rng(5)
    log = made.metrics_path.read_bytes()
    grid = made.sample_path(1).read_bytes()
    for number in range(count):
        path = copy(made, tmp_path, number)
        run = Run(path)
        row = damage.hostile_json(rng, log.splitlines()[0]) + b"\n"
        run.metrics_path.write_bytes(damage.damaged(rng, log) if number % 2 else log + row + log)
        run.sample_path(int(rng.integers(1, 3))).write_bytes(damage.damaged(rng, grid))
        refused_or_read(lambda run=run: write_animation(run))
        if number % 10 == 0:
            assert main(["plot", str(path)]) in (0, 2)
            assert main(["report", str(path)]) in (0, 2)
        shutil.rmtree(path)
    assert "Traceback" not in capsys.readouterr().err


@FILES
def test_damaged_files_of_others(made, tmp_path, count):
    """Checkpoints of other codebases: pickles, archives of arrays and safetensors, damaged in every way."""
    rng = np.random.default_rng(6)
    names = ("studiogan/G.pth", "mimicry/netG.pth", "mmgeneration/iter_9.pth")
    wholes = [(tmp_path.parent / name, (DATA / name).read_bytes()) for name in names]
    arrays = tmp_path / "arrays.npz"
    np.savez_compressed(arrays, **{"model/g_snh0/Matrix:0": np.zeros((8, 64), np.float32)})
    wholes.append((arrays, arrays.read_bytes()))
    for number in range(count):
        whole, data = wholes[number % len(wholes)]
        path = tmp_path / f"damaged{whole.suffix}"
        path.write_bytes(damage.damaged(rng, data))
        refused_or_read(lambda path=path: import_networks(path))
