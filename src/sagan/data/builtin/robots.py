"""The built-in set 'robots': new images composed of the drawn parts in the package `robohash`.

Five sets of parts are five classes. An image has one part from each layer of its set, chosen independently and
uniformly, composited in robohash's order. There are billions of combinations, and none is stored. All parts of an image
of class 'robots' share one of ten colours, so a generator has to match distant regions (head and feet).
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sagan.errors import UserError

SETS = {"robots": "set1", "monsters": "set2", "robot heads": "set3", "cats": "set4", "people": "set5"}
"""Class name -> robohash's folder of its parts."""
CLASS_NAMES = tuple(SETS)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # weights of red, green and blue in ITU-R 601, as in Pillow's "L"


@dataclass(frozen=True)
class Layer:
    """The parts of one layer, cropped to the smallest box that contains all of them."""

    box: tuple[slice, slice]
    """Rows and columns of the image that the parts cover."""
    parts: NDArray[np.uint8]
    """(P, h, w, 4): colour premultiplied by alpha, and alpha."""


Variant = list[Layer]
"""Layers from bottom to top. A class has one variant, except 'robots', which has one per colour."""


def version() -> str:
    """Return the version of robohash. Raises UserError if it is not installed."""
    folder()
    return metadata.version("robohash")


def folder() -> Path:
    """Return robohash's folder of the five sets of parts. Raises UserError if it is not installed."""
    spec = util.find_spec("robohash")  # located, not imported: only its image files are needed
    if spec is None or not spec.submodule_search_locations:
        raise UserError("data source 'robots' needs the package robohash: pip install robohash")
    return Path(spec.submodule_search_locations[0]) / "sets"


def layer_files(class_name: str) -> list[list[list[Path]]]:
    """List the files of a class: variants, their layers from bottom to top, the parts of each layer."""
    root = folder() / SETS[class_name]
    variants = [root] if any("#" in path.name for path in root.iterdir()) else sorted(root.iterdir())
    return [
        [sorted(layer.glob("*.png")) for layer in sorted(_folders(variant), key=lambda path: path.name.split("#")[1])]
        for variant in variants
        if variant.is_dir()
    ]


def load(class_name: str, resolution: int, choices: NDArray[np.uint64] | None = None) -> list[Variant]:
    """Read the parts of a class, resized to the resolution, on all cores.

    This is the slow step: about 100 parts a second.

    Args:
        class_name: the class.
        resolution: side to which images are resized, pixels.
        choices: (n, 1 + layers), from `choose`. Parts that no row selects are transparent; None: all are read.
    """

    def read_part(path: Path, is_chosen: bool) -> NDArray[np.uint8]:
        if not is_chosen:
            return np.zeros((resolution, resolution, 4), np.uint8)
        with Image.open(path) as image:
            premultiplied = image.convert("RGBA").convert("RGBa")  # else transparent pixels darken the edges
        # The box filter before Lanczos makes large parts about twice as fast to shrink, without a visible difference.
        shrunk = premultiplied.resize((resolution, resolution), Image.Resampling.LANCZOS, reducing_gap=3.0)
        pixels = np.array(shrunk)
        np.minimum(pixels[..., :3], pixels[..., 3:], out=pixels[..., :3])  # Lanczos may overshoot alpha
        return pixels

    files = layer_files(class_name)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        variants = []
        for number, variant in enumerate(files):
            rows = None if choices is None else choices[choices[:, 0] % len(files) == number]
            layers = []
            for i, layer in enumerate(variant):
                chosen = set(range(len(layer))) if rows is None else set((rows[:, 1 + i] % len(layer)).tolist())
                parts = pool.map(read_part, layer, (part in chosen for part in range(len(layer))))
                layers.append(_crop(np.stack(list(parts))))
            variants.append(layers)
    return variants


@cache
def canvas(class_name: str) -> tuple[int, int]:
    """Return the width and height in pixels at which the parts of a class were drawn."""
    with Image.open(layer_files(class_name)[0][0][0]) as image:
        return image.size


def choose(class_name: str, count: int, seed: int) -> NDArray[np.uint64]:
    """Draw (count, 1 + layers) random numbers: one for the variant, then one for each layer from bottom to top.

    Row i depends on class, seed and i only. The remainders of an image's numbers select its variant and its parts.
    """
    layers = len(layer_files(class_name)[0])
    rng = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(CLASS_NAMES.index(class_name),)))
    return rng.random_raw(count * (1 + layers)).reshape(count, 1 + layers)


def compose(variants: list[Variant], choices: NDArray[np.uint64], resolution: int) -> NDArray[np.float32]:
    """Composite the chosen parts into images (n, R, R, 4): colour premultiplied by alpha, and alpha, 0 to 255.

    Args:
        variants: all variants of a class, from `load`.
        choices: rows from `choose`, one per image.
        resolution: R, as in `load`.
    """
    images = np.zeros((len(choices), resolution, resolution, 4), np.float32)
    for number, variant in enumerate(variants):
        positions = np.flatnonzero(choices[:, 0] % len(variants) == number)
        stack = images[positions]
        for layer, choice in zip(variant, choices[positions, 1:].T, strict=True):
            parts = layer.parts[choice % len(layer.parts)].astype(np.float32)
            view = stack[:, *layer.box]
            # view = parts + (1 - alpha) * view
            view *= 1 - parts[..., 3:] / 255
            view += parts
        images[positions] = stack
    return images.clip(0, 255, out=images)


def finish(images: NDArray[np.float32], image_channels: int, background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Convert images from `compose` to uint8 (n, R, R, image_channels).

    With 4 channels alpha is kept and the colour is no longer premultiplied. With 1 (grey) or 3 (RGB) the images are
    composited over the background.
    """
    colour: NDArray[np.floating]
    colour, alpha = images[..., :3], images[..., 3:]
    if image_channels == 4:
        straight = 255 * colour / np.maximum(alpha, 1)
        return np.concatenate([straight.clip(0, 255), alpha], -1).round().astype(np.uint8)
    colour = colour + (1 - alpha / 255) * np.array(background, np.float32)
    if image_channels == 1:
        colour = (colour @ _LUMA)[..., None]
    return np.asarray(colour.clip(0, 255).round().astype(np.uint8))


def render_batches(
    count: int,
    resolution: int,
    image_channels: int,
    seed: int,
    background: tuple[int, int, int] = (255, 255, 255),
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Yield the images and labels of `render` in batches, so that memory does not grow with `count`."""
    choices = [choose(name, -(-count // len(SETS)), seed) for name in CLASS_NAMES]
    variants = [load(name, resolution, rows) for name, rows in zip(CLASS_NAMES, choices, strict=True)]
    # A batch has about a megabyte of floats per class, which fits into the processor's cache.
    size = len(SETS) * max(1, 2**18 // (resolution * resolution * 4))
    for start in range(0, count, size):
        labels = np.arange(start, min(start + size, count)) % len(SETS)
        images = np.empty((len(labels), resolution, resolution, image_channels), np.uint8)
        for label in range(len(SETS)):
            of_class = labels == label
            first = start // len(SETS)
            composed = compose(variants[label], choices[label][first : first + int(of_class.sum())], resolution)
            images[of_class] = finish(composed, image_channels, background)
        yield images, labels


def render(
    count: int,
    resolution: int,
    image_channels: int,
    seed: int,
    background: tuple[int, int, int] = (255, 255, 255),
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw images (count, R, R, image_channels) uint8 and labels (count,). Image i belongs to class i % 5.

    The same arguments give the same images. Another seed gives new images from the same distribution; a larger count
    appends images.
    """
    images = np.empty((count, resolution, resolution, image_channels), np.uint8)
    done = 0
    for batch, _ in render_batches(count, resolution, image_channels, seed, background):
        images[done : done + len(batch)] = batch
        done += len(batch)
    return images, np.arange(count) % len(SETS)


def _folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir() and "#" in path.name]


def _crop(parts: NDArray[np.uint8]) -> Layer:
    """Crop the parts of a layer to what they cover: eyes and mouths are small."""
    covered = parts.max(axis=(0, 3))
    rows, columns = (np.flatnonzero(covered.max(axis=axis)) for axis in (1, 0))
    if not len(rows):  # all parts of the layer are empty
        return Layer((slice(0, 0), slice(0, 0)), parts[:, :0, :0])
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return Layer(box, parts[:, *box].copy())
