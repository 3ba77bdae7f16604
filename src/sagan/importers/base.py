"""What every importer shares: the walk through another codebase's networks, and the configuration from their shapes.

All of these codebases but one build the networks of the released code, under names of their own and with details of
their own. A codebase's file says what it calls things and how it stores a layer; what differs in the function itself is
expressed by the model's configuration.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sagan.errors import UserError
from sagan.importers.state_dict import State
from sagan.model.attention import VALUE_REDUCTION
from sagan.model.config import RESOLUTIONS, ModelConfig

Layer = Mapping[str, Tensor]  # by our names: weight, bias, norm.u, norm.v, ...
Kind = Literal["block", "attention"]
BLOCK = ("conv1", "conv2", "shortcut")
ATTENTION = ("query", "key", "value", "output")
# An attention layer's keys where they are named as in non-local networks (Wang et al. 2018).
NON_LOCAL = {"query": "theta", "key": "phi", "value": "g", "output": "o", "gamma": "gamma"}


@dataclass(frozen=True)
class Part:
    """One network of a file."""

    tensors: dict[str, Tensor]
    """Under our names."""
    origin: dict[str, str]
    """Of each, the key, or the beginning of the key, in the file."""
    fields: dict[str, Any]
    """Of the configuration, as far as this network says."""


class Codebase(ABC):
    """What an importer knows of a codebase."""

    name: ClassVar[str]
    """As --from takes it."""
    assumed: ClassVar[Mapping[str, Any]]
    """Fields of the configuration that no shape tells: what the codebase's own SAGAN configuration has."""

    @abstractmethod
    def recognise(self, keys: set[str]) -> bool:
        """Whether a state dict with these keys is one of this codebase's networks, generator or discriminator."""

    @abstractmethod
    def is_generator(self, keys: set[str]) -> bool:
        """Which of the two it is."""

    @abstractmethod
    def generator(self, state: State) -> Part:
        """The generator that a state dict is. Raises UserError if it is none, or none that can be expressed."""

    @abstractmethod
    def discriminator(self, state: State) -> Part:
        """The discriminator that a state dict is. Raises UserError as `generator` does."""

    def split(self, found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """The networks of a file that holds several: 'generator', 'average', 'discriminator'; {} if it holds one."""
        return {}

    def facts(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of the configuration that the file tells beside its tensors."""
        return {}


class ResidualCodebase(Codebase):
    """How a codebase names and stores what the released code's networks are made of.

    The class attributes are keys in its state dict; blocks and attention layers are named below their own.
    """

    generator_stem: ClassVar[str]
    generator_names: ClassVar[Mapping[str, str]]
    """Of a generator's block: norm1, conv1, norm2, conv2, shortcut."""
    discriminator_names: ClassVar[Mapping[str, str]]
    """Of a discriminator's block: conv1, conv2, shortcut."""
    attention_names: ClassVar[Mapping[str, str]]
    """Of an attention layer: query, key, value, output, gamma."""
    discriminator_embed: ClassVar[str]
    stem_order: ClassVar[Literal["channels first", "channels last"]] = "channels first"
    separator: ClassVar[str] = "."

    @abstractmethod
    def layer(self, state: State, key: str) -> Layer:
        """A convolution, linear layer or embedding."""

    @abstractmethod
    def norm(self, state: State, key: str) -> Layer:
        """A batch norm without classes."""

    @abstractmethod
    def class_norm(self, state: State, key: str) -> Layer:
        """A batch norm of a generator's block."""

    @abstractmethod
    def generator_stack(self, state: State) -> list[tuple[Kind, str]]:
        """The keys of the generator's blocks and attention layers, from 4 x 4 on."""

    def discriminator_stack(self, state: State) -> list[tuple[Kind, str]]:
        """The keys of the discriminator's blocks and attention layers, from the picture on: named alike, often."""
        return self.generator_stack(state)

    @abstractmethod
    def generator_end(self, state: State, blocks: int) -> tuple[str, str]:
        """The keys of the last batch norm and the last convolution."""

    @abstractmethod
    def discriminator_end(self, blocks: int) -> str:
        """The key of the linear layer to one number."""

    def halvings(self, blocks: int) -> int:
        """How many of so many blocks of a discriminator halve the picture."""
        return 2 if blocks == 4 else blocks - 1  # at 32 pixels everyone stops at 8 x 8

    def refuse(self, state: State) -> None:
        """Raises UserError if the network is another one of this codebase's, and so no SAGAN. Takes nothing."""
        return

    def generator(self, state: State) -> Part:
        self.refuse(state)
        gather = _Gather(self, state)
        stack = self.generator_stack(state)
        blocks = sum(kind == "block" for kind, _ in stack)
        if 4 << blocks not in RESOLUTIONS:
            raise UserError(f"{state.path} has {blocks} blocks, so draws pictures of {4 << blocks} px: not 32 to 256")
        gather.layer("stem", self.generator_stem)
        at, i = 4, 0
        for kind, key in stack:
            if kind == "attention":
                gather.attention(at, key)
                continue
            for ours in BLOCK:
                gather.layer(f"blocks.{i}.{ours}", self.below(key, self.generator_names[ours]))
            for ours in ("norm1", "norm2"):
                theirs = self.below(key, self.generator_names[ours])
                gather.put(f"blocks.{i}.{ours}", theirs, self.class_norm(state, theirs))
            at, i = 2 * at, i + 1
        norm, head = self.generator_end(state, blocks)
        gather.put("norm", norm, self.norm(state, norm))
        gather.layer("head", head)
        state.finish()
        if self.stem_order == "channels first":
            _to_channels_last(gather.tensors)
        return gather.generator(blocks)

    def discriminator(self, state: State) -> Part:
        self.refuse(state)
        gather = _Gather(self, state)
        stack = self.discriminator_stack(state)
        blocks = sum(kind == "block" for kind, _ in stack)
        if blocks < 2 or 4 << (blocks - 1) not in RESOLUTIONS:
            raise UserError(f"{state.path} has {blocks} blocks: not those of a discriminator for 32 to 256 px")
        at, i = 4 << (blocks - 1), 0
        for kind, key in stack:
            if kind == "attention":
                if i > self.halvings(blocks):
                    raise UserError(f"{state.path} has an attention layer, {key}, among the blocks that do not halve")
                gather.attention(at >> i, key)
                continue
            name = f"blocks.{i}" if i < blocks - 1 else "last"
            for ours in BLOCK:
                theirs = self.below(key, self.discriminator_names[ours])
                if ours != "shortcut" or any(k.startswith(theirs + self.separator) for k in state.tensors):
                    gather.layer(f"{name}.{ours}", theirs)
            i += 1
        gather.layer("head", self.discriminator_end(blocks))
        if any(key.startswith(self.discriminator_embed + self.separator) for key in state.tensors):
            gather.layer("embed", self.discriminator_embed)
        state.finish()
        return gather.discriminator(blocks)

    def below(self, key: str, name: str) -> str:
        return f"{key}{self.separator}{name}"


class _Gather:
    """The tensors of a network under our names, as they are found."""

    def __init__(self, codebase: ResidualCodebase, state: State):
        self.codebase, self.state = codebase, state
        self.tensors: dict[str, Tensor] = {}
        self.origin: dict[str, str] = {}
        self.at: list[int] = []  # sizes of the attention layers' feature maps

    def put(self, ours: str, theirs: str, layer: Layer) -> None:
        for name, t in layer.items():
            self.tensors[f"{ours}.{name}"] = t.clone(memory_format=torch.contiguous_format)
            self.origin[f"{ours}.{name}"] = theirs

    def layer(self, ours: str, theirs: str) -> None:
        self.put(ours, theirs, self.codebase.layer(self.state, theirs))

    def attention(self, size: int, key: str) -> None:
        ours = f"attention.{size}.{self.at.count(size)}"
        self.at.append(size)
        names = self.codebase.attention_names
        for name in ATTENTION:
            self.layer(f"{ours}.{name}", self.codebase.below(key, names[name]))
        gamma = self.codebase.below(key, names["gamma"])
        self.put(ours, gamma, {"gamma": self.state.take(gamma).reshape(())})

    def shape(self, name: str) -> torch.Size:
        return self.tensors[name].shape

    def common(self, network: Literal["generator", "discriminator"]) -> dict[str, Any]:
        """What the shapes say in either network."""
        fields: dict[str, Any] = {
            f"{network}_spectral_norm": any(name.endswith(".norm.u") for name in self.tensors),
            f"{network}_attention": tuple((size, "self") for size in self.at),
            **self.codebase.assumed,
        }
        if self.at:
            first = f"attention.{self.at[0]}.0"
            channels = self.shape(f"{first}.query.weight")[1]
            queries, values = (self.shape(f"{first}.{name}.weight")[0] for name in ("query", "value"))
            usual = VALUE_REDUCTION[fields.get("attention_variant", "released")]
            fields["query_reduction"] = 8 if queries == max(1, channels // 8) else max(1, channels // queries)
            fields["value_reduction"] = None if values == max(1, channels // usual) else max(1, channels // values)
        return fields

    def generator(self, blocks: int) -> Part:
        first = self.shape("blocks.0.conv1.weight")[1]
        widths = (first, *(self.shape(f"blocks.{i}.conv1.weight")[0] for i in range(blocks)))
        tables = ("blocks.0.norm1.scale", "blocks.0.norm1.scale.weight")
        scale = next(self.tensors[name] for name in tables if name in self.tensors)
        fields = self.common("generator") | {
            "resolution": 4 << blocks,
            "generator_widths": widths,
            "base_channels": widths[-1],
            "image_channels": self.shape("head.weight")[0],
            "latent_dim": self.shape("stem.weight")[1],
            "num_classes": len(scale) if scale.dim() == 2 else 0,
            "class_spectral_norm": self.class_norm(),
        }
        return Part(self.tensors, self.origin, fields)

    def class_norm(self) -> str:
        """Which side of the class tables their spectral norm starts from."""
        inner = {"norm.u": "classes", "norm.transposed.u": "channels"}
        return next((side for name, side in inner.items() if f"blocks.0.norm1.scale.{name}" in self.tensors), "none")

    def discriminator(self, blocks: int) -> Part:
        names = [*(f"blocks.{i}" for i in range(blocks - 1)), "last"]
        fields = self.common("discriminator") | {
            "resolution": 4 << (blocks - 1),
            "discriminator_widths": tuple(self.shape(f"{name}.conv2.weight")[0] for name in names),
            "discriminator_halvings": self.codebase.halvings(blocks),
            "image_channels": self.shape("blocks.0.conv1.weight")[1],
            "num_classes": len(self.tensors["embed.weight"]) if "embed.weight" in self.tensors else 0,
        }
        return Part(self.tensors, self.origin, fields)


def _to_channels_last(tensors: dict[str, Tensor]) -> None:
    """Orders what the linear layer puts out as (4, 4, C) instead of (C, 4, 4), spectral norm's u along."""
    for name in ("stem.weight", "stem.bias", "stem.norm.u"):
        if name in tensors:
            t = tensors[name].unflatten(0, (-1, 4, 4))
            tensors[name] = t.movedim(0, 2).flatten(0, 2).contiguous()


def configure(generator: Part, discriminator: Part | None, facts: Mapping[str, Any]) -> ModelConfig:
    """The configuration that both networks' fields make, `facts` above them; what is usual is left at its default.

    Raises:
        UserError: the networks contradict each other, or what they say cannot be expressed.
    """
    fields = dict(generator.fields)
    for name, value in (discriminator.fields if discriminator else {}).items():
        if fields.setdefault(name, value) != value:
            raise UserError(
                f"the discriminator does not belong to the generator: {name} is {value} here, {fields[name]} there"
            )
    try:
        config = ModelConfig(**fields | dict(facts))
        for name in ("generator_widths", "discriminator_widths", "discriminator_halvings"):
            default: dict[str, Any] = {name: None}
            usual = replace(config, **default)
            same = (usual.generator_channels, usual.discriminator_channels, usual.halvings)
            if same == (config.generator_channels, config.discriminator_channels, config.halvings):
                config = usual
    except ValueError as error:
        raise UserError(f"this network cannot be expressed: {error}") from error
    return config


def build(part: Part, network: Callable[[ModelConfig], nn.Module], config: ModelConfig, state: State) -> Any:
    """A network of ours with the tensors of a part; `network` makes it.

    Raises:
        UserError: a tensor of another shape, or one that is missing or too many; the message names the file's key.
    """
    with torch.device("meta"):
        expected = {name: t.shape for name, t in network(config).state_dict().items()}
    for name, t in part.tensors.items():
        if name not in expected:
            raise UserError(f"{state.path} is no SAGAN that can be expressed: {part.origin[name]} has no place in it")
        if t.shape != expected[name]:
            raise UserError(
                f"{state.path} is no SAGAN that can be expressed: {part.origin[name]} has the shape {tuple(t.shape)} "
                f"where {tuple(expected[name])} belongs"
            )
    missing = sorted(expected.keys() - part.tensors.keys())
    if missing:
        raise UserError(f"{state.path} is no SAGAN that can be expressed: it has nothing for our {missing[0]}")
    with torch.device("meta"):
        built = network(config)
    built.load_state_dict(part.tensors, assign=True)
    return built.requires_grad_(True)
