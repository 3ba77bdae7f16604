"""Which device, which precision, which algorithms: chosen, kept to wherever networks run, and put back."""

import functools
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import sagan.device
from sagan import compat
from sagan.cli import main
from sagan.config import ModelConfig, TrainingConfig
from sagan.device import (
    CPU,
    CUBLAS_WORKSPACE,
    Precision,
    choose_algorithms,
    choose_device,
    choose_precision,
    enough_memory,
    full_precision,
)
from sagan.errors import UserError
from sagan.files import load_tensors
from sagan.metrics.features import CustomFeatures
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.run import Run
from sagan.sampling import draw_latents, estimate_statistics, sample_batches
from sagan.training.step import Trainer

CUDA = torch.device("cuda")
COMMANDS = ("sample", "attend", "interpolate", "report", "export", "evaluate", "explore")
DRAWING = [command for command in COMMANDS if command != "report"]  # which draws nothing


class Thumbnail(nn.Module):
    """Features that depend on every pixel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(x, 8).flatten(1) / 255


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of one step and what it was trained on; the cache of the module's tests."""
    path = tmp_path_factory.mktemp("device")
    rng = np.random.default_rng(0)
    for i in range(12):
        place = path / "images" / ("cats", "dogs")[i % 2] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(place)
    torch.jit.script(Thumbnail()).save(str(path / "thumbnail.pt"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGAN_CACHE", str(path / "cache"))
        assert main(["train", *options(path), "--steps", "1", "--out", str(path / "run")]) == 0
        yield path


def options(folder):
    tiny = "--resolution 32 --base-channels 4 --latent-dim 8 --batch-size 4 --precision fp32 --device cpu"
    return ["--data", str(folder / "images"), *tiny.split(), "--evaluate-every", "0"]


@pytest.fixture(autouse=True)
def _flags(monkeypatch):
    """The process's flags as they were, and PyTorch's defaults before the test."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic = True, False, False, False
    monkeypatch.delenv(CUBLAS_WORKSPACE, raising=False)
    yield
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic = before
    torch.use_deterministic_algorithms(False)
    os.environ.pop(CUBLAS_WORKSPACE, None)


def tf32():
    """Whether convolutions and matrix products may use TF32 now."""
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


EXACT, ROUNDED = (False, False), (True, True)


def set_tf32(both):
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = both


def _noted(forward, note, what):
    """A forward pass that first notes something of its network."""

    @functools.wraps(forward)
    def noted(self, *arguments, **named):
        note(what(self))
        return forward(self, *arguments, **named)

    return noted


@pytest.fixture
def seen(monkeypatch):
    """The flags at every forward pass of a generator, a discriminator or a feature network."""
    found = []

    def flags(network):
        return type(network).__name__, tf32()

    for kind, name in ((Generator, "forward"), (Discriminator, "forward"), (CustomFeatures, "embed")):
        monkeypatch.setattr(kind, name, _noted(getattr(kind, name), found.append, flags))
    return found


def arguments(command, folder, out):
    """A command that works on the run, everything asked for that takes a network."""
    rest = {
        "sample": ["--count", "2"],
        "attend": ["--network", "both", "--count", "1", "--out", f"{out}/a.png"],
        "interpolate": ["--steps", "3", "--out", f"{out}/i.png"],
        "report": ["--out", f"{out}/r.html"],
        "export": ["--to", "safetensors", "--out", f"{out}/g.safetensors"],
        "evaluate": ["--features", str(folder / "thumbnail.pt"), "--count", "8", "--out", f"{out}/e.json"],
        "explore": ["--port", "0", "--open", "False"],
    }
    if command == "sample":
        rest["sample"] += ["--out", f"{out}/s.png"]
    return [command, str(folder / "run"), *rest[command]]


@pytest.fixture
def _no_server(monkeypatch):
    """Explore returns where it would listen."""
    uvicorn = pytest.importorskip("uvicorn")
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)


class TestDevice:
    @pytest.mark.parametrize("name", ["meta", "nonsense", "cuda:99", "hpu", ""])
    def test_what_does_not_compute_here_is_refused(self, name):
        with pytest.raises(UserError, match=f"^--device {name}: not available here [^\n]*; try cpu$"):
            choose_device(name)

    def test_auto_takes_cuda_where_it_is(self, monkeypatch):
        assert choose_device("cpu") == CPU
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert choose_device("auto") == CPU
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert choose_device("auto") == CUDA

    @pytest.mark.usefixtures("_no_server")
    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_accepts_it(self, command, folder, tmp_path, capsys):
        assert main([*arguments(command, folder, tmp_path), "--device", "cpu"]) == 0
        assert capsys.readouterr().out

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")
    @pytest.mark.parametrize("name", ["cuda", "meta", "nonsense"])
    @pytest.mark.parametrize("command", [*COMMANDS, "train", "study"])
    def test_every_command_says_in_one_line_what_is_not_there(self, command, name, folder, tmp_path, capsys):
        training = [*options(folder), "--out", str(tmp_path / "run")]
        given = {"train": ["train", *training], "study": ["study", "settings", *training]}.get(command)
        assert main([*(given or arguments(command, folder, tmp_path)), "--device", name]) == 2
        out, errors = capsys.readouterr()
        assert out == ""
        assert errors.count("\n") == 1
        assert errors.startswith(f"sagan: --device {name}: not available here")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.usefixtures("_no_server")
    @pytest.mark.parametrize("command", DRAWING)
    def test_the_networks_run_there(self, command, folder, tmp_path, monkeypatch):
        """On the meta device, which has shapes only: reading an image back must fail."""
        meta, found = torch.device("meta"), set()
        given = arguments(command, folder, tmp_path)
        if command == "export":
            given = ["export", str(folder / "run"), "--to", "torch-export", "--out", f"{tmp_path}/g.pt2"]
        if command == "evaluate":  # the features of the reference are then read from the cache
            assert main([*given, "--device", "cpu"]) == 0
        monkeypatch.setattr(
            Generator,
            "forward",
            _noted(Generator.forward, found.add, lambda network: next(network.parameters()).device),
        )
        monkeypatch.setattr(sagan.device, "choose_device", lambda name: meta)
        monkeypatch.setattr("sagan.distributed.choose_device", lambda name: meta)
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            main([*given, "--device", "cuda"])
        assert meta in found  # a graph is written on the CPU

    @pytest.mark.parametrize("network", ["generator", "discriminator"])
    def test_each_network_that_attends_runs_there(self, network, folder, tmp_path, monkeypatch):
        monkeypatch.setattr(sagan.device, "choose_device", lambda name: torch.device("meta"))
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            main(["attend", str(folder / "run"), "--network", network, "--out", f"{tmp_path}/a.png"])


class TestPrecision:
    @pytest.mark.parametrize(
        ("name", "capability", "chosen"),
        [
            ("auto", (9, 0), "bf16"),  # Hopper
            ("auto", (8, 9), "bf16"),  # Ada
            ("auto", (8, 0), "bf16"),  # Ampere
            ("auto", (7, 5), "fp32"),  # Turing
            ("auto", (7, 0), "fp32"),  # Volta
            ("fp32", (9, 0), "fp32"),
            ("bf16", (9, 0), "bf16"),
            ("bf16", (7, 5), "bf16"),  # emulated: slow, but asked for
            ("tf32", (9, 0), "tf32"),
            ("tf32", (8, 0), "tf32"),
        ],
    )
    def test_on_cuda(self, name, capability, chosen, monkeypatch):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        assert choose_precision(name, CUDA) == Precision(chosen)

    @pytest.mark.parametrize(
        ("name", "amx", "chosen"),
        [
            ("auto", True, "bf16"),
            ("auto", False, "fp32"),
            ("fp32", True, "fp32"),
            ("bf16", False, "bf16"),
        ],
    )
    def test_on_the_cpu(self, name, amx, chosen, monkeypatch):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        assert choose_precision(name, CPU) == Precision(chosen)
        if name == "auto":  # the CPU's matrix units are of no use to another device
            assert choose_precision(name, torch.device("mps")) == Precision("fp32")

    def test_a_pytorch_that_does_not_tell_of_matrix_units_has_none(self, monkeypatch):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
        assert compat.has_amx()
        monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
        assert not compat.has_amx()

    def test_tf32_is_refused_where_there_is_none(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
        for device in (CPU, CUDA, torch.device("mps")):
            with pytest.raises(UserError, match=f"--precision tf32: .* from Ampere on, not {device.type}"):
                choose_precision("tf32", device)

    @pytest.mark.parametrize("command", ["train", "study stability"])
    def test_it_is_refused_before_there_is_a_run(self, command, folder, tmp_path, capsys):
        given = [*command.split(), *options(folder), "--out", str(tmp_path / "run"), "--precision", "tf32"]
        assert main(given) == 2
        out, errors = capsys.readouterr()
        assert out == ""
        assert errors.count("\n") == 1
        assert errors.startswith("sagan: --precision tf32: ")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("both", [(True, False), (False, True), EXACT, ROUNDED])
    def test_flags_are_put_back(self, both):
        torch.backends.cudnn.benchmark = True
        for context, within in (
            (full_precision(), EXACT),
            (Precision("fp32").flags(), EXACT),
            (Precision("bf16").flags(), EXACT),
            (Precision("tf32").flags(), ROUNDED),
        ):
            set_tf32(both)
            with context:
                assert tf32() == within
                assert torch.backends.cudnn.benchmark
            assert tf32() == both
        with pytest.raises(KeyError), full_precision():
            raise KeyError
        assert tf32() == both
        assert torch.backends.cudnn.benchmark

    def test_autocast_is_bf16_s(self):
        x = torch.ones(2, 2)
        for name, dtype in (("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)):
            with Precision(name).autocast(CPU):
                assert (x @ x).dtype == dtype


class TestTrainingStep:
    MODEL = ModelConfig(resolution=32, num_classes=3, latent_dim=8, base_channels=4)

    def step(self, seen, precision, **options):
        """The flags of forward passes, of the backward pass of D and of that of G, in one step."""
        trainer = Trainer(self.MODEL, TrainingConfig(batch_size=4, precision="fp32", **options), CPU)
        trainer.precision = Precision(precision)  # tf32 too, which changes flags only
        backward = {"discriminator": [], "generator": []}
        for network, found in backward.items():
            for parameter in getattr(trainer, network).parameters():
                parameter.register_hook(lambda g, found=found: found.append(tf32()))
        images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
        trainer.train_step(0, lambda i: (images, torch.arange(4) % 3))
        return [flags for _, flags in seen], *map(set, backward.values())

    PENALTIES = {"r1": 1.0, "r2": 1.0, "gradient_penalty": 1.0}  # noqa: RUF012

    def test_penalties_are_in_full_precision_and_the_rest_is_not(self, seen):
        forward, of_discriminator, of_generator = self.step(seen, "tf32", **self.PENALTIES)
        # G and D, R1 with R2, the gradient penalty, then G and D again.
        assert forward == [ROUNDED, ROUNDED, EXACT, EXACT, ROUNDED, ROUNDED]
        assert of_discriminator == {EXACT}
        assert of_generator == {ROUNDED}
        assert tf32() == (True, False)

    def test_without_penalties_nothing_is(self, seen):
        assert self.step(seen, "tf32") == ([ROUNDED] * 4, {ROUNDED}, {ROUNDED})

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_fp32_is_not_tf32_and_nor_is_what_bf16_leaves(self, seen, precision):
        set_tf32(ROUNDED)
        assert self.step(seen, precision, **self.PENALTIES) == ([EXACT] * 6, {EXACT}, {EXACT})
        assert tf32() == ROUNDED


class TestDrawing:
    @pytest.mark.usefixtures("_no_server")
    @pytest.mark.parametrize("command", DRAWING)
    def test_is_in_full_precision(self, command, folder, tmp_path, seen):
        set_tf32(ROUNDED)
        assert main([*arguments(command, folder, tmp_path), "--device", "cpu"]) == 0
        assert seen
        assert {flags for _, flags in seen} == {EXACT}
        wanted = {"Generator"} | {"attend": {"Discriminator"}, "explore": {"Discriminator"}}.get(command, set())
        if command == "evaluate":
            wanted.add("CustomFeatures")
        assert {name for name, _ in seen} == wanted
        assert tf32() == ROUNDED

    def test_grids_and_evaluations_of_a_training_run_are_too(self, folder, tmp_path, seen, monkeypatch):
        monkeypatch.setattr(Precision, "flags", lambda self: sagan.device._tf32(True))
        evaluated = ["--evaluate-every", "1", "--evaluate-features", str(folder / "thumbnail.pt")]
        drawn = ["--evaluate-count", "8", "--sample-every", "1", "--steps", "1", "--out", str(tmp_path / "run")]
        assert main(["train", *options(folder), *evaluated, *drawn, "--r1", "0", "--r2", "0"]) == 0
        flags = {name: [flags for kind, flags in seen if kind == name] for name, _ in seen}
        assert flags["Generator"][:2] == [ROUNDED, ROUNDED]  # the step's
        assert set(flags["Generator"][2:]) == {EXACT}
        assert len(flags["Generator"]) >= 5  # a grid, an evaluation and the attention figure too
        assert set(flags["CustomFeatures"]) == {EXACT}
        assert set(flags["Discriminator"]) == {ROUNDED}

    def test_between_batches_the_flags_are_the_caller_s(self, seen):
        generator = Generator(TestTrainingStep.MODEL).eval()
        set_tf32(ROUNDED)
        for _ in sample_batches(generator, draw_latents(4, 8, seed=0), torch.zeros(4, dtype=torch.int64), 2):
            assert tf32() == ROUNDED
        estimate_statistics(generator, batches=2, batch_size=2, seed=0)
        assert seen == [("Generator", EXACT)] * 4
        assert tf32() == ROUNDED


def train(*given):
    assert main(["train", *map(str, given)]) == 0


def algorithms():
    cudnn = torch.backends.cudnn
    return cudnn.benchmark, cudnn.deterministic, torch.are_deterministic_algorithms_enabled()


class TestDeterministic:
    def test_algorithms(self, capsys):
        choose_algorithms(deterministic=True)
        assert algorithms() == (False, True, True)
        assert os.environ[CUBLAS_WORKSPACE] == ":4096:8"
        choose_algorithms(deterministic=False)
        assert algorithms() == (True, False, False)
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize(
        ("before", "started", "after", "lines"),
        [
            (None, False, ":4096:8", 0),
            (None, True, ":4096:8", 1),
            (":16:8", True, ":16:8", 0),
            (":4096:2:16:8", False, ":4096:8", 0),  # cuBLAS's own default does not repeat
        ],
    )
    def test_cublas_has_to_know_before_cuda_starts(self, before, started, after, lines, monkeypatch, capsys):
        if before:
            monkeypatch.setenv(CUBLAS_WORKSPACE, before)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: started)
        choose_algorithms(deterministic=True)
        choose_algorithms(deterministic=True)
        assert os.environ[CUBLAS_WORKSPACE] == after
        assert capsys.readouterr().err.count("CUBLAS_WORKSPACE_CONFIG=:4096:8") == lines

    def test_training_has_it_and_a_resumed_run_too_before_there_is_a_device(self, folder, tmp_path, monkeypatch):
        found = []

        def step(self, *given, original=Trainer.train_step, **named):
            found.append(algorithms())
            return original(self, *given, **named)

        def device(name):
            found.append(os.environ.get(CUBLAS_WORKSPACE))
            return choose_device(name)

        monkeypatch.setattr(Trainer, "train_step", step)
        monkeypatch.setattr("sagan.distributed.choose_device", device)
        run = tmp_path / "run"
        train(*options(folder), "--steps", 1, "--deterministic", True, "--out", run)
        assert found == [":4096:8", (False, True, True)]

        Run(run).checkpoint_path(1).unlink()
        choose_algorithms(deterministic=False)
        os.environ.pop(CUBLAS_WORKSPACE)
        found.clear()
        train("--resume", run, "--device", "cpu")
        assert found == [":4096:8", (False, True, True)]

        os.environ.pop(CUBLAS_WORKSPACE)
        found.clear()
        train(*options(folder), "--steps", 1, "--out", tmp_path / "other")
        assert found == [None, (True, False, False)]

    def test_changes_no_bit_on_the_cpu(self, folder, tmp_path):
        augment = ["--augment", "color", "translation", "cutout", "--r1", 1, "--loss", "relativistic"]
        for name in ("False", "True"):
            train(*options(folder), *augment, "--steps", 3, "--deterministic", name, "--out", tmp_path / name)
        without, with_it = (load_tensors(Run(tmp_path / name).checkpoint_path(3))[0] for name in ("False", "True"))
        assert without.keys() == with_it.keys()
        assert all(torch.equal(without[key], with_it[key]) for key in without)

    @pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
    def test_runs_from_before_it_are_read(self, folder, tmp_path, precision):
        content = json.loads((folder / "run" / "config.json").read_text())
        del content["config"]["training"]["deterministic"]
        content["config"]["training"]["precision"] = precision
        (tmp_path / "config.json").write_text(json.dumps(content))
        training = Run(tmp_path).info.config.training
        assert (training.precision, training.deterministic) == (precision, False)


class TestMemory:
    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            RuntimeError("GET was unable to find an engine to execute this computation"),
            RuntimeError("[enforce fail at alloc_cpu.cpp:75] DefaultCPUAllocator: can't allocate memory"),
            MemoryError(),
        ],
    )
    def test_running_out_is_an_error_with_advice(self, error):
        with pytest.raises(UserError, match=r"^out of memory: try less$"), enough_memory("try less"):
            raise error
        with pytest.raises(UserError, match=r"^out of memory: try a smaller --batch-size"), enough_memory():
            raise error

    def test_other_errors_stay_what_they_are(self):
        with pytest.raises(RuntimeError, match="device-side assert"), enough_memory():
            raise RuntimeError("CUDA error: device-side assert triggered")

    @pytest.mark.parametrize("command", DRAWING)
    def test_every_command_that_draws_says_so_in_one_line(self, command, folder, tmp_path, monkeypatch, capsys):
        def exhausted(*arguments, **named):
            raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")

        monkeypatch.setattr(Generator, "forward", exhausted)
        assert main([*arguments(command, folder, tmp_path), "--device", "cpu"]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[-1].startswith("sagan: out of memory: try ")
        assert lines[-1].endswith("--device cpu")
