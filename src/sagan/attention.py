"""What the self-attention layers of a network attend to: maps of single query points, and figures that sum them up.

Points are (x, y) in pixels of the R x R picture, x to the right, y down, (0, 0) the upper left pixel. A layer sees the
picture as a grid of S x S locations, each standing for R/S x R/S pixels; its keys lie on the same grid or, pooled, on
one of half the size.
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
from sagan.model.attention import ChannelAttention2d, MatchedResidual2d, SelfAttention2d
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator

Points = Sequence[tuple[float, float]] | NDArray[Any] | Tensor

BLOCK_ELEMENTS = 1 << 22  # of a map at once, where all of its rows are worked through

_WITHOUT_MAPS = {ChannelAttention2d: "channel attention", MatchedResidual2d: "a residual block"}


def attention_layers(
    network: Generator | Discriminator, wanted: Sequence[str] | None = None
) -> dict[str, SelfAttention2d]:
    """The self-attention layers of a network in the order of its forward pass, named as in the metrics log: '16.0'.

    The name is the size S of the layer's grid and its number among the layers there. Channel attention and residual
    blocks have no map over the picture, and are passed over.

    Args:
        wanted: names of layers, or sizes ('16': every self-attention layer at this size); None: all.

    Raises:
        UserError: a layer that the network does not have or that has no map, or None and there is no layer.
    """
    kind = "generator" if isinstance(network, Generator) else "discriminator"
    grids = sorted(map(int, network.attention), reverse=isinstance(network, Discriminator))
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
            why = f"is {_WITHOUT_MAPS[other[0]]}, which has no map over the picture" if other else "is not there"
            raise UserError(f"layer {name} of the {kind} {why}; {known}")
        chosen |= found
    return chosen


def attention_maps(
    network: Generator | Discriminator,
    inputs: Tensor,
    y: Tensor | None = None,
    *,
    queries: Points | Literal["all"],
    layers: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """What the asked query points attend to, for every layer: only their rows of the map are computed, exactly.

    The network is looked at in evaluation mode, and left as it was.

    Args:
        network: as trained, or from `sagan.load`.
        inputs: latents (N, latent_dim) of a generator, or pictures (N, C, R, R) in [-1, 1] of a discriminator.
        y: classes (N,) int64; may be left out without classes.
        queries: points (Q, 2), the same for every picture, or (N, Q, 2), in pixels of the picture; 'all': every
            location of the layer's grid, row by row, which is the whole S² x K map.
        layers: names or sizes, as `attention_layers` takes them; None: all.

    Returns:
        For each layer maps (N, Q, K', K') that sum to 1 each, K' the side of its keys' grid: S, or S/2 if pooled.
        `lay_on_picture` brings them to the picture's size.

    Raises:
        UserError: a point outside of the picture, or no such layer.
    """
    return observe_attention(network, inputs, y, layers=layers).maps(queries)


def observe_attention(
    network: Generator | Discriminator,
    inputs: Tensor,
    y: Tensor | None = None,
    *,
    layers: Sequence[str] | None = None,
) -> "Observation":
    """One forward pass, kept to be asked for maps again and again. Arguments as for `attention_maps`."""
    chosen = attention_layers(network, layers)
    device = next(network.parameters()).device
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda layer, arguments: seen.update({name: arguments[0]})

    hooks = [layer.register_forward_pre_hook(keep(name)) for name, layer in chosen.items()]
    try:
        with evaluation(network):
            output = network(inputs.to(device), None if y is None else y.to(device))
    finally:
        for hook in hooks:
            hook.remove()
    return Observation(network, output, chosen, seen)


@dataclass(frozen=True)
class LayerStatistics:
    """How one self-attention layer is used, on average over the pictures that it was shown."""

    grid: int
    """S: the layer has S x S queries."""
    keys: int
    """Side of the keys' grid: S, or S/2 if pooled."""
    gamma: float
    """The learnt weight of what was gathered. Only its product with v is determined: a sign alone says nothing."""
    strength: float
    """|gamma · o| / |x|: how much the layer adds to the features, against what was there."""
    distance: float
    """Mean attention distance, in pixels of the picture: from a query to where it attends, expected under its map."""
    uniform_distance: float
    """What the same would be if every query attended to all keys alike."""
    variation: float
    """How much a map depends on its query: total variation from the mean map of its picture; 0: not at all, to 1."""


@dataclass(frozen=True)
class Observation:
    """A forward pass of a network, and what went into its self-attention layers."""

    network: Generator | Discriminator
    output: Tensor
    """Pictures (N, C, R, R) in [-1, 1] of a generator, logits (N,) of a discriminator."""
    layers: Mapping[str, SelfAttention2d]
    inputs: Mapping[str, Tensor]
    """Of each layer, (N, C, S, S)."""

    @property
    def resolution(self) -> int:
        """R: the side of the pictures."""
        return self.network.config.resolution

    def maps(self, queries: Points | Literal["all"]) -> dict[str, Tensor]:
        """Maps (N, Q, K', K') of every layer, as `attention_maps` describes them."""
        maps = {}
        with evaluation(self.network):
            for name, layer in self.layers.items():
                x = self.inputs[name]
                size = x.shape[-1]
                if isinstance(queries, str) and queries == "all":
                    locations = torch.arange(size**2)
                else:
                    locations = to_locations(queries, self.resolution, size)
                if locations.dim() == 2 and len(locations) != len(x):
                    raise UserError(f"query points of {len(locations)} pictures were given for {len(x)} pictures")
                maps[name] = layer.maps(x, locations.to(x.device).expand(len(x), -1))
        return maps

    def statistics(self) -> dict[str, LayerStatistics]:
        """Distances and strength of every layer, over all queries: exact, in blocks of rows."""
        found = {}
        with evaluation(self.network):
            for name, layer in self.layers.items():
                x = self.inputs[name]
                keys = x.shape[-1] // 2 if layer.pooled else x.shape[-1]
                change = (layer(x) - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1).clamp_min(1e-30)
                found[name] = LayerStatistics(
                    x.shape[-1],
                    keys,
                    layer.gamma.item(),
                    change.mean().item(),
                    *_summarise(layer, x, keys, self.resolution),
                )
        return found


def attention_statistics(
    network: Generator | Discriminator, inputs: Tensor, y: Tensor | None = None
) -> dict[str, LayerStatistics]:
    """How far each self-attention layer looks and how strongly it is used. Arguments as for `attention_maps`."""
    return observe_attention(network, inputs, y).statistics()


def lay_on_picture(maps: Tensor, resolution: int, *, smooth: bool = False) -> Tensor:
    """Maps (..., K', K') on the keys' grid to (..., R, R) on the picture, each still summing to 1.

    A key stands for R/K' x R/K' pixels, pooled or not, and its weight is spread over these. With `smooth` it is
    spread by linear interpolation between the keys' centres instead, for the eye.

    Raises:
        ValueError: R is not a multiple of K'.
    """
    step, rest = divmod(resolution, maps.shape[-1])
    if rest or maps.shape[-1] != maps.shape[-2]:
        raise ValueError(f"a map of {maps.shape[-2]} x {maps.shape[-1]} keys does not fit {resolution} pixels")
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    if smooth:
        laid = F.interpolate(flat, scale_factor=step, mode="bilinear", align_corners=False)
    else:
        laid = F.interpolate(flat, scale_factor=step, mode="nearest")
    return laid.view(*maps.shape[:-2], resolution, resolution) / step**2


def to_locations(points: Points | str, resolution: int, size: int) -> Tensor:
    """Points (..., 2) in pixels of an R x R picture to int64 locations (...) on a layer's grid, counted row by row.

    Raises:
        UserError: not points, or outside of the picture.
    """
    try:
        at = np.asarray(points.cpu() if isinstance(points, Tensor) else points, np.float64)
    except (TypeError, ValueError):
        at = np.empty(0)
    if at.ndim not in (2, 3) or at.shape[-1] != 2 or not at.size:
        raise UserError("query points must be pairs (x, y) in pixels, the same number for every picture")
    outside = ~((at >= 0) & (at < resolution)).all(-1)
    if outside.any():
        x, y = at[outside][0]
        raise UserError(
            f"query point {x:g},{y:g} lies outside of the {resolution} x {resolution} picture: "
            f"give x and y from 0 to {resolution - 1}"
        )
    cells = np.floor(at * size / resolution).astype(np.int64)
    return torch.from_numpy(cells[..., 0] + size * cells[..., 1])


@contextmanager
def evaluation(network: nn.Module) -> Iterator[None]:
    """Evaluation mode in full precision, without gradients: nothing in the network changes; then its own mode again."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad(), full_precision():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _summarise(layer: SelfAttention2d, x: Tensor, keys: int, resolution: int) -> tuple[float, float, float]:
    """Mean distance from query to key in pixels under the layer's maps, and under uniform ones; variation of maps."""
    count = x.shape[-1] ** 2
    of_queries, of_keys = (_centres(side, resolution).to(x) for side in (x.shape[-1], keys))
    blocks = torch.arange(count, device=x.device).split(max(1, BLOCK_ELEMENTS // (len(x) * keys**2)))
    attended, uniform, mean_map_NK = 0.0, 0.0, x.new_zeros(len(x), keys**2)
    for block in blocks:
        distances_QK = torch.linalg.vector_norm(of_queries[block, None] - of_keys, dim=2)
        attn_NQK = layer.maps(x, block.expand(len(x), -1)).flatten(2)
        attended += (attn_NQK * distances_QK).sum(dtype=torch.float64).item()
        uniform += distances_QK.sum(dtype=torch.float64).item()
        mean_map_NK += attn_NQK.sum(1) / count
    variation = 0.0
    for block in blocks:
        attn_NQK = layer.maps(x, block.expand(len(x), -1)).flatten(2)
        variation += (attn_NQK - mean_map_NK[:, None]).abs().sum(dtype=torch.float64).item() / 2
    return attended / (len(x) * count), uniform / (count * keys**2), variation / (len(x) * count)


def _centres(side: int, resolution: int) -> Tensor:
    """The centres (side², 2) of the cells of a grid, (x, y) in pixels, row by row."""
    along = (torch.arange(side) + 0.5) * (resolution / side)
    rows, columns = torch.meshgrid(along, along, indexing="ij")
    return torch.stack((columns.flatten(), rows.flatten()), 1)
