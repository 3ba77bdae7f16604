"""Draw what a run's networks attend to: the figure at the end of the paper, and a table of the attention layers."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from sagan.attention_maps import (
    LayerStatistics,
    Points,
    attention_layers,
    describe_small_share,
    observe_attention,
    to_locations,
)
from sagan.data import Store, prepare
from sagan.data.diff import note_on_changes
from sagan.data.sources import BUILT_IN
from sagan.device import CPU
from sagan.errors import UserError
from sagan.figures.attention import MOST_ROWS, MapSection, choose_points, draw_maps, save_figure, to_image
from sagan.figures.labels import class_labels
from sagan.locate import absolute_source, check_present
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.model.spectral_norm import bake_spectral_norm
from sagan.pixels import to_bytes, to_signed
from sagan.render.latents import read_latents
from sagan.render.outputs import check_writable, class_stems, default_path, latents_stem, number_text
from sagan.render.public import public_name
from sagan.run import Run, discriminator_step, load_generator, read_discriminator
from sagan.sampling import SampleSet, draw_latents, find_classes
from sagan.text import as_class_names, printable
from sagan.trained import shipped_name

NetworkName = Literal["generator", "discriminator", "both"]

MEASURED = 16  # images that the table averages over
POINTS = 5  # query points per image if none are given
MAX_CLASSES = 8  # classes drawn by default, one image each
UNCONDITIONAL_COUNT = 6  # images drawn by default without classes
MAX_PIXELS = 200_000_000  # of a figure


@dataclass(frozen=True)
class Subject:
    """A network with inputs to draw and inputs to measure.

    Inputs are latents (N, latent_dim) of a generator, or images (N, C, R, R) in [-1, 1] for a discriminator.
    """

    name: Literal["generator", "discriminator"]
    network: Generator | Discriminator
    inputs: Tensor
    """Inputs of the figure's rows."""
    y: Tensor | None
    """Their classes (N,)."""
    measured: tuple[Tensor, Tensor | None]
    """Other inputs, and their classes, that the table averages over."""
    labels: Sequence[str] | None
    """Class name of each row."""
    step: int | None = None
    """Step of the network."""
    note: str | None = None
    """A caution about the inputs."""


def write_attention(
    path: Path,
    out: Path | None,
    *,
    network: NetworkName = "generator",
    layer: str = "last",
    points: Sequence[tuple[float, float]] | None = None,
    count: int | None = None,
    classes: Sequence[str] = (),
    seed: int = 0,
    seeds: Sequence[int] = (),
    latents: Path | None = None,
    truncation: float | None = None,
    scale: int | None = None,
    smooth: bool = True,
    own_scale: bool = False,
    data: str | None = None,
    device: torch.device = CPU,
) -> tuple[Path, str]:
    """Draw what a run's networks attend to, and write the figure as .png or .svg.

    Args:
        path: the run's folder; for the generator, its generator.safetensors is enough.
        out: file to write; None: attend.png in the run, or with other options than the defaults, which the report and
            the Hub show, a name that tells them.
        network: the generator is shown its own images, the discriminator images of the run's data.
        layer: 'last' (of the forward pass), 'all', a name ('16.0') or a size ('16').
        points: query points for every image, (x, y) in pixels; None: five that are chosen in each image.
        count: images of each class and seed, or in total without classes; None: 1, or 6 without classes and `seeds`.
        classes: names or numbers; none: the first eight.
        seed: seed of the latents, as for `sagan sample`, and of the choice of real images.
        seeds: several seeds of the generator's images, instead of `seed`.
        latents: a .npy file of latents (N, latent_dim) to show for each class, instead of those of a seed.
        truncation: magnitude to which latents are truncated.
        scale: magnification of the whole .png; None: 1.
        smooth: interpolate maps between the centres of the keys; False: draw the keys as cells.
        own_scale: scale each map to its own peak, instead of all to multiples of even attention.
        data: source of the images that the discriminator is shown; None: the run's data.
        device: where the networks run.

    Returns:
        The file, and the table of the layers, with a line below it if the run's data changed since training.

    Raises:
        UserError: there is no such run, class, layer, point or data, or the file cannot be written.
    """
    # Read the networks and choose their inputs.
    if out is None:
        values: dict[str, Any] = {
            "_network": network,
            "layer": layer,
            "points": points,
            "count": count,
            "_classes": tuple(classes),
        }
        values |= {"seed": seed, "seeds": tuple(seeds), "_latents": latents, "truncation": truncation, "scale": scale}
        out = attention_path(path, values | {"_smooth": smooth, "_own_scale": own_scale, "data": data})
    check_writable(out)
    subjects = []
    if network != "discriminator":
        subjects.append(generated_subject(path, count, classes, seed, truncation, device, seeds=seeds, latents=latents))
    if network != "generator":
        subjects.append(real_subject(path, count, classes, seed, device, data))

    # Check that the figure can be drawn, before the slow part.
    layers = [choose_layers(subject.network, layer) for subject in subjects]
    rows = sum(len(names) * len(subject.inputs) for names, subject in zip(layers, subjects, strict=True))
    check_rows(rows)
    if points is not None:
        to_locations(points, subjects[0].network.config.resolution, 1)

    # Measure and draw.
    sections = []
    measured = []
    with tqdm(total=2 * len(subjects) + 1, unit="steps", desc="drawing maps", disable=None) as bar:
        for names, subject in zip(layers, subjects, strict=True):
            statistics = observe_attention(subject.network, *subject.measured).statistics()
            measured.append((subject.name, statistics))
            bar.update()
            sections += _sections(subject, names, points, statistics)
            bar.update()
        figure = draw_maps(sections, smooth=smooth, own_scale=own_scale)
        magnify(figure, scale, out)
        save_figure(figure, out, step=subjects[0].step)
        bar.update()
    notes = [f"note: {subject.note}" for subject in subjects if subject.note]
    return out, "\n".join([format_table(measured), *notes])


def check_rows(rows: int) -> None:
    """Check that a figure of so many rows can be drawn.

    Raises:
        UserError: it would be too long.
    """
    if rows > MOST_ROWS:
        raise UserError(
            f"a figure of {rows} rows is too long (at most {MOST_ROWS}): lower --count or choose fewer --classes"
        )


def magnify(figure: Figure, scale: int | None, out: Path) -> None:
    """Magnify a figure that is to be written as .png. Raises UserError if it becomes too large."""
    figure.set_dpi(figure.dpi * (scale or 1))
    width, height = (round(side * figure.dpi) for side in figure.get_size_inches())
    if out.suffix.lower() == ".png" and width * height > MAX_PIXELS:
        at_most = f"at most {MAX_PIXELS // 1_000_000} million pixels"
        raise UserError(f"a figure of {width:,} x {height:,} pixels is too large ({at_most}): lower --scale or --count")


def draw_attention(
    generator: Generator,
    z: Tensor,
    y: Tensor | None = None,
    *,
    points: Points | None = None,
    layer: str = "last",
    labels: Sequence[str] | None = None,
    smooth: bool = True,
    own_scale: bool = False,
) -> Image.Image:
    """Draw what a generator attends to, one row per latent.

    Args:
        generator: the generator; it is left as it was.
        z: latents (N, latent_dim).
        y: classes (N,).
        points: query points (Q, 2) or (N, Q, 2), (x, y) in pixels; None: five that are chosen in each image.
        layer: 'last', 'all', a name ('16.0') or a size ('16').
        labels: one per row.
        smooth: interpolate maps between the centres of the keys; False: draw the keys as cells.
        own_scale: scale each map to its own peak, instead of all to multiples of even attention.

    Raises:
        UserError: there is no such layer, no self-attention layer at all, or a point lies outside the image.
    """
    subject = Subject("generator", generator, z, y, (z, y), labels)
    statistics = observe_attention(generator, z, y).statistics()
    sections = _sections(subject, choose_layers(generator, layer), points, statistics)
    return to_image(draw_maps(sections, smooth=smooth, own_scale=own_scale))


def choose_layers(network: Generator | Discriminator, layer: str) -> list[str]:
    """Return the names of the layers that 'last', 'all', a name ('16.0') or a size ('16') selects.

    Raises:
        UserError: there is no such layer with attention maps.
    """
    if layer in ("last", "all"):
        return list(attention_layers(network))[-1 if layer == "last" else 0 :]
    return list(attention_layers(network, [layer]))


def generated_subject(
    path: Path,
    count: int | None,
    classes: Sequence[str],
    seed: int,
    truncation: float | None,
    device: torch.device = CPU,
    *,
    seeds: Sequence[int] = (),
    latents: Path | None = None,
    measured: int = MEASURED,
) -> Subject:
    """Read a run's generator, with the latents of `count` images of each class, as `sagan sample` draws them.

    `measured` is the number of images to measure.
    """
    generator, names, step = load_generator(path, device)
    numbers, count = _choose_rows(classes, names, 1 if seeds and count is None else count)
    latent_dim = generator.config.latent_dim
    given = None if latents is None else read_latents(latents, latent_dim)
    images = SampleSet(latent_dim, count, list(dict.fromkeys(numbers)), tuple(seeds) or (seed,), truncation, given)
    check_rows(images.total)  # of one layer
    z, y = images.inputs()
    y_measured = torch.arange(measured) % max(1, len(names))  # all classes equally often
    z_measured = draw_latents(measured, latent_dim, seed=seed, truncation=truncation)
    labels = class_labels(names, y.tolist()) if names else None
    return Subject("generator", generator, z, y, (z_measured, y_measured), labels, step)


def real_subject(
    path: Path,
    count: int | None,
    classes: Sequence[str],
    seed: int,
    device: torch.device = CPU,
    data: str | None = None,
) -> Subject:
    """Read a run's discriminator, with `count` images of each class from the run's data, which the seed chooses.

    Raises:
        UserError: there is no checkpoint or class, or the data cannot be read or have other classes now.
    """
    info = Run(path).info
    if info.origin and not Run(path).checkpoints():
        raise UserError(f"{path} was imported without a discriminator: import it again with --discriminator FILE")
    discriminator = bake_spectral_norm(read_discriminator(path).eval()).to(device)
    config, names = info.config, info.class_names
    images = config.data if data is None else replace(config.data, source=data, labels=bool(names))
    if not images.source:
        raise UserError(
            f"{path} was imported and has no images of its own: pass --data with images to show its discriminator"
        )
    numbers, count = _choose_rows(classes, names, count)
    if data is None and shipped_name(path) and images.source not in BUILT_IN and not Path(images.source).exists():
        raise UserError(
            f"{path} was trained on {images.source}, which is not here: pass --data (its model card says how to get "
            "it), or --network generator"
        )
    if data is None:
        check_present(images.source, "show the discriminator other images with --data")
    store = prepare(images, resolution=config.model.resolution, image_channels=config.model.image_channels)
    # robots64 was trained on class folders, sorted by name; the built-in robots have an order of their own.
    store = store.with_classes(as_class_names(names))
    if store.class_names != as_class_names(names):
        if data is None:
            raise UserError(f"{config.data.source} has other classes than {path} was trained on: restore the data")
        shown = ", ".join(map(printable, names[:5])) + (", ..." if len(names) > 5 else "")
        raise UserError(f"--data {data}: its classes must be those of {path}, in class folders: {shown}")
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(store))
    of_classes = [order[store.labels[order] == number][:count] for number in numbers] or [order[:count]]
    positions = np.concatenate(of_classes)
    if not len(positions):
        raise UserError(f"--classes {' '.join(classes)}: the run's data have no images of this class")
    x, y = _load_images(store, positions)
    measured = _load_images(store, order[-MEASURED:])
    note = note_on_changes(info.data_key, store) if data is None and not info.origin else None
    labels = class_labels(names, y.tolist()) if names else None
    return Subject("discriminator", discriminator, x, y, measured, labels, discriminator_step(path), note)


def format_table(measured: Sequence[tuple[str, dict[str, LayerStatistics]]]) -> str:
    """Format a table with a line per layer: how strongly it is used, and how far it looks."""
    head = ("network", "layer", "queries", "keys", "gamma", "|gamma o|/|x|", "distance", "if uniform", "variation")
    rows: list[tuple[str, ...]] = [head]
    for network, statistics in measured:
        for name, s in statistics.items():
            sizes = (f"{s.grid} x {s.grid}", f"{s.keys} x {s.keys}")
            distances = (f"{s.distance:.1f} px", f"{s.uniform_distance:.1f} px")
            rows.append(
                (network, name, *sizes, f"{s.gamma:+.4f}", f"{s.strength:.4f}", *distances, f"{s.variation:.2f}")
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(lines)


def _choose_rows(classes: Sequence[str], names: Sequence[str], count: int | None) -> tuple[list[int], int]:
    """Return the numbers of the classes to draw ([] without classes), and the number of images of each."""
    numbers = find_classes(classes, names)
    if not classes:
        numbers = numbers[:MAX_CLASSES]
    return numbers, count or (1 if numbers else UNCONDITIONAL_COUNT)


def attention_path(path: Path, values: dict[str, Any], stem: str = "attend") -> Path:
    """Return attend.png in the run, or with other values than the defaults a name that tells them."""
    defaults = {"_network": "generator", "layer": "last", "seed": 0, "_smooth": True, "_own_scale": False}
    options = {name: value for name, value in values.items() if value not in (None, (), defaults.get(name))}
    if "_classes" in options:
        options["_classes"] = class_stems(path, options["_classes"])
    if "points" in options:
        options["points"] = "+".join(f"{number_text(x)},{number_text(y)}" for x, y in options["points"])
    if "_latents" in options:
        options["_latents"] = latents_stem(options["_latents"])
    if "_smooth" in options:
        options["_smooth"] = "cells"
    if "_own_scale" in options:
        options["_own_scale"] = "own-scale"
    if "data" in options:  # folders of the same name elsewhere are told apart by their path
        path_crc = zlib.crc32(absolute_source(options["data"]).encode())
        options["data"] = f"{public_name(options['data'])}-{path_crc:08x}"
    return default_path(path, stem, ".png", options)


def _load_images(store: Store, positions: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Read images (N, C, R, R) in [-1, 1] and their labels (N,) from a store."""
    return to_signed(store.load_images(positions)), torch.from_numpy(store.labels[positions])


def _sections(
    subject: Subject, layers: Sequence[str], points: Points | None, statistics: dict[str, LayerStatistics]
) -> list[MapSection]:
    """Compute a section of the figure per layer."""
    observed = observe_attention(subject.network, subject.inputs, subject.y, layers=layers)
    generated = subject.name == "generator"
    images = to_bytes(observed.output if generated else subject.inputs).permute(0, 2, 3, 1).contiguous().numpy()
    queries = choose_points(images, POINTS) if points is None else points
    maps, shares = observed.maps(queries), observed.shares(queries)
    pixels = np.floor(np.asarray(queries)).astype(np.int64)
    pixels = np.broadcast_to(pixels, (len(images), *pixels.shape[-2:]))
    sections = []
    for name in layers:
        title = f"{subject.name.capitalize()}, layer {name}" + ("" if generated else ", on real images")
        maps_NQKK = maps[name].float().cpu().numpy()
        shares_NQ = shares[name].float().cpu().numpy()
        subtitle = _describe(statistics[name])
        sections.append(MapSection(title, subtitle, images, pixels, maps_NQKK, subject.labels, shares_NQ))
    return sections


def _describe(s: LayerStatistics) -> str:
    small = describe_small_share(s.strength)
    share = f"|γ·o| / |x| {s.strength:.2g}" + (f": {small}" if small else "")
    return (
        f"{s.grid} × {s.grid} queries, {s.keys} × {s.keys} keys   ·   "
        f"mean distance {s.distance:.1f} px, if uniform {s.uniform_distance:.1f} px\nγ {s.gamma:+.3g}   ·   {share}"
    )
