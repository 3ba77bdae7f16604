import os
import shutil

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, by the processes that tests start too

import numpy as np
import pytest
import torch
from PIL import Image

from sagan.cli import main
from sagan.run import Run


@pytest.fixture(scope="session", autouse=True)
def _one_thread_each():
    """Tests run on all cores side by side; more threads in each would only get in each other's way."""
    torch.set_num_threads(1)


@pytest.fixture
def float64():
    """Compute in float64 by default, as references do."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=1, help="SIGKILLs in the test of resuming")


def write_images(folder):
    """Write two class folders, twelve images of noise in each."""
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for i in range(12):
            image = Image.fromarray(rng.integers(256, size=(40, 48, 3), dtype=np.uint8))
            image.save(folder / name / f"{i}.png")
    return folder


def options_on(images):
    """Options of `sagan train` for a run of a second or two on a folder of images."""
    tiny = "--resolution 32 --base-channels 4 --latent-dim 8 --batch-size 4 --precision fp32 --device cpu"
    rhythm = "--log-every 2 --sample-every 4 --checkpoint-every 3 --evaluate-every 0"
    return ["--data", str(images), *tiny.split(), *rhythm.split()]


@pytest.fixture
def image_folder(tmp_path, monkeypatch):
    """A folder of images of cats and dogs, and a cache of its own."""
    monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))
    return write_images(tmp_path / "images")


@pytest.fixture
def train_options(image_folder):
    """Options of `sagan train` for a run of a second or two on `image_folder`."""
    return options_on(image_folder)


@pytest.fixture(scope="session")
def _trained_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGAN_CACHE", str(folder / "cache"))
        options = [*options_on(write_images(folder / "images")), "--steps", "6", "--ema-decay", "0.5"]
        assert main(["train", *options, "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def trained_run(_trained_once, tmp_path, monkeypatch):
    """A copy of a run of six steps, and a cache of its own; all tests share its images, which none may change."""
    monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))
    return Run(shutil.copytree(_trained_once, tmp_path / "trained"))


@pytest.fixture
def command(capsys):
    """Run `sagan ARGUMENTS` in this process; return its exit status, standard output and standard error."""

    def run(*arguments):
        try:
            status = main([str(a) for a in arguments])
        except SystemExit as error:  # --help
            status = error.code
        output = capsys.readouterr()
        return status, output.out, output.err

    return run
