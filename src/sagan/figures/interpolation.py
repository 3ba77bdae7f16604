"""Walks between latents and between classes: smooth paths, and the pictures along them."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sagan.figures.grid import draw_grid

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation: a at t = 0, b at t = 1, along the arc between them; a, b (..., D), t (...).

    Latents of a normal distribution lie near a sphere of radius sqrt(D). A straight line between two of them leaves
    it for its middle, at sqrt(D/2) where they are at right angles, and the generator has never seen such latents.
    On the arc the direction turns evenly, and the length goes evenly from |a| to |b|.

    Where there is no single arc, between opposite latents or from 0, and where it has no length, the line is taken.
    """
    dtype, (a, b), t = a.dtype, (a.double(), b.double()), t.double()[..., None]
    length_a, length_b = (x.norm(dim=-1, keepdim=True) for x in (a, b))
    cosine = (a * b).sum(-1, keepdim=True) / (length_a * length_b)
    angle = torch.acos(cosine.clamp(-1, 1))
    sine = torch.sin(angle)
    length = torch.lerp(length_a, length_b, t)
    arc = (
        torch.sin((1 - t) * angle) / sine * (length / length_a) * a
        + torch.sin(t * angle) / sine * (length / length_b) * b
    )
    return torch.where(sine > 1e-6, arc, torch.lerp(a, b, t)).to(dtype)  # NaN is not above 1e-6


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Straight interpolation: a at t = 0, b at t = 1; a, b (..., D), t (...)."""
    return torch.lerp(a, b, t.to(a)[..., None])


def walk(points: Tensor, steps: int, *, closed: bool, mix: Mix) -> Tensor:
    """`steps` positions along a path through points (P, ..., D), evenly spaced: (steps, ..., D).

    Open, it leads from the first point to the last, both included. Closed, it comes back to the first: the position
    after the last one would be the first one again, so that a film of it repeats without a jump.
    """
    count = len(points)
    legs = count if closed else count - 1
    at = torch.arange(steps, dtype=torch.float64) * legs / (steps if closed else max(1, steps - 1))
    leg = at.floor().clamp(max=max(0, legs - 1)).long()
    t = (at - leg).reshape(-1, *(1,) * (points.ndim - 2)).expand(-1, *points.shape[1:-1])
    return mix(points[leg], points[(leg + 1) % count], t)


def walk_latents(z: Tensor, steps: int, *, closed: bool = False) -> Tensor:
    """Walks through latents z (P, ..., D): (steps, ..., D), by `slerp`."""
    return walk(z, steps, closed=closed, mix=slerp)


def walk_classes(classes: Sequence[int], num_classes: int, steps: int, *, closed: bool = False) -> Tensor:
    """A walk through classes: weights (steps, num_classes) for the generator, at most two of them above 0.

    What a class enters the generator through, the scales and shifts of its batch norms, then goes straight from one
    class's to the next one's.
    """
    points = F.one_hot(torch.tensor(classes), num_classes).float()
    return walk(points, steps, closed=closed, mix=lerp)


def draw_walks(images: NDArray[np.uint8], labels: Sequence[str] | None = None) -> Image.Image:
    """Walks side by side: pictures (W, S, H, W, C) uint8 of S positions of each walk, a row for each walk."""
    return draw_grid(images.reshape(-1, *images.shape[2:]), columns=images.shape[1], row_labels=labels)


def draw_film(images: NDArray[np.uint8], *, columns: int, labels: Sequence[str] | None = None) -> list[Image.Image]:
    """A frame for each position: pictures (W, S, H, W, C) uint8 of W walks, laid out as a grid; labels of its rows."""
    return [draw_grid(images[:, i], columns=columns, row_labels=labels) for i in range(images.shape[1])]
