"""What all importers share: walk another codebase's networks, rename their tensors, infer their configuration.

All of these codebases but heykeetae's build the networks of the released code, with their own names and details. A
codebase's file lists its names and says how it stores a layer. Spectral norms and epsilons are folded into the weights;
what then differs in the function itself is expressed by fields of ImportedConfig.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from sagan.errors import UserError
from sagan.importers.state_dict import StateDict
from sagan.model.attention import VALUE_REDUCTION
from sagan.model.config import RESOLUTIONS

Layer = Mapping[str, Tensor]
"""A layer's tensors by our names (weight, bias, ...), and sigma under the name of a spectral norm that was folded."""
Kind = Literal["block", "attention"]
BLOCK_LAYERS = ("conv1", "conv2", "shortcut")
ATTENTION_LAYERS = ("query", "key", "value", "output")
# An attention layer's keys where they are named as in non-local networks (Wang et al. 2018).
NON_LOCAL_NAMES = {"query": "theta", "key": "phi", "value": "g", "output": "o", "gamma": "gamma"}


@dataclass(frozen=True)
class ConvertedNetwork:
    """One network of a checkpoint, converted to our names and layouts."""

    tensors: dict[str, Tensor]
    """Our name -> tensor."""
    origin: dict[str, str]
    """Our name -> the key, or the beginning of the key, in the file."""
    normalised: Collection[str]
    """Our names of the spectral norms that were folded into the tensors."""
    fields: dict[str, Any]
    """What this network determines of the configuration: fields of ModelConfig and ImportedConfig, and epsilons."""


class Codebase(ABC):
    """An importer for the checkpoints of one codebase."""

    name: ClassVar[str]
    """The value of --from."""
    assumed_fields: ClassVar[Mapping[str, Any]]
    """What no shape determines, as in the codebase's own SAGAN configuration: epsilons, fields of ImportedConfig."""

    @abstractmethod
    def recognise(self, keys: set[str]) -> bool:
        """Return whether a state dict with these keys is a network of this codebase (generator or discriminator)."""

    @abstractmethod
    def is_generator(self, keys: set[str]) -> bool:
        """Return whether a recognised state dict is the generator."""

    @abstractmethod
    def generator(self, state: StateDict) -> ConvertedNetwork:
        """Convert a generator. Raises UserError if it is not one, or if our networks cannot express it."""

    @abstractmethod
    def discriminator(self, state: StateDict) -> ConvertedNetwork:
        """Convert a discriminator. Raises UserError if it is not one, or if our networks cannot express it."""

    def split(self, checkpoint: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """Split a file of several networks into 'generator', 'average', 'discriminator'; {} if it holds one network."""
        return {}

    def check_networks(self, path: Path, converted: Mapping[str, ConvertedNetwork]) -> None:
        """Raise UserError if the converted networks, by role, may compute something else than they seem to.

        Args:
            path: the generator's file, for messages.
        """
        return

    def stored_fields(self, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        """Return the epsilons and fields of ImportedConfig that the file states next to its tensors."""
        return {}


class ResidualCodebase(Codebase):
    """A codebase that builds the residual networks of the released code.

    The class attributes are keys in its state dict; the names of a block's and an attention layer's parts are relative
    to the key of that block or layer.
    """

    generator_stem: ClassVar[str]
    generator_names: ClassVar[Mapping[str, str]]
    """The parts of a generator's block: bn1, conv1, bn2, conv2, shortcut."""
    discriminator_names: ClassVar[Mapping[str, str]]
    """The parts of a discriminator's block: conv1, conv2, shortcut."""
    attention_names: ClassVar[Mapping[str, str]]
    """The parts of an attention layer: query, key, value, output, gamma."""
    discriminator_embed: ClassVar[str]
    stem_order: ClassVar[Literal["channels first", "channels last"]] = "channels first"
    separator: ClassVar[str] = "."

    @abstractmethod
    def layer(self, state: StateDict, key: str) -> Layer:
        """Convert a convolution, linear layer or embedding."""

    @abstractmethod
    def batch_norm(self, state: StateDict, key: str) -> Layer:
        """Convert a batch norm without classes."""

    @abstractmethod
    def class_batch_norm(self, state: StateDict, key: str) -> Layer:
        """Convert a batch norm of a generator's block, with or without classes."""

    @abstractmethod
    def generator_stack(self, state: StateDict) -> list[tuple[Kind, str]]:
        """Return the keys of the generator's blocks and attention layers, from 4 x 4 upwards."""

    def discriminator_stack(self, state: StateDict) -> list[tuple[Kind, str]]:
        """Return the keys of the discriminator's blocks and attention layers, from the image downwards."""
        return self.generator_stack(state)  # most codebases name both stacks the same way

    @abstractmethod
    def generator_end(self, state: StateDict, blocks: int) -> tuple[str, str]:
        """Return the keys of the last batch norm and the last convolution."""

    @abstractmethod
    def discriminator_end(self, blocks: int) -> str:
        """Return the key of the linear layer that computes the logit."""

    def halvings(self, blocks: int) -> int:
        """Return how many of a discriminator's blocks halve the resolution."""
        return 2 if blocks == 4 else blocks - 1  # at 32 px every codebase stops at 8 x 8

    def check_supported(self, state: StateDict) -> None:
        """Raise UserError if this is another architecture of the same codebase. Takes no tensor from `state`."""
        return

    def generator(self, state: StateDict) -> ConvertedNetwork:
        self.check_supported(state)
        collector = _TensorCollector(self, state)
        stack = self.generator_stack(state)
        blocks = sum(kind == "block" for kind, _ in stack)
        resolution = 4 * 2**blocks
        if resolution not in RESOLUTIONS:
            raise UserError(
                f"{state.path} has {blocks} blocks, so it generates images of {resolution} px: "
                "only 32 to 256 px are supported"
            )

        collector.add_layer("stem", self.generator_stem)
        size = 4
        i = 0
        for kind, key in stack:
            if kind == "attention":
                collector.add_attention(size, key)
                continue
            for ours in BLOCK_LAYERS:
                collector.add_layer(f"blocks.{i}.{ours}", self.join(key, self.generator_names[ours]))
            for ours in ("bn1", "bn2"):
                theirs = self.join(key, self.generator_names[ours])
                collector.add(f"blocks.{i}.{ours}", theirs, self.class_batch_norm(state, theirs))
            size = 2 * size
            i = i + 1
        bn, head = self.generator_end(state, blocks)
        collector.add("bn", bn, self.batch_norm(state, bn))
        collector.add_layer("head", head)

        state.check_all_taken()
        if self.stem_order == "channels first":
            _reorder_stem(collector)
        return collector.generator(blocks)

    def discriminator(self, state: StateDict) -> ConvertedNetwork:
        self.check_supported(state)
        collector = _TensorCollector(self, state)
        stack = self.discriminator_stack(state)
        blocks = sum(kind == "block" for kind, _ in stack)
        if blocks < 2 or 4 * 2 ** (blocks - 1) not in RESOLUTIONS:
            raise UserError(f"{state.path} has {blocks} blocks, but a discriminator for 32 to 256 px has 4 to 7")

        resolution = 4 * 2 ** (blocks - 1)
        i = 0
        for kind, key in stack:
            if kind == "attention":
                if i > self.halvings(blocks):
                    raise UserError(
                        f"{state.path} has an attention layer ({key}) after a block that does not halve the "
                        "resolution: this is not supported"
                    )
                collector.add_attention(resolution // 2**i, key)
                continue
            name = f"blocks.{i}" if i < blocks - 1 else "last"
            for ours in BLOCK_LAYERS:
                theirs = self.join(key, self.discriminator_names[ours])
                if ours != "shortcut" or state.has_keys_below(theirs + self.separator):
                    collector.add_layer(f"{name}.{ours}", theirs)
            i = i + 1
        collector.add_layer("head", self.discriminator_end(blocks))
        if state.has_keys_below(self.discriminator_embed + self.separator):
            collector.add_layer("embed", self.discriminator_embed)

        state.check_all_taken()
        return collector.discriminator(blocks)

    def join(self, key: str, name: str) -> str:
        return f"{key}{self.separator}{name}"


class _TensorCollector:
    """Collect the tensors of one network under our names, and infer its configuration from their shapes."""

    def __init__(self, codebase: ResidualCodebase, state: StateDict):
        self.codebase = codebase
        self.state = state
        self.tensors: dict[str, Tensor] = {}
        self.origin: dict[str, str] = {}
        self.normalised: set[str] = set()
        self.attention_sizes: list[int] = []  # sides of the attention layers' feature maps, px

    def add(self, ours: str, theirs: str, layer: Layer) -> None:
        for name, t in layer.items():
            if name == "sn" or name.endswith("_sn"):
                self.normalised.add(f"{ours}.{name}")
                continue
            self.tensors[f"{ours}.{name}"] = t.clone(memory_format=torch.contiguous_format)
            self.origin[f"{ours}.{name}"] = theirs

    def add_layer(self, ours: str, theirs: str) -> None:
        self.add(ours, theirs, self.codebase.layer(self.state, theirs))

    def add_attention(self, size: int, key: str) -> None:
        ours = f"attention.{size}.{self.attention_sizes.count(size)}"
        self.attention_sizes.append(size)
        names = self.codebase.attention_names
        for name in ATTENTION_LAYERS:
            self.add_layer(f"{ours}.{name}", self.codebase.join(key, names[name]))
        gamma = self.codebase.join(key, names["gamma"])
        self.add(ours, gamma, {"gamma": self.state.take_scalar(gamma)})

    def shape(self, name: str, dims: int) -> torch.Size:
        return check_dimensions(self.tensors[name], dims, self.state.path, self.origin[name]).shape

    def common_fields(self, network: Literal["generator", "discriminator"]) -> dict[str, Any]:
        """Infer the fields that either network determines."""
        fields: dict[str, Any] = {
            f"{network}_spectral_norm": bool(self.normalised),
            f"{network}_attention": tuple((size, "self") for size in self.attention_sizes),
            **self.codebase.assumed_fields,
        }
        if self.attention_sizes:
            first = f"attention.{self.attention_sizes[0]}.0"
            query_channels, channels, _, _ = self.shape(f"{first}.query.weight", 4)
            value_channels = self.shape(f"{first}.value.weight", 4)[0]
            default = VALUE_REDUCTION[fields.get("attention_variant", "released")]
            fields["query_reduction"] = (
                8 if query_channels == max(1, channels // 8) else max(1, channels // query_channels)
            )
            fields["value_reduction"] = (
                None if value_channels == max(1, channels // default) else max(1, channels // value_channels)
            )
        return fields

    def generator(self, blocks: int) -> ConvertedNetwork:
        first_width = self.shape("blocks.0.conv1.weight", 4)[1]
        widths = (first_width, *(self.shape(f"blocks.{i}.conv1.weight", 4)[0] for i in range(blocks)))
        scale = self.tensors["blocks.0.bn1.scale"]
        fields = self.common_fields("generator") | {
            "resolution": 4 * 2**blocks,
            "generator_widths": widths,
            "base_channels": widths[-1],
            "image_channels": self.shape("head.weight", 4)[0],
            "latent_dim": self.shape("stem.weight", 2)[1],
            "num_classes": len(scale) if scale.dim() == 2 else 0,
            "class_spectral_norm": "blocks.0.bn1.scale_sn" in self.normalised,
        }
        return ConvertedNetwork(self.tensors, self.origin, self.normalised, fields)

    def discriminator(self, blocks: int) -> ConvertedNetwork:
        names = [*(f"blocks.{i}" for i in range(blocks - 1)), "last"]
        fields = self.common_fields("discriminator") | {
            "resolution": 4 * 2 ** (blocks - 1),
            "discriminator_widths": tuple(self.shape(f"{name}.conv2.weight", 4)[0] for name in names),
            "discriminator_halvings": self.codebase.halvings(blocks),
            "image_channels": self.shape("blocks.0.conv1.weight", 4)[1],
            "num_classes": len(self.tensors["embed.weight"]) if "embed.weight" in self.tensors else 0,
        }
        return ConvertedNetwork(self.tensors, self.origin, self.normalised, fields)


def check_dimensions(t: Tensor, dims: int, path: Path, key: str) -> Tensor:
    """Return the tensor. Raises UserError, naming its key in the file, if it has another number of dimensions."""
    if t.dim() != dims:
        raise UserError(
            f"{path} is not a supported SAGAN: {key} has the shape {tuple(t.shape)}, expected {dims} dimensions"
        )
    return t


def _reorder_stem(collector: _TensorCollector) -> None:
    """Reorder the outputs of the first linear layer from (C, 4, 4) to (4, 4, C)."""
    for name, dims in (("stem.weight", 2), ("stem.bias", 1)):
        if name in collector.tensors:
            outputs = collector.shape(name, dims)[0]
            if outputs % 16:
                raise UserError(
                    f"{collector.state.path} is not a supported SAGAN: {collector.origin[name]} has {outputs} outputs, "
                    "which are no feature maps of 4 x 4"
                )
            t = collector.tensors[name].unflatten(0, (-1, 4, 4))
            collector.tensors[name] = t.movedim(0, 2).flatten(0, 2).contiguous()
