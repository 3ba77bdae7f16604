"""`sagan train --from`: initialise networks from another run, matching classes by name."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sagan.errors import UserError
from sagan.model.batch_norm import ConditionalBatchNorm2d
from sagan.model.config import ModelConfig
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.model.spectral_norm import SNEmbedding
from sagan.presets import option_arguments
from sagan.run import Run, read_discriminator, read_generator
from sagan.text import canonical
from sagan.trained import find
from sagan.training.step import Trainer

_MAY_DIFFER = ("num_classes", "upsampling")
"""Fields in which networks may differ from those that they start from: their weights fit all the same."""


@dataclass(frozen=True)
class Source:
    """The networks that a run starts from."""

    path: Path
    generator: Generator
    average: Generator
    """The moving average; the generator itself where a file holds only one of them."""
    discriminator: Discriminator | None
    """None where the file holds a generator alone."""
    class_names: tuple[str, ...]
    step: int
    """Steps that the networks were trained for."""


@dataclass(frozen=True)
class Transfer:
    """What a trainer's networks were initialised from."""

    source: Source
    matches: tuple[int | None, ...]
    """For each class of the trainer its number in the source, None if the source does not have it."""

    def describe(self) -> str:
        """Return a line that names the source, the networks and the classes that were found by name."""
        source = self.source
        classes = ""
        if self.matches:
            known = sum(match is not None for match in self.matches)
            classes = f"; {known} of {len(self.matches)} classes were found there by name"
            if source.class_names and known < len(self.matches):
                classes += ", the others start from the mean of its classes"
        if source.discriminator is None:
            networks = "generator and average"
            missing = "; it has no discriminator, so the discriminator starts untrained"
        else:
            networks = "generator, average and discriminator"
            missing = ""
        return f"{networks} start from {source.path}, step {source.step}{missing}{classes}"


def read_source(start: str | Path) -> Source:
    """Read the networks of a run's newest checkpoint, of a checkpoint, or of a trained model by name.

    A generator.safetensors holds the generator only.

    Raises:
        UserError: there is nothing to load, or the file is damaged.
    """
    path = find(start)
    if path.is_dir() or not path.exists():
        path = (Run(path).checkpoints() or [path])[-1]
    average, class_names, step = read_generator(path)
    if path.parent.name != "checkpoints":  # there is no generator but the average
        discriminator = read_discriminator(path) if path.is_dir() and Run(path).discriminator_path.exists() else None
        return Source(path, average, average, discriminator, class_names, step)
    generator, _, _ = read_generator(path, averaged=False)
    return Source(path, generator, average, read_discriminator(path), class_names, step)


def read_model(start: str | Path) -> ModelConfig:
    """Return the configuration of the networks at --from.

    Raises:
        UserError: as `read_source`.
    """
    path = Path(start)
    if path.is_file() and path.parent.name != "checkpoints":
        return read_generator(path)[0].config
    return Run(path.parent.parent if path.is_file() else path).info.config.model


def check_source(start: str | Path, model: ModelConfig, freeze_discriminator: int) -> Source:
    """Read the source, and check that networks of configuration `model` can start from it.

    Raises:
        UserError: they cannot; the message names the options that fit.
    """
    source = read_source(start)
    theirs = source.generator.config
    options = [
        f"--{field.name.replace('_', '-')} {' '.join(option_arguments(getattr(theirs, field.name)))}"
        for field in fields(theirs)
        if field.name not in _MAY_DIFFER and _resolved(theirs, field.name) != _resolved(model, field.name)
    ]
    if options:
        needed = " ".join(options)
        raise UserError(f"--from {start}: its networks have another shape; to start from them, add {needed}")
    if freeze_discriminator and source.discriminator is None:
        raise UserError(f"--freeze-discriminator {freeze_discriminator}: {start} has no discriminator to freeze")
    blocks = len(source.discriminator.blocks) if source.discriminator else 0
    if freeze_discriminator > blocks:
        raise UserError(f"--freeze-discriminator {freeze_discriminator}: the discriminator has {blocks} blocks")
    return source


def start_from(trainer: Trainer, start: str | Path, class_names: Sequence[str]) -> Transfer:
    """Initialise a trainer's networks from another run; return what was copied from where.

    Generator, average and discriminator are each copied from their counterpart. What belongs to a class (the scales and
    shifts of batch norms, the discriminator's embedding) is copied from the source's class of the same name; a class
    that the source does not have starts from the mean of all its classes. From a source without classes every class
    gets the one scale and shift, and the embedding stays as initialised. Optimisers keep no state of the source.

    Raises:
        UserError: there is nothing to load, or the networks have another shape.
    """
    source = check_source(start, trainer.model, trainer.config.freeze_discriminator)
    numbers = {canonical(name): i for i, name in enumerate(source.class_names)}
    numbers |= {name: i for i, name in enumerate(source.class_names)}  # an exact name comes first
    matches = [numbers.get(name, numbers.get(canonical(name))) for name in class_names]
    rows = None if tuple(class_names) == source.class_names else matches
    copy_weights(source.generator, trainer.generator, rows)
    copy_weights(source.average, trainer.ema.network, rows)
    if source.discriminator is not None:
        copy_weights(source.discriminator, trainer.discriminator, rows)
    return Transfer(source, tuple(matches))


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module, matches: list[int | None] | None) -> None:
    """Copy every tensor of a network into another one, which may differ in its classes only.

    Where the source's spectral norms are folded into its weights, as imports are, the target's are set to the singular
    values of those weights.

    Args:
        source: the network to copy from.
        target: the network to copy to.
        matches: for each class of the target its number in the source, None for the mean of all classes of the source.
            None: both have the same classes.
    """
    tensors = source.state_dict()
    expected = target.state_dict()
    renewed = set()  # layers with other rows, which have other singular vectors
    layer: Any
    if matches is not None:
        for name, layer in target.named_modules():
            if isinstance(layer, ConditionalBatchNorm2d) and name != "bn":  # the last one is unconditional
                if not matches:  # tables of a target without classes have no spectral norm
                    theirs: Any = copy.deepcopy(source.get_submodule(name))  # whose norms would keep an iteration
                    tensors[f"{name}.scale"], tensors[f"{name}.shift"] = theirs.tables()
                for key in (f"{name}.scale", f"{name}.shift"):
                    tensors[key] = _rows(tensors[key], matches)
                renewed.add(name)
            elif isinstance(layer, SNEmbedding) or name == "classifier":
                key = f"{name}.weight"
                tensors[key] = _rows(tensors[key], matches) if key in tensors else layer.weight
                if (bias := getattr(layer, "bias", None)) is not None:
                    old = tensors.get(f"{name}.bias")
                    tensors[f"{name}.bias"] = bias if old is None else _rows(old[:, None], matches)[:, 0]
                renewed.add(name)
        if not matches:  # a target without classes has no class layer, and no vectors of normalised tables
            tensors = {name: t for name, t in tensors.items() if name in expected}
    vectors = {name for name in expected if name.endswith(".u")}
    for name in vectors - tensors.keys():
        tensors[name] = expected[name]
        renewed.add(name.rsplit(".", 2)[0])  # of 'stem.sn.u', 'blocks.0.bn1.scale_sn.u'
    for name in vectors:
        if tensors[name].shape != expected[name].shape:  # of another number of classes
            tensors[name] = expected[name]
    target.load_state_dict(tensors)
    for name in sorted(renewed):
        layer = target.get_submodule(name)
        if hasattr(layer, "solve"):
            layer.solve()


def _rows(table: Tensor, matches: list[int | None]) -> Tensor:
    """Return a table (classes, C), or the one row (C,), for the target's classes: (len(matches), C), (C,) if none."""
    table = table if table.dim() == 2 else table[None]
    mean = table.mean(0)
    if not matches:  # a target without classes
        return mean
    return torch.stack([mean if match is None else table[match] for match in matches])


def _resolved(model: ModelConfig, name: str) -> object:
    if name.endswith("_attention"):
        return model.attention_at("generator" if name.startswith("generator") else "discriminator")
    return getattr(model, name, None)  # None: of another architecture
