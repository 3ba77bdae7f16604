"""Classes as people write them: names or numbers, one or a list, checked against a generator's classes."""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.text import find_name, printable

Labels = int | str | Sequence[int | str] | NDArray[Any] | Tensor
"""Classes by name or number: one, or several."""

_SHOWN = 20  # classes that a message lists


def names_of(network: Generator | Discriminator) -> tuple[str, ...]:
    """Return the names of a network's classes; their numbers if it does not know names."""
    return getattr(network, "class_names", ()) or tuple(map(str, range(network.config.num_classes)))


def class_numbers(classes: Labels, class_names: Sequence[str]) -> list[int]:
    """Return the numbers of classes that are given by name or number.

    Raises:
        ValueError: there is no such class, or these are not names or numbers.
    """
    if not class_names:
        raise ValueError("the generator has no classes: omit them")
    return [_number(one, class_names) for one in ([classes] if _is_one(classes) else classes)]  # type: ignore[union-attr]


def as_labels(y: Labels | None, count: int, class_names: Sequence[str]) -> Tensor:
    """Return the classes of `count` images as a tensor that a network accepts.

    Args:
        y: one class for all images, or one for each: names or numbers; or weights (count, num_classes) that mix the
            classes.
        count: N.
        class_names: one for each class; (): the network has no classes, and y is ignored.

    Returns:
        (N,) int64, or the weights.

    Raises:
        ValueError: y is missing, has another shape, or names a class that does not exist.
    """
    if not class_names:
        return torch.zeros(count, dtype=torch.int64)
    if y is None:
        raise ValueError(
            f"y is missing: pass classes from 0 to {len(class_names) - 1}, one for each of {count} latents"
        )
    if isinstance(y, Tensor) and y.is_floating_point():
        if y.shape != (count, len(class_names)):
            raise ValueError(f"y must be weights ({count}, {len(class_names)}), got the shape {tuple(y.shape)}")
        return y
    if isinstance(y, Tensor) and y.ndim == 1 and len(y):  # as in training: no loop over a large batch
        _check_range(int(y.min()), class_names)
        _check_range(int(y.max()), class_names)
        labels = y.to(torch.int64)
    else:
        labels = torch.tensor(class_numbers(y, class_names))
        if _is_one(y):
            labels = labels.expand(count)
    if len(labels) != count:
        raise ValueError(f"y must have one class for each of {count} latents, got {len(labels)}")
    return labels


def _is_one(classes: Labels) -> bool:
    return isinstance(classes, str) or not hasattr(classes, "__iter__") or getattr(classes, "ndim", None) == 0


def _number(one: Any, class_names: Sequence[str]) -> int:
    if isinstance(one, str):
        number = find_name(one, class_names)
        if number is None:
            known = ", ".join(f"{i} {printable(name)}" for i, name in enumerate(class_names[:_SHOWN]))
            more = ", ..." if len(class_names) > _SHOWN else ""
            raise ValueError(f"there is no class {one!r}; the classes are {known}{more}")
        return number
    try:
        number = operator.index(one)
    except (TypeError, ValueError):
        message = f"a class must be a name or a number from 0 to {len(class_names) - 1}, got {_describe(one)}"
        raise ValueError(message) from None
    _check_range(number, class_names)
    return number


def _check_range(number: int, class_names: Sequence[str]) -> None:
    if not 0 <= number < len(class_names):
        raise ValueError(f"class {number} does not exist: pass 0 to {len(class_names) - 1}")


def _describe(value: Any) -> str:
    shape = getattr(value, "shape", ())
    return f"the shape {tuple(shape)}" if len(shape) else f"{type(value).__name__} {value!r:.40}"
