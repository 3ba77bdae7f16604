"""Interpolate between latents and between classes, and draw the images along the path."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sagan.figures.grid import draw_grid, wrap_rows

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Interpolate along the arc between a and b: a at t = 0, b at t = 1; a, b (..., D), t (...).

    Normally distributed latents lie near a sphere of radius sqrt(D). The straight line between two orthogonal latents
    passes at sqrt(D/2) from the origin, where the generator has seen no latents. On the arc the direction turns at a
    constant rate, and the length changes linearly from |a| to |b|.

    The straight line is used where the arc is not unique (opposite latents, or 0) or has no length.
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
    """Interpolate along a straight line: a at t = 0, b at t = 1; a, b (..., D), t (...)."""
    return torch.lerp(a, b, t.to(a)[..., None])


def walk(points: Tensor, steps: int, *, closed: bool, mix: Mix) -> Tensor:
    """Return `steps` evenly spaced positions on a path through points (P, ..., D): (steps, ..., D).

    An open path leads from the first point to the last, both included. A closed path returns to the first point,
    which would be the position after the last one, so that an animation of it repeats without a jump.
    """
    count = len(points)
    legs = count if closed else count - 1
    at = torch.arange(steps, dtype=torch.float64) * legs / (steps if closed else max(1, steps - 1))
    leg = at.floor().clamp(max=max(0, legs - 1)).long()
    t = (at - leg).reshape(-1, *(1,) * (points.ndim - 2)).expand(-1, *points.shape[1:-1])
    return mix(points[leg], points[(leg + 1) % count], t)


def walk_latents(z: Tensor, steps: int, *, closed: bool = False) -> Tensor:
    """Walk through latents z (P, ..., D) by `slerp`: (steps, ..., D)."""
    return walk(z, steps, closed=closed, mix=slerp)


def walk_classes(classes: Sequence[int], num_classes: int, steps: int, *, closed: bool = False) -> Tensor:
    """Walk through classes: weights (steps, num_classes) for the generator, at most two above 0 in a row.

    The scales and shifts of the conditional batch norms are thereby interpolated linearly from class to class.
    """
    points = F.one_hot(torch.tensor(classes), num_classes).float()
    return walk(points, steps, closed=closed, mix=lerp)


def draw_walks(
    images: NDArray[np.uint8],
    labels: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    scale: int | None = None,
) -> Image.Image:
    """Draw walks as rows: images (W, S, H, W, C) uint8 of S positions of each of W walks.

    Rows of more than `columns` images are continued on the next ones.
    """
    columns = min(columns or images.shape[1], images.shape[1])
    tiles, row_labels = wrap_rows(images, labels, columns)
    return draw_grid(tiles, columns=columns, row_labels=row_labels, scale=scale)


def draw_film(
    images: NDArray[np.uint8], *, columns: int, labels: Sequence[str] | None = None, scale: int | None = None
) -> list[Image.Image]:
    """Draw a frame per position of images (W, S, H, W, C) uint8: a grid of the W walks, its rows labelled."""
    return [draw_grid(images[:, i], columns=columns, row_labels=labels, scale=scale) for i in range(images.shape[1])]
