"""`sagan train --from`: networks that start from another run's, with classes of their own."""

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
from sagan.training.step import Trainer


@dataclass(frozen=True)
class Source:
    """What there is to start from."""

    path: Path
    generator: Generator
    average: Generator
    discriminator: Discriminator | None
    class_names: tuple[str, ...]
    step: int


def read_source(start: str | Path) -> Source:
    """The networks of a run's newest checkpoint, of a checkpoint, or the generator alone of a generator.safetensors.

    Raises:
        UserError: nothing to load there, or the file is damaged.
    """
    path = Path(start)
    if path.is_dir() or not path.exists():
        path = (Run(path).checkpoints() or [path])[-1]
    average, class_names, step = read_generator(path)
    if path.parent.name != "checkpoints":  # only the average is there
        return Source(path, average, average, None, class_names, step)
    generator, _, _ = read_generator(path, averaged=False)
    return Source(path, generator, average, read_discriminator(path), class_names, step)


def read_model(start: str | Path) -> ModelConfig:
    """The shape of the networks that there are to start from. Raises UserError as `read_source` does."""
    path = Path(start)
    if path.is_file() and path.parent.name != "checkpoints":
        return read_generator(path)[0].config
    return Run(path.parent.parent if path.is_file() else path).info.config.model


def check_source(start: str | Path, model: ModelConfig, freeze_discriminator: int) -> Source:
    """Reads what there is to start from, and checks that networks of configuration `model` can.

    Raises:
        UserError: they cannot; the message says what would do.
    """
    source = read_source(start)
    theirs = source.generator.config
    options = [
        f"--{field.name.replace('_', '-')} {' '.join(option_arguments(getattr(theirs, field.name)))}"
        for field in fields(ModelConfig)
        if field.name != "num_classes" and _resolved(theirs, field.name) != _resolved(model, field.name)
    ]
    if options:
        needed = " ".join(options)
        raise UserError(f"--from {start}: its networks are of another shape; to start from them add {needed}")
    if freeze_discriminator and source.discriminator is None:
        raise UserError(f"--freeze-discriminator {freeze_discriminator}: {start} holds no discriminator to keep")
    blocks = len(source.discriminator.blocks) if source.discriminator else 0
    if freeze_discriminator > blocks:
        raise UserError(f"--freeze-discriminator {freeze_discriminator}: the discriminator has {blocks} blocks")
    return source


def start_from(trainer: Trainer, start: str | Path, class_names: Sequence[str]) -> str:
    """Gives a trainer's networks the weights of another run; returns a line that says what came from where.

    Generator, average and discriminator each take their own. What belongs to a class (the scales and shifts of batch
    norms, the discriminator's embedding) comes from the source's class of the same name; a class that the source does
    not have starts from the mean of all of its classes. A source without classes lends its one scale and shift to
    every class, and nothing to the embedding. Optimisers start fresh.

    Raises:
        UserError: nothing to load there, or networks of another shape.
    """
    source = check_source(start, trainer.model, trainer.config.freeze_discriminator)
    numbers = {name: i for i, name in enumerate(source.class_names)}
    matches = [numbers.get(name) for name in class_names]
    same = tuple(class_names) == source.class_names
    copy_weights(source.generator, trainer.generator, None if same else matches)
    copy_weights(source.average, trainer.ema.network, None if same else matches)
    if source.discriminator is not None:
        copy_weights(source.discriminator, trainer.discriminator, None if same else matches)
    came = "generator, average and discriminator" if source.discriminator else "generator and average"
    missing = "" if source.discriminator else "; it holds no discriminator, which starts from nothing"
    known = sum(match is not None for match in matches)
    classes = f"; {known} of {len(matches)} classes are known there by name" if matches else ""
    if source.class_names and known < len(matches):
        classes += ", the others start from the mean of its classes"
    return f"{came} start from {source.path}, step {source.step}{missing}{classes}"


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module, matches: list[int | None] | None) -> None:
    """Copies every tensor of a network into another of the same shape but for its classes.

    Args:
        matches: for each class of the target its number in the source, None for the mean; None: the same classes.
    """
    tensors = source.state_dict()
    if matches is not None:
        for name, layer in target.named_modules():
            # The last batch norm knows no classes; tables with a spectral norm are embeddings.
            if isinstance(layer, ConditionalBatchNorm2d) and name != "bn" and not isinstance(layer.scale, SNEmbedding):
                for key in (f"{name}.scale", f"{name}.shift"):
                    tensors[key] = _rows(tensors[key], matches)
            elif isinstance(layer, SNEmbedding) or name == "classifier":
                key = f"{name}.weight"
                tensors[key] = _rows(tensors[key], matches) if key in tensors else layer.weight
                if (bias := getattr(layer, "bias", None)) is not None:
                    old = tensors.get(f"{name}.bias")
                    tensors[f"{name}.bias"] = bias if old is None else _rows(old[:, None], matches)[:, 0]
                sn: Any = layer.sn
                if not isinstance(sn, nn.Identity):  # other rows have other singular vectors
                    sn.solve(tensors[key])
                    tensors |= {f"{name}.sn.{vector}": t for vector, t in sn.state_dict().items()}
        for head in ("embed.", "classifier."):
            if f"{head}weight" not in target.state_dict():  # a target without classes
                tensors = {name: t for name, t in tensors.items() if not name.startswith(head)}
    target.load_state_dict(tensors)


def _rows(table: Tensor, matches: list[int | None]) -> Tensor:
    """The rows of a table (classes, C), or of the one row (C,) of a network without, for the target's classes."""
    table = table if table.dim() == 2 else table[None]
    mean = table.mean(0)
    if not matches:  # a target without classes
        return mean
    return torch.stack([mean if match is None else table[match] for match in matches])


def _resolved(model: ModelConfig, name: str) -> object:
    if name.endswith("_attention"):
        return model.attention_at("generator" if name.startswith("generator") else "discriminator")
    return getattr(model, name)
