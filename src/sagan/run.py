"""A run directory: the one place that knows its layout.

config.json             the exact configuration, class names and data key
metrics.jsonl           one line per logged step
events/                 the same values for TensorBoard
samples/step-*.png      grids of samples from fixed latents during training
samples.gif             an animation of these grids
samples.png             a grid of samples of generator.safetensors
checkpoints/step-*.safetensors   everything that resuming needs
generator.safetensors   the averaged generator, for inference
evaluation.png          the distance to the data during training
attend.png              attention maps (sagan attend)
curves.png              losses, logits, gammas and other logged values (sagan plot)
samples-over-time.png   images of a few latents at several steps (sagan plot)
interpolation.png       interpolations between latents and classes (sagan interpolate)
report.html             all of this in one file (sagan report)
generator.onnx, .pt2    the generator for use without sagan (sagan export)
evaluations/*.json      metrics, with everything that repeating the evaluation needs (sagan evaluate)
.lock                   exists while the run is being trained
"""

import contextlib
import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from sagan.config import Config
from sagan.device import CPU
from sagan.errors import UserError
from sagan.files import (
    MAX_JSON_BYTES,
    DamagedFile,
    load_tensors,
    locked,
    read_metadata,
    save_tensors,
    sweep,
    write_json,
)
from sagan.metric_names import best_step
from sagan.model.build import build_discriminator, build_generator
from sagan.model.config import ModelConfig
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.model.spectral_norm import for_inference, has_spectral_norm
from sagan.networks import build_from, select
from sagan.parsing import CheckedConfig, CheckedModel, first_problem, read_as
from sagan.trained import find, shipped_name

IMPORTED_PREFIX = "imported from "
"""Start of the data key of a run whose networks were imported."""


@dataclass(frozen=True)
class RunInfo:
    """The content of config.json: the configuration of a run and the classes and key of its data."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # a misspelt field is an error, not a silent default

    config: CheckedConfig
    class_names: tuple[str, ...]
    data_key: str
    """Key of the packed image store; for an imported run, IMPORTED_PREFIX and its source."""

    @property
    def origin(self) -> str:
        """Codebase and file of an imported run's networks; '' if the run was trained by sagan."""
        if not self.data_key.startswith(IMPORTED_PREFIX):
            return ""
        return self.data_key.removeprefix(IMPORTED_PREFIX)


@dataclass(frozen=True)
class GeneratorInfo:
    """The metadata of generator.safetensors: all that is needed to rebuild the network."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # a field of a newer version may mean another network

    step: Any
    model: CheckedModel
    class_names: tuple[str, ...]
    folded: bool = False
    """The spectral norms of `model` are folded into the weights, as imports write them."""


class Run:
    """A run directory; the name of a trained model that comes with the package means its folder.

    `info` has no data.cache: config.json may come from elsewhere, and no path in it is written to. The command line of
    today names the cache folder (`use_cache`).

    Raises:
        UserError: the directory or its config.json is missing or damaged.
    """

    def __init__(self, path: str | Path):
        self.path = find(path)
        self.config_path = self.path / "config.json"
        self.metrics_path = self.path / "metrics.jsonl"
        self.events_path = self.path / "events"
        self.samples_path = self.path / "samples.png"
        self.animation_path = self.path / "samples.gif"
        self.generator_path = self.path / "generator.safetensors"
        self.discriminator_path = self.path / "discriminator.safetensors"  # of a trained model without checkpoints
        self.curve_path = self.path / "evaluation.png"
        self.curves_path = self.path / "curves.png"
        self.film_strip_path = self.path / "samples-over-time.png"
        self.interpolation_path = self.path / "interpolation.png"
        self.report_path = self.path / "report.html"
        self.evaluations_path = self.path / "evaluations"
        if not self.config_path.is_file():
            raise UserError(
                f"{self.path} is not a run: it has no config.json; pass a folder that sagan train or sagan import "
                "wrote, or a name that sagan list shows"
            )
        self.info = read_as(RunInfo, self.config_path, "a run's configuration")
        self.use_cache("")
        _check_names(self.info.class_names, self.info.config.model, self.config_path)

    @classmethod
    def create(cls, path: str | Path, info: RunInfo) -> "Run":
        """Create a run.

        Raises:
            UserError: the folder contains a run already, or is not writable.
        """
        path = Path(path)
        if (path / "config.json").exists():
            refuse_second_run(path)
        write_json(path / "config.json", asdict(info))
        run = cls(path)
        run.use_cache(info.config.data.cache)
        return run

    def use_cache(self, cache: str) -> None:
        """Set the folder of the packed image stores that this process uses; '': the default one."""
        config = self.info.config
        self.info = replace(self.info, config=replace(config, data=replace(config.data, cache=cache)))

    def reconfigure(self, config: Config) -> None:
        """Replace the configuration, in config.json too, except for the cache folder there.

        Raises:
            UserError: the file cannot be written; it is then unchanged.
        """
        stored = read_as(RunInfo, self.config_path, "a run's configuration")
        data = replace(config.data, cache=stored.config.data.cache)
        write_json(self.config_path, asdict(replace(stored, config=replace(config, data=data))))
        self.info = replace(self.info, config=config)

    def sweep(self) -> None:
        """Remove files that were half-written when an earlier process of this run was killed."""
        for folder in ("checkpoints", "samples"):  # only training writes here
            sweep(self.path / folder, alone=True)
        for folder in ("", "evaluations"):
            sweep(self.path / folder)

    def check_present(self) -> None:
        """Check that the folder still exists: files written into a new one would not be a run.

        Raises:
            UserError: the folder has disappeared.
        """
        if not self.config_path.is_file():
            raise UserError(
                f"{self.path} disappeared during training (disk unmounted, or folder moved or deleted): "
                "restore it, then resume its last checkpoint with --resume"
            )

    def checkpoint_path(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step-{step:08d}.safetensors"

    def sample_path(self, step: int) -> Path:
        return self.path / "samples" / f"step-{step:08d}.png"

    def checkpoints(self) -> list[Path]:
        """Return the paths of the checkpoints, oldest first."""
        return _files_by_step(self.path / "checkpoints", "safetensors")

    def samples(self) -> list[Path]:
        """Return the paths of the grids of samples, oldest first."""
        return _files_by_step(self.path / "samples", "png")

    def metrics(self) -> list[dict[str, Any]]:
        """Read the metrics log: for each line a dictionary of numbers with an integer 'step'.

        Reading stops at the first line that is incomplete or damaged, e.g. by a crash.

        Raises:
            UserError: the log cannot be read.
        """
        rows: list[dict[str, Any]] = []
        if not self.metrics_path.exists():
            return rows
        try:
            with open(self.metrics_path, "rb") as file:
                while (line := file.readline(MAX_JSON_BYTES)) and (row := _parse_row(line)):
                    rows.append(row)
        except OSError as error:
            raise UserError(f"{self.metrics_path} could not be read: {error.strerror}") from error
        return rows

    def save_generator(self, generator: Generator, step: int, tensors: dict[str, Tensor] | None = None) -> None:
        """Write the weights for inference, with everything that rebuilding the network needs.

        Args:
            generator: the network.
            step: steps done.
            tensors: of its state dict, if not those that it has now.
        """
        config = generator.config
        metadata = {"step": step, "model": asdict(config), "class_names": self.info.class_names}
        if config.generator_spectral_norm and not has_spectral_norm(generator):
            metadata["folded"] = True
        save_tensors(self.generator_path, generator.state_dict() if tensors is None else tensors, metadata)

    def generator_step(self) -> int:
        """Return the step of generator.safetensors.

        Raises:
            UserError: the file is missing or damaged.
        """
        return read_count(read_metadata(self.generator_path), "step", self.generator_path)

    def weights_checkpoint(self) -> Path | None:
        """Return the checkpoint of generator.safetensors if it is kept, else the newest; None if there is none.

        Whatever shows more of a run than its averaged generator shows it of this checkpoint.
        """
        checkpoints = self.checkpoints()
        if self.generator_path.exists() and checkpoints:
            path = self.checkpoint_path(self.generator_step())
            if path in checkpoints:
                return path
        return checkpoints[-1] if checkpoints else None

    def best_step(self) -> int | None:
        """Return the step of the smallest distance logged so far; None without evaluations."""
        return best_step(self.metrics())


def refuse_second_run(path: Path) -> NoReturn:
    """Raise the UserError for a new run in a folder that contains one."""
    raise UserError(f"{path} contains a run already: resume it with --resume {path}, or choose another --out")


def step_of_file(path: Path) -> int:
    """Return the step in the name of a checkpoint or a grid of samples."""
    return int(path.stem.removeprefix("step-"))


def _files_by_step(folder: Path, suffix: str) -> list[Path]:
    return sorted(path for path in folder.glob(f"step-*.{suffix}") if re.fullmatch(r"step-\d{8,}", path.stem))


def lock_for_training(path: str | Path) -> contextlib.AbstractContextManager[None]:
    """Return a context that holds the training lock of a run's folder.

    Raises:
        UserError: another process is training this run (on entering the context).
    """
    busy = f"{path} is already being trained by another process: wait for it or stop it, or choose another --out"
    return locked(Path(path) / ".lock", busy)


def _parse_row(line: bytes) -> dict[str, Any] | None:
    """Parse a line of the metrics log; None if it is not one."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    numbers = isinstance(row, dict) and all(type(value) in (int, float) for value in row.values())
    return row if numbers and type(row.get("step")) is int else None


def read_count(metadata: dict[str, Any], name: str, path: Path) -> int:
    """Return a count in a file's metadata, such as its step; 0 if it is missing.

    Raises:
        DamagedFile: the value is not a count.
    """
    value = metadata.get(name, 0)
    if type(value) is not int or not 0 <= value < 2**53:
        raise DamagedFile(f"{path} is damaged: its {name} is not a count")
    return value


def default_output(path: str | Path, name: str) -> Path:
    """Return where a file made from a run is written by default: in its folder, or next to a single file.

    Of a trained model that comes with the package it is written here, NAME-`name`.
    """
    if shipped := shipped_name(path):
        return Path(f"{shipped}-{name}")
    path = Path(path)
    return (path if path.is_dir() else path.parent) / name


def read_generator(path: str | Path, *, averaged: bool = True) -> tuple[Generator, tuple[str, ...], int]:
    """Read a run's generator as it was trained. Return it with its class names and its step.

    An imported one has its spectral norms folded into the weights, though its configuration names them.

    Args:
        path: the run's folder, its generator.safetensors, one of its checkpoints, or a trained model's name.
        averaged: read the moving average, which draws the samples; False: the generator without averaging, which only
            checkpoints contain (for a folder, the one of generator.safetensors if it is kept, else the newest).

    Raises:
        UserError: there is no generator, or the file is damaged.
    """
    path = find(path)
    if path.is_dir() or not path.exists():
        run = Run(path)
        path = run.generator_path if averaged else run.weights_checkpoint() or run.generator_path
        if not path.exists():
            raise UserError(f"{path} does not exist yet: the run has not reached its first checkpoint")
    tensors, metadata = load_tensors(path)
    folded = metadata.get("folded") is True
    if "model" not in metadata and path.parent.name != "checkpoints" and averaged:  # saved again without metadata
        run = Run(path.parent)
        config, class_names = run.info.config.model, run.info.class_names
        folded = bool(run.info.origin) and not any(name.endswith(".u") for name in tensors)
    elif "model" not in metadata:  # a checkpoint, whose configuration is the run's
        run = Run(path.parent.parent)
        config, class_names = run.info.config.model, run.info.class_names
        tensors = select("ema/" if averaged else "generator/", tensors)
    elif not averaged:
        raise UserError(f"{path} contains only the average: pass the run's folder or one of its checkpoints")
    else:
        try:
            info = TypeAdapter(GeneratorInfo).validate_python({"step": 0, "class_names": None} | metadata)
        except ValidationError as error:
            where, message, unknown = first_problem(error)
            if unknown:
                problem = f"{path} has a field {where}, which this version of sagan does not know: a newer one may"
                raise UserError(problem) from error
            raise UserError(f"{path} is not a generator of sagan: {where}: {message}") from error
        config, class_names = info.model, info.class_names
        _check_names(class_names, config, path)
    generator = build_from(build_generator, config, tensors, path, folded=folded)
    return generator, class_names, read_count(metadata, "step", path)


def _check_names(class_names: tuple[str, ...], config: ModelConfig, path: Path) -> None:
    if len(class_names) != config.num_classes:
        raise DamagedFile(f"{path} is damaged: it names {len(class_names)} of {config.num_classes} classes")


def read_discriminator(path: str | Path) -> Discriminator:
    """Read a run's discriminator as it was trained.

    Args:
        path: the run's folder (for the checkpoint of generator.safetensors if it is kept, else the newest), one of its
            checkpoints, or a trained model's name.

    Raises:
        UserError: there is no run or no checkpoint, or the checkpoint is damaged.
    """
    run, file = _discriminator_file(path)
    tensors, metadata = load_tensors(file)
    if file != run.discriminator_path:
        tensors = select("discriminator/", tensors)
    folded = metadata.get("folded") is True
    return build_from(build_discriminator, run.info.config.model, tensors, file, folded=folded)


def discriminator_step(path: str | Path) -> int:
    """Return the step of the discriminator that `read_discriminator` reads. Raises UserError as it does."""
    _, file = _discriminator_file(path)
    return read_count(read_metadata(file), "step", file)


def _discriminator_file(path: str | Path) -> tuple[Run, Path]:
    """Return a run and the file of its discriminator, as `read_discriminator` chooses it."""
    path = find(path)
    if path.parent.name == "checkpoints":
        return Run(path.parent.parent), path
    run = Run(path)
    if checkpoint := run.weights_checkpoint():
        return run, checkpoint
    if run.discriminator_path.exists():
        return run, run.discriminator_path
    raise UserError(
        f"{run.path} has no checkpoint in {run.path / 'checkpoints'}, which would contain the discriminator"
    )


def load_generator(path: str | Path, device: torch.device = CPU) -> tuple[Generator, tuple[str, ...], int]:
    """Read a run's averaged generator, ready to use. Return it with its class names and its step.

    It is in evaluation mode, with spectral norms folded into the weights, and requires no gradients.

    Args:
        path: the run's folder, its generator.safetensors, or one of its checkpoints.
        device: where it is moved.

    Raises:
        UserError: there is no generator, or the file is damaged.
    """
    generator, class_names, step = read_generator(path)
    return for_inference(generator, device), class_names, step
