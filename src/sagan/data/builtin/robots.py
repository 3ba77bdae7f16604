"""The built-in set 'robots': new pictures composed from the drawn parts that the package `robohash` carries.

Five sets of parts are five classes. A picture takes one part from each layer of its set, chosen independently and
uniformly, laid over one another in robohash's order: there are billions of them, none of which is stored anywhere. All
parts of a 'robots' picture share one of ten colours, so that whoever paints the feet has to know about the head.
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
CLASS_NAMES = tuple(SETS)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, which Pillow's mode "L" is made with too


@dataclass(frozen=True)
class Layer:
    """The parts of one layer, all cut to the one box outside which every part is empty."""

    box: tuple[slice, slice]
    """Rows and columns of the picture that the parts cover."""
    parts: NDArray[np.uint8]
    """(P, h, w, 4): colour multiplied by alpha, and alpha."""


Variant = list[Layer]
"""Layers from bottom to top. A class has one variant, except 'robots', which has one per colour."""


def version() -> str:
    """Version of the parts. UserError when `robohash` is not installed."""
    folder()
    return metadata.version("robohash")


def folder() -> Path:
    """Folder of the five sets of parts. UserError when `robohash` is not installed."""
    spec = util.find_spec("robohash")  # found, not imported: only its pictures are needed
    if spec is None or not spec.submodule_search_locations:
        raise UserError("data source 'robots' needs the package robohash: pip install robohash")
    return Path(spec.submodule_search_locations[0]) / "sets"


def layer_files(class_name: str) -> list[list[list[Path]]]:
    """Files of a class as variant -> layer, from bottom to top -> part."""
    root = folder() / SETS[class_name]
    variants = [root] if any("#" in path.name for path in root.iterdir()) else sorted(root.iterdir())
    return [
        [sorted(layer.glob("*.png")) for layer in sorted(_folders(variant), key=lambda path: path.name.split("#")[1])]
        for variant in variants
        if variant.is_dir()
    ]


def load(class_name: str, resolution: int) -> list[Variant]:
    """Read every part of a class, shrunk to the resolution, on all cores (the slow part: about 100 parts a second)."""

    def part(path: Path) -> NDArray[np.uint8]:
        with Image.open(path) as picture:
            premultiplied = picture.convert("RGBA").convert("RGBa")  # else transparent pixels darken the edges
        # The box filter before Lanczos makes large parts about twice as fast to shrink, and changes nothing visible.
        shrunk = premultiplied.resize((resolution, resolution), Image.Resampling.LANCZOS, reducing_gap=3.0)
        pixels = np.array(shrunk)
        np.minimum(pixels[..., :3], pixels[..., 3:], out=pixels[..., :3])  # where Lanczos overshoots
        return pixels

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [
            [_cut(np.stack(list(pool.map(part, layer)))) for layer in variant] for variant in layer_files(class_name)
        ]


@cache
def canvas(class_name: str) -> tuple[int, int]:
    """Width and height in pixels that the parts of a class are drawn at."""
    with Image.open(layer_files(class_name)[0][0][0]) as picture:
        return picture.size


def choose(class_name: str, count: int, seed: int) -> NDArray[np.uint64]:
    """(count, 1 + layers) random numbers: for the variant, then for each layer from bottom to top.

    Row i depends on class, seed and i only. A picture takes variant and parts by the remainder of its numbers.
    """
    layers = len(layer_files(class_name)[0])
    stream = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(CLASS_NAMES.index(class_name),)))
    return stream.random_raw(count * (1 + layers)).reshape(count, 1 + layers)


def compose(variants: list[Variant], choices: NDArray[np.uint64], resolution: int) -> NDArray[np.float32]:
    """Lay the chosen parts over one another: (n, R, R, 4), colour multiplied by alpha, and alpha, 0 to 255.

    `variants` as `load` gives them, `choices` rows of `choose`.
    """
    pictures = np.zeros((len(choices), resolution, resolution, 4), np.float32)
    for number, variant in enumerate(variants):
        mine = np.flatnonzero(choices[:, 0] % len(variants) == number)
        stack = pictures[mine]
        for layer, choice in zip(variant, choices[mine, 1:].T, strict=True):
            parts = layer.parts[choice % len(layer.parts)].astype(np.float32)
            view = stack[:, *layer.box]
            view *= 1 - parts[..., 3:] / 255
            view += parts
        pictures[mine] = stack
    return pictures.clip(0, 255, out=pictures)


def finish(pictures: NDArray[np.float32], image_channels: int, background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """From `compose`'s layout to uint8 (n, R, R, image_channels): alpha kept for 4 channels, else laid on a colour."""
    colour: NDArray[np.floating]
    colour, alpha = pictures[..., :3], pictures[..., 3:]
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
    """`render`, a few pictures at a time: memory does not grow with `count`."""
    variants = [load(name, resolution) for name in CLASS_NAMES]
    choices = [choose(name, -(-count // len(SETS)), seed) for name in CLASS_NAMES]
    # About a megabyte of floats per class at a time stays in the processor's cache.
    size = len(SETS) * max(1, 2**18 // (resolution * resolution * 4))
    for start in range(0, count, size):
        labels = np.arange(start, min(start + size, count)) % len(SETS)
        images = np.empty((len(labels), resolution, resolution, image_channels), np.uint8)
        for label in range(len(SETS)):
            mine = labels == label
            first = start // len(SETS)
            pictures = compose(variants[label], choices[label][first : first + int(mine.sum())], resolution)
            images[mine] = finish(pictures, image_channels, background)
        yield images, labels


def render(
    count: int,
    resolution: int,
    image_channels: int,
    seed: int,
    background: tuple[int, int, int] = (255, 255, 255),
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (count, R, R, image_channels) uint8 and labels (count,): picture i is of class i % 5.

    The same arguments give the same pictures; another seed gives fresh ones from the same distribution, and a larger
    count adds pictures at the end.
    """
    images = np.empty((count, resolution, resolution, image_channels), np.uint8)
    done = 0
    for batch, _ in render_batches(count, resolution, image_channels, seed, background):
        images[done : done + len(batch)] = batch
        done += len(batch)
    return images, np.arange(count) % len(SETS)


def _folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir() and "#" in path.name]


def _cut(parts: NDArray[np.uint8]) -> Layer:
    """Drop the margin that is empty in every part: eyes and mouths are small."""
    covered = parts.max(axis=(0, 3))
    rows, columns = (np.flatnonzero(covered.max(axis=axis)) for axis in (1, 0))
    if not len(rows):  # a layer whose parts are all empty
        return Layer((slice(0, 0), slice(0, 0)), parts[:, :0, :0])
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return Layer(box, parts[:, *box].copy())
