"""What a loaded generator has beyond its network: names of its classes, images by class, and checked inputs."""

import operator
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor

from sagan.attention_maps import evaluation
from sagan.config import check_ranges
from sagan.labels import Labels, as_labels, class_numbers, names_of
from sagan.model.generator import Generator
from sagan.sampling import SampleSet
from sagan.sampling import sample as sample_arrays


class LoadedGenerator(Generator):
    """A generator as `sagan.load` returns it.

    For type checkers: at run time it is of its architecture's class, which `sagan` gives the method.
    """

    def sample(
        self,
        count: int = 8,
        classes: Labels | None = None,
        *,
        seed: int = 0,
        truncation: float | None = None,
    ) -> list[Image.Image]:
        """Draw the images of `sagan sample` with these options, class after class.

        Args:
            count: images of each class; without classes, images in total.
            classes: names or numbers, one or several, each once; None: all.
            seed: seed of the latents.
            truncation: magnitude to which latents are truncated: values near 0 give more typical, less varied images.

        Returns:
            PIL images: mode L, RGB or RGBA.

        Raises:
            ValueError: an option is out of its range, or there is no such class.
        """
        options = SimpleNamespace(count=operator.index(count), seed=operator.index(seed), truncation=truncation)
        check_ranges(options, minimum={"count": 1, "seed": 0}, positive=("truncation",))
        names = names_of(self)
        numbers = list(range(len(names))) if classes is None else class_numbers(classes, names)
        if classes is not None and not numbers:
            raise ValueError("classes is empty: omit it for all classes")
        drawn = SampleSet(self.config.latent_dim, count, list(dict.fromkeys(numbers)), (seed,), truncation)
        with evaluation(self):
            images = sample_arrays(self, *drawn.inputs())
        return [Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image) for image in images]


def as_loaded(generator: Generator, class_names: tuple[str, ...]) -> LoadedGenerator:
    """Name a generator's classes, and check the inputs of its calls from now on. Returns the same generator."""
    generator.class_names = class_names
    generator.register_forward_pre_hook(_check_inputs, with_kwargs=True)
    return cast(LoadedGenerator, generator)


def _check_inputs(generator: Generator, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """Check latents and classes before a forward pass, and turn classes into a tensor.

    Raises:
        ValueError: the latents have another shape, or a class does not exist. On CUDA the latter would end all further
            work of the process.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or _is_capturing():  # type: ignore[attr-defined]
        return None
    z, y = _inputs_of(*inputs, **named)
    width = generator.config.latent_dim
    if not isinstance(z, Tensor) or z.ndim != 2 or z.shape[1] != width:
        got = f"the shape {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        raise ValueError(f"z must be latents, a tensor (N, {width}), got {got}")
    if generator.config.num_classes:
        y = as_labels(y, len(z), names_of(generator)).to(z.device)
    return (z, y), {}


def _inputs_of(z: Any, y: Labels | None = None) -> tuple[Any, Any]:
    return z, y


def _is_capturing() -> bool:
    """Return whether a CUDA graph is being recorded, during which no value can be read."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
