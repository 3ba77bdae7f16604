"""A run directory: the one place that knows its layout.

config.json             the exact configuration, class names and data key
metrics.jsonl           one line a logged step
events/                 the same for TensorBoard
samples/step-*.png      grids from fixed latents as training went; samples.gif of them
samples.png             the grid of the end
checkpoints/step-*.safetensors   everything to go on from
attend.png              what the attention layers look at, by sagan attend
generator.safetensors   the averaged generator, for inference
evaluation.png          the distance to the data as training went
curves.png              losses, logits, gammas and the rest as training went (sagan plot)
samples-over-time.png   the pictures of a few latents as training went (sagan plot)
interpolation.png       walks between latents and classes (sagan interpolate)
report.html             all of it in one file (sagan report)
generator.onnx, .pt2    the same for where sagan is not (sagan export)
evaluations/*.json      what sagan evaluate measured, with all that is needed to repeat it
.lock                   while it is being trained
"""

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor, nn

from sagan.config import Config
from sagan.errors import UserError
from sagan.files import DamagedFile, load_into, load_tensors, locked, save_tensors, sweep, write_atomically
from sagan.metric_names import best_step
from sagan.model.build import build_discriminator, build_generator
from sagan.model.config import ModelConfig
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.model.spectral_norm import bake_spectral_norm
from sagan.text import printable

T = TypeVar("T")

MOST_BYTES = 2**24
"""Largest config.json, and largest line of metrics.jsonl, that is read."""
IMPORTED = "imported from "


@dataclass(frozen=True)
class RunInfo:
    """What config.json holds: how the run was configured, and what its data turned out to be."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # a misspelt field is an error, not a silent default

    config: Config
    class_names: tuple[str, ...]
    data_key: str
    """Of the packed pictures; of an imported run IMPORTED and what it was imported from."""

    @property
    def origin(self) -> str:
        """The codebase and file of networks that were not trained here; '' of a run that was."""
        return self.data_key.removeprefix(IMPORTED) if self.data_key.startswith(IMPORTED) else ""


@dataclass(frozen=True)
class GeneratorInfo:
    """The metadata of generator.safetensors: all that is needed to rebuild the network."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # a field of a newer version may mean another network

    step: Any
    model: ModelConfig
    class_names: tuple[str, ...]


class Run:
    """A run directory.

    `info` has no data.cache: config.json may come from elsewhere, and no path in it is written to. The command line of
    today names the cache folder (`use_cache`).

    Raises:
        UserError: the directory, or its config.json, is missing or not readable as a run's.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config_path = self.path / "config.json"
        self.metrics_path = self.path / "metrics.jsonl"
        self.events_path = self.path / "events"
        self.samples_path = self.path / "samples.png"
        self.animation_path = self.path / "samples.gif"
        self.generator_path = self.path / "generator.safetensors"
        self.curve_path = self.path / "evaluation.png"
        self.curves_path = self.path / "curves.png"
        self.film_strip_path = self.path / "samples-over-time.png"
        self.interpolation_path = self.path / "interpolation.png"
        self.report_path = self.path / "report.html"
        self.evaluations_path = self.path / "evaluations"
        if not self.config_path.is_file():
            raise UserError(f"{self.path} is not a run: it has no config.json; give a folder that sagan train wrote")
        self.info = read_as(RunInfo, self.config_path, "a run's configuration")
        self.use_cache("")
        _check_names(self.info.class_names, self.info.config.model, self.config_path)

    @classmethod
    def create(cls, path: str | Path, info: RunInfo) -> "Run":
        """A new run. Raises UserError if there is one already, or the folder is not writable."""
        path = Path(path)
        if (path / "config.json").exists():
            raise UserError(f"{path} holds a run already: go on with --resume {path}, or give another --out")
        text = json.dumps(asdict(info), indent=2) + "\n"
        write_atomically(path / "config.json", lambda temporary: temporary.write_text(text))
        run = cls(path)
        run.use_cache(info.config.data.cache)
        return run

    def use_cache(self, cache: str) -> None:
        """Set the folder of the packed picture stores that this process uses; '': the default one."""
        config = self.info.config
        self.info = replace(self.info, config=replace(config, data=replace(config.data, cache=cache)))

    def sweep(self) -> None:
        """Removes what was half-written when an earlier training of this run was killed."""
        for folder in ("checkpoints", "samples"):  # where nothing but training writes
            sweep(self.path / folder, alone=True)
        for folder in ("", "evaluations"):
            sweep(self.path / folder)

    def check_present(self) -> None:
        """Raises UserError if the folder is gone: written anew, its files would be no run."""
        if not self.config_path.is_file():
            raise UserError(
                f"{self.path} has vanished during training (its disk was taken away, or the folder moved or deleted): "
                "put it back, then go on from its last checkpoint with --resume"
            )

    def checkpoint_path(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step-{step:08d}.safetensors"

    def sample_path(self, step: int) -> Path:
        return self.path / "samples" / f"step-{step:08d}.png"

    def checkpoints(self) -> list[Path]:
        """The checkpoints, oldest first."""
        return _of_steps(self.path / "checkpoints", "safetensors")

    def samples(self) -> list[Path]:
        """The grids of samples, oldest first."""
        return _of_steps(self.path / "samples", "png")

    def metrics(self) -> list[dict[str, Any]]:
        """The metrics log, a dictionary of numbers a line, up to the first line that a crash cut off or damaged."""
        rows: list[dict[str, Any]] = []
        if not self.metrics_path.exists():
            return rows
        try:
            with open(self.metrics_path, "rb") as file:
                while (line := file.readline(MOST_BYTES)) and (row := _row(line)):
                    rows.append(row)
        except OSError as error:
            raise UserError(f"{self.metrics_path} could not be read: {error.strerror}") from error
        return rows

    def save_generator(self, generator: Generator, step: int) -> None:
        """Writes inference weights, with all that is needed to rebuild the network."""
        metadata = {"step": step, "model": asdict(generator.config), "class_names": self.info.class_names}
        save_tensors(self.generator_path, generator.state_dict(), metadata)

    def best_step(self) -> int | None:
        """The step of the smallest distance logged so far; None without evaluations."""
        return best_step(self.metrics())


def _of_steps(folder: Path, suffix: str) -> list[Path]:
    return sorted(path for path in folder.glob(f"step-*.{suffix}") if re.fullmatch(r"step-\d{8,}", path.stem))


def read_as(kind: type[T], path: Path, what: str) -> T:
    """What a JSON file holds, checked to be a `kind`. Raises UserError, naming `what` it should be, where it is not."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} is not {what}: more than {MOST_BYTES >> 20} MiB")
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = printable(".".join(map(str, first["loc"]))) or "the file"
        raise UserError(f"{path} is not {what}: {where}: {first['msg']}") from error
    except OSError as error:
        raise UserError(f"{path} could not be read: {error.strerror}") from error


def only_training(path: str | Path) -> contextlib.AbstractContextManager[None]:
    """Held while a run's folder is trained in. Raises UserError if another process trains there."""
    busy = f"{path} is being trained by {{owner}} already: wait for it or stop it, or give another --out"
    return locked(Path(path) / ".lock", busy)


def _row(line: bytes) -> dict[str, Any] | None:
    """A line of the metrics log; None if it is not one."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    numbers = isinstance(row, dict) and all(type(value) in (int, float) for value in row.values())
    return row if numbers and type(row.get("step")) is int else None


def count_of(metadata: dict[str, Any], name: str, path: Path) -> int:
    """A count in a file's metadata, such as its step; 0 if it is not there. DamagedFile if it is no count."""
    value = metadata.get(name, 0)
    if type(value) is not int or not 0 <= value < 2**53:
        raise DamagedFile(f"{path} is damaged: its {name} is not a count")
    return value


def read_generator(path: str | Path, *, averaged: bool = True) -> tuple[Generator, tuple[str, ...], int]:
    """The generator of a run as trained, its class names, and its step.

    Args:
        path: the run's folder, its generator.safetensors, or one of its checkpoints.
        averaged: the moving average, from which pictures are drawn; else the generator that was trained, which the
            checkpoints hold: of a folder, the newest.

    Raises:
        UserError: nothing to load there, or the file is damaged.
    """
    path = Path(path)
    if path.is_dir() or not path.exists():
        run = Run(path)
        path = run.generator_path if averaged else (run.checkpoints() or [run.generator_path])[-1]
        if not path.exists():
            raise UserError(f"{path} does not exist yet: the run has not come to its first checkpoint")
    tensors, metadata = load_tensors(path)
    if "model" not in metadata:  # a checkpoint: its configuration is the run's
        run = Run(path.parent.parent)
        config, class_names = run.info.config.model, run.info.class_names
        tensors = _under("ema/" if averaged else "generator/", tensors)
    elif not averaged:
        raise UserError(f"{path} holds the average only: give the run's folder, or one of its checkpoints")
    else:
        try:
            info = TypeAdapter(GeneratorInfo).validate_python({"step": 0, "class_names": None} | metadata)
        except ValidationError as error:
            first = error.errors()[0]
            where = printable(".".join(map(str, first["loc"])))[:200]
            if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
                problem = f"{path} has a field {where}, which this version of sagan does not know: a newer one may"
                raise UserError(problem) from error
            raise UserError(f"{path} holds no generator of sagan: {where}: {first['msg']}") from error
        config, class_names = info.model, info.class_names
        _check_names(class_names, config, path)
    check_sizes(build_generator, config, tensors, path)
    generator = build_generator(config)
    load_into(generator, tensors, path)
    return generator, class_names, count_of(metadata, "step", path)


def _check_names(class_names: tuple[str, ...], config: ModelConfig, path: Path) -> None:
    if len(class_names) != config.num_classes:
        raise DamagedFile(f"{path} is damaged: it names {len(class_names)} classes of {config.num_classes}")


def check_sizes(
    build: Callable[[ModelConfig], nn.Module], config: ModelConfig, tensors: dict[str, Tensor], path: Path
) -> None:
    """Raises DamagedFile for a network whose configuration asks for more numbers than its file has.

    So that a file of a few bytes, from wherever it is, cannot make the machine run out of memory.
    """
    try:
        with torch.device("meta"):  # shapes alone
            wanted = sum(t.numel() for t in build(config).state_dict().values())
    except (RuntimeError, TypeError, OverflowError) as error:  # more than a number can say
        raise DamagedFile(f"{path} does not fit its configuration, which asks for networks of any size") from error
    found = sum(t.numel() for t in tensors.values())
    if wanted > found:
        raise DamagedFile(f"{path} does not fit its configuration: it holds {found:,} numbers of {wanted:,}")


def read_discriminator(path: str | Path) -> Discriminator:
    """The discriminator of a run's newest checkpoint, or of a checkpoint, as trained.

    Raises:
        UserError: neither of these, no checkpoint yet, or it is damaged.
    """
    path = Path(path)
    is_checkpoint = path.parent.name == "checkpoints"
    run = Run(path.parent.parent if is_checkpoint else path)
    checkpoints = [path] if is_checkpoint else run.checkpoints()
    if not checkpoints:
        raise UserError(f"{run.path} has no checkpoint in {run.path / 'checkpoints'}: the discriminator is kept there")
    tensors = _under("discriminator/", load_tensors(checkpoints[-1])[0])
    check_sizes(build_discriminator, run.info.config.model, tensors, checkpoints[-1])
    discriminator = build_discriminator(run.info.config.model)
    load_into(discriminator, tensors, checkpoints[-1])
    return discriminator


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """One network's tensors of a checkpoint."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def load(path: str | Path) -> Generator:
    """The averaged generator of a run (its folder, or its generator.safetensors), ready to use.

    In evaluation mode, its spectral norms worked into the weights: `load("runs/demo")(z, y)` gives pictures
    (N, C, H, W) in [-1, 1] of latents z (N, latent_dim) and classes y (N,).

    Raises:
        UserError: nothing to load there, or the file is damaged.
    """
    generator, _, _ = read_generator(path)
    return bake_spectral_norm(generator.eval()).requires_grad_(False)
