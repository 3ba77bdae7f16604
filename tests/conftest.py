import numpy as np
import pytest
import torch
from PIL import Image

from sagan.cli import main


@pytest.fixture(scope="session", autouse=True)
def _one_thread_each():
    """Tests run on all cores side by side; more threads in each would only get in each other's way."""
    torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=2, help="SIGKILLs in the test of resuming")


@pytest.fixture
def image_folder(tmp_path, monkeypatch):
    """A folder of two class folders, twelve images of noise in each, and a cache of its own."""
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(12):
            image = Image.fromarray(rng.integers(256, size=(40, 48, 3), dtype=np.uint8))
            image.save(tmp_path / "images" / name / f"{i}.png")
    monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "images"


@pytest.fixture
def train_options(image_folder):
    """Options of `sagan train` for a run of a second or two."""
    tiny = "--resolution 32 --base-channels 4 --latent-dim 8 --batch-size 4 --precision fp32 --device cpu"
    rhythm = "--log-every 2 --sample-every 4 --checkpoint-every 3 --evaluate-every 0"
    return ["--data", str(image_folder), *tiny.split(), *rhythm.split()]


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
