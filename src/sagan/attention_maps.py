"""Observe what the self-attention layers of a network attend to: maps of query points, and statistics of layers.

Points are (x, y) in pixels of the R x R image, x to the right, y down, (0, 0) the upper left pixel. A layer sees the
image as a grid of S x S locations, each covering R/S x R/S pixels; its keys lie on the same grid or, if pooled, on one
of half the side.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sagan.device import full_precision
from sagan.errors import UserError
from sagan.labels import Labels, as_labels, names_of
from sagan.model.attention import ChannelAttention2d, MatchedResidual2d, SelfAttention2d
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator

Points = Sequence[tuple[float, float]] | NDArray[Any] | Tensor

BLOCK_ELEMENTS = 1 << 22  # elements of a map computed at once where all of its rows are needed

SMALL_SHARE = 0.05
"""|gamma o| / |x| below which a layer is called small: its maps then say little about the image."""

_WITHOUT_MAPS = {ChannelAttention2d: "channel attention", MatchedResidual2d: "a residual block"}


def attention_layers(
    network: Generator | Discriminator, wanted: Sequence[str] | None = None
) -> dict[str, SelfAttention2d]:
    """Return the self-attention layers of a network in the order of its forward pass, named as in the metrics log.

    A name such as '16.0' is the side S of the layer's grid and the layer's index there. Channel attention and residual
    blocks have no map over the image and are skipped.

    Args:
        wanted: names of layers, or sizes ('16': every self-attention layer at this size); None: all.

    Raises:
        UserError: the network does not have the layer, the layer has no map, or `wanted` is None and there is no layer.
    """
    kind = network.role
    grids = sorted(map(int, network.attention), reverse=network.role == "discriminator")
    every: dict[str, nn.Module] = {}
    for size in grids:
        every |= {f"{size}.{i}": layer for i, layer in network.attention[str(size)].named_children()}
    layers = {name: layer for name, layer in every.items() if isinstance(layer, SelfAttention2d)}
    known = f"with maps: {', '.join(layers)}" if layers else f"the {kind} has no self-attention layer"
    if not layers and wanted is None:
        others = ", ".join(f"{name} is {_WITHOUT_MAPS[type(layer)]}" for name, layer in every.items())
        raise UserError(f"the {kind} has no self-attention layer, so no maps" + (f" ({others})" if others else ""))
    chosen = layers if wanted is None else {}
    for name in wanted or ():
        found = {n: layer for n, layer in layers.items() if name in (n, n.partition(".")[0])}
        if not found:
            other = [type(layer) for n, layer in every.items() if name in (n, n.partition(".")[0])]
            why = f"is {_WITHOUT_MAPS[other[0]]}, which has no map over the image" if other else "does not exist"
            raise UserError(f"layer {name} of the {kind} {why}; {known}")
        chosen |= found
    return chosen


def attention_maps(
    network: Generator | Discriminator,
    inputs: Tensor,
    y: Labels | None = None,
    *,
    queries: Points | Literal["all"],
    layers: Sequence[str] | None = None,
) -> "AttentionMaps":
    """Return what query points attend to, for every layer; only their rows of the map are computed, exactly.

    The network runs in evaluation mode and is left unchanged.

    Args:
        network: as trained, or from `sagan.load`.
        inputs: latents (N, latent_dim) for a generator, or images (N, C, R, R) in [-1, 1] for a discriminator.
        y: classes, one for all images or one for each: a tensor (N,), numbers, or names of a loaded generator's;
            optional if the network is unconditional.
        queries: points (Q, 2), the same for every image, or (N, Q, 2), in pixels of the image; 'all': every location
            of the layer's grid, row by row, which is the whole S² x K map.
        layers: names or sizes, as `attention_layers` accepts them; None: all.

    Returns:
        For each layer maps (N, Q, K', K'), each summing to 1, K' the side of its keys' grid: S, or S/2 if pooled.
        `resize_maps` resizes them to the image. A notebook shows them next to their images.

    Raises:
        UserError: a point lies outside the image, or the layer does not exist.
    """
    return observe_attention(network, inputs, y, layers=layers).maps(queries)


def observe_attention(
    network: Generator | Discriminator,
    inputs: Tensor,
    y: Labels | None = None,
    *,
    layers: Sequence[str] | None = None,
) -> "Observation":
    """Run one forward pass and keep it, to compute maps from it repeatedly. Arguments: `attention_maps`."""
    chosen = attention_layers(network, layers)
    device = next(network.parameters()).device
    labels = None if y is None else as_labels(y, len(inputs), names_of(network)).to(device)
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda layer, arguments: seen.update({name: arguments[0]})

    hooks = [layer.register_forward_pre_hook(keep(name)) for name, layer in chosen.items()]
    try:
        with evaluation(network):
            output = network(inputs.to(device), labels)
    finally:
        for hook in hooks:
            hook.remove()
    return Observation(network, output, chosen, seen, output if network.role == "generator" else inputs)


@dataclass(frozen=True)
class LayerStatistics:
    """How one self-attention layer is used, averaged over a batch of images."""

    grid: int
    """S: the layer has S x S queries."""
    keys: int
    """Side of the keys' grid: S, or S/2 if pooled."""
    gamma: float
    """The learnt weight of the attention output. Only its product with v is determined: its sign has no meaning."""
    strength: float
    """|gamma · o| / |x|: how much the layer adds to its input."""
    distance: float
    """Mean attention distance, pixels of the image: from a query to the key, expected under its map."""
    uniform_distance: float
    """The mean attention distance if every query attended to all keys uniformly."""
    variation: float
    """How much a map depends on its query: total variation distance from the mean map of its image, 0 to 1."""


class AttentionMaps(dict[str, Tensor]):
    """Maps (N, Q, K', K') by the name of their layer, each summing to 1. A notebook shows them next to their images.

    Args:
        maps: the maps.
        queries: the query points, in pixels, or 'all'.
        images: (N, C, R, R) in [-1, 1], which the maps are of.
    """

    def __init__(self, maps: Mapping[str, Tensor], queries: Points | Literal["all"], images: Tensor) -> None:
        super().__init__(maps)
        self.queries, self.images = queries, images


@dataclass(frozen=True)
class Observation:
    """A forward pass of a network with the inputs of its self-attention layers."""

    network: Generator | Discriminator
    output: Tensor
    """Images (N, C, R, R) in [-1, 1] of a generator, logits (N,) of a discriminator."""
    layers: Mapping[str, SelfAttention2d]
    inputs: Mapping[str, Tensor]
    """Input of each layer, (N, C, S, S)."""
    images: Tensor
    """The images (N, C, R, R) in [-1, 1], drawn or judged."""

    @property
    def resolution(self) -> int:
        """R: the side of the images, pixels."""
        return self.network.config.resolution

    def maps(self, queries: Points | Literal["all"]) -> AttentionMaps:
        """Compute maps (N, Q, K', K') of every layer, as `attention_maps` describes them."""
        with evaluation(self.network):
            maps = {
                name: layer.attention_rows(self.inputs[name], self._locations(queries, self.inputs[name]))
                for name, layer in self.layers.items()
            }
        return AttentionMaps(maps, queries, self.images)

    def shares(self, queries: Points | Literal["all"]) -> dict[str, Tensor]:
        """Compute |gamma · o| / |x| of every layer at query points, (N, Q): how much it adds to its input there."""
        found = {}
        with evaluation(self.network):
            for name, layer in self.layers.items():
                x = self.inputs[name]
                found[name] = _share(layer(x) - x, x).flatten(1).gather(1, self._locations(queries, x))
        return found

    def strengths(self) -> dict[str, Tensor]:
        """Compute |gamma · o| / |x| of every layer over whole images, (N,)."""
        with evaluation(self.network):
            return {name: _strength(layer, self.inputs[name]) for name, layer in self.layers.items()}

    def _locations(self, queries: Points | Literal["all"], x: Tensor) -> Tensor:
        """Return the locations (N, Q) of queries on the grid of a layer's input x."""
        size = x.shape[-1]
        if isinstance(queries, str) and queries == "all":
            locations = torch.arange(size**2)
        else:
            locations = to_locations(queries, self.resolution, size)
        if locations.dim() == 2 and len(locations) != len(x):
            raise UserError(f"query points were given for {len(locations)} images, but there are {len(x)} images")
        return locations.to(x.device).expand(len(x), -1)

    def statistics(self) -> dict[str, LayerStatistics]:
        """Compute the statistics of every layer over all queries, exactly, in blocks of rows."""
        found = {}
        with evaluation(self.network):
            for name, layer in self.layers.items():
                x = self.inputs[name]
                keys = x.shape[-1] // 2 if layer.pooled else x.shape[-1]
                found[name] = LayerStatistics(
                    x.shape[-1],
                    keys,
                    layer.gamma.item(),
                    _strength(layer, x).mean().item(),
                    *_summarise(layer, x, keys, self.resolution),
                )
        return found


def attention_statistics(
    network: Generator | Discriminator, inputs: Tensor, y: Labels | None = None
) -> dict[str, LayerStatistics]:
    """Measure how far each self-attention layer looks and how much it is used. Arguments: `attention_maps`."""
    return observe_attention(network, inputs, y).statistics()


def resize_maps(maps: Tensor, resolution: int, *, smooth: bool = False) -> Tensor:
    """Resize maps (..., K', K') on the keys' grid to (..., R, R) on the image, each still summing to 1.

    A key covers R/K' x R/K' pixels, pooled or not, and its weight is spread over them evenly or, with `smooth`, by
    linear interpolation between the centres of the keys.

    Raises:
        ValueError: R is not a multiple of K'.
    """
    step, rest = divmod(resolution, maps.shape[-1])
    if rest or maps.shape[-1] != maps.shape[-2]:
        raise ValueError(f"a map of {maps.shape[-2]} x {maps.shape[-1]} keys does not fit {resolution} pixels")
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    if smooth:
        resized = F.interpolate(flat, scale_factor=step, mode="bilinear", align_corners=False)
    else:
        resized = F.interpolate(flat, scale_factor=step, mode="nearest")
    return resized.view(*maps.shape[:-2], resolution, resolution) / step**2


def to_locations(points: Points | str, resolution: int, size: int) -> Tensor:
    """Convert points (..., 2) in pixels of an R x R image to int64 locations (...) on a layer's grid, row by row.

    Raises:
        UserError: these are not points, or a point lies outside the image.
    """
    try:
        at = np.asarray(points.cpu() if isinstance(points, Tensor) else points, np.float64)
    except (TypeError, ValueError):
        at = np.empty(0)
    if at.ndim not in (2, 3) or at.shape[-1] != 2 or not at.size:
        raise UserError("query points must be pairs (x, y) in pixels, the same number for every image")
    outside = ~((at >= 0) & (at < resolution)).all(-1)
    if outside.any():
        x, y = at[outside][0]
        raise UserError(
            f"query point {x:g},{y:g} lies outside the {resolution} x {resolution} image: "
            f"give x and y from 0 to {resolution - 1}"
        )
    cells = np.floor(at * size / resolution).astype(np.int64)
    return torch.from_numpy(cells[..., 0] + size * cells[..., 1])


def format_share(share: float) -> str:
    """Write |gamma o| / |x| in percent, with two significant digits."""
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 9.95 else f"{percent:.1f} %" if percent >= 0.095 else f"{percent:.1g} %"


def describe_small_share(share: float) -> str:
    """Return a sentence if a layer changes its features by little, or ''."""
    return f"this layer changes its features by {format_share(share)}" if share < SMALL_SHARE else ""


@contextmanager
def evaluation(network: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode, in full precision and without gradients; restore every mode afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad(), full_precision():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _share(added: Tensor, x: Tensor) -> Tensor:
    """Return |added| / |x| along dimension 1."""
    return added.norm(dim=1) / x.norm(dim=1).clamp_min(1e-30)


def _strength(layer: SelfAttention2d, x: Tensor) -> Tensor:
    """Return |gamma · o| / |x| over each image (N,)."""
    return _share((layer(x) - x).flatten(1), x.flatten(1))


def _summarise(layer: SelfAttention2d, x: Tensor, keys: int, resolution: int) -> tuple[float, float, float]:
    """Return the mean distance from query to key in pixels under the maps and under uniform maps, and the variation."""
    count = x.shape[-1] ** 2
    of_queries, of_keys = (_centres(side, resolution).to(x) for side in (x.shape[-1], keys))
    blocks = torch.arange(count, device=x.device).split(max(1, BLOCK_ELEMENTS // (len(x) * keys**2)))
    attended, uniform, mean_map_NK = 0.0, 0.0, x.new_zeros(len(x), keys**2)
    for block in blocks:
        distances_QK = torch.linalg.vector_norm(of_queries[block, None] - of_keys, dim=2)
        attn_NQK = layer.attention_rows(x, block.expand(len(x), -1)).flatten(2)
        attended += (attn_NQK * distances_QK).sum(dtype=torch.float64).item()
        uniform += distances_QK.sum(dtype=torch.float64).item()
        mean_map_NK += attn_NQK.sum(1) / count
    variation = 0.0
    for block in blocks:
        attn_NQK = layer.attention_rows(x, block.expand(len(x), -1)).flatten(2)
        variation += (attn_NQK - mean_map_NK[:, None]).abs().sum(dtype=torch.float64).item() / 2
    return attended / (len(x) * count), uniform / (count * keys**2), variation / (len(x) * count)


def _centres(side: int, resolution: int) -> Tensor:
    """Return the centres (side², 2) of the cells of a grid, (x, y) in pixels, row by row."""
    along = (torch.arange(side) + 0.5) * (resolution / side)
    rows, columns = torch.meshgrid(along, along, indexing="ij")
    return torch.stack((columns.flatten(), rows.flatten()), 1)
