"""What a run attends to: the figure of the paper's end, from a run to a file, and a table of its layers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sagan.attention_maps import LayerStatistics, Points, attention_layers, observe_attention, to_locations
from sagan.data import Store, prepare
from sagan.device import CPU
from sagan.errors import UserError
from sagan.figures.attention import MOST_ROWS, MapSection, choose_points, draw_maps, save_figure, to_image
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.model.spectral_norm import bake_spectral_norm
from sagan.pixels import to_bytes, to_signed
from sagan.run import Run, read_discriminator, read_generator
from sagan.sampling import draw_latents, find_classes
from sagan.text import printable

NetworkName = Literal["generator", "discriminator", "both"]

MEASURED = 16  # pictures that the table is an average over
POINTS = 5  # query points of a picture, where none are given
CLASSES = 8  # rows by default: a picture of each of so many classes,
WITHOUT_CLASSES = 6  # or so many pictures


@dataclass(frozen=True)
class Subject:
    """A network and pictures for it: those to draw, and those to measure."""

    name: Literal["generator", "discriminator"]
    network: Generator | Discriminator
    inputs: Tensor
    """Latents, or pictures in [-1, 1], of the figure's rows."""
    y: Tensor | None
    measured: tuple[Tensor, Tensor | None]
    """Other inputs and their classes, for the table."""
    labels: Sequence[str] | None
    """Class names of the rows."""


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
    truncation: float | None = None,
    smooth: bool = True,
    data: str | None = None,
    device: torch.device = CPU,
) -> tuple[Path, str]:
    """Draws what a run's networks attend to and writes it as .png or .svg; returns where to, and the table.

    Args:
        path: the run's folder; for the generator alone also its generator.safetensors.
        out: file to write; None: attend.png in the run.
        network: the generator is shown pictures of its own, the discriminator pictures of the run's data.
        layer: 'last' (of the forward pass), 'all', a name ('16.0') or a size ('16').
        points: the query points of every picture, (x, y) in pixels; None: five chosen by what each picture shows.
        count: pictures of each class, or in all without classes; None: 1, or 6 without classes.
        classes: names or numbers; none: the first eight.
        seed, truncation: of the latents, as for `sagan sample`; the seed chooses the real pictures too.
        smooth: draw maps smoothly between the keys' centres, not as cells.
        data: source of the images that the discriminator is shown; None: the run's data.
        device: where the networks run.

    Raises:
        UserError: no such run, class, layer, point or data, or no place to write.
    """
    out = out or (path if path.is_dir() else path.parent) / "attend.png"
    subjects = []
    if network != "discriminator":
        subjects.append(generated_subject(path, count, classes, seed, truncation, device))
    if network != "generator":
        subjects.append(real_subject(path, count, classes, seed, device, data))
    chosen = [choose_layers(subject.network, layer) for subject in subjects]
    rows = sum(len(names) * len(subject.inputs) for names, subject in zip(chosen, subjects, strict=True))
    if rows > MOST_ROWS:
        raise UserError(
            f"a figure of {rows} rows is too long: lower --count, or name fewer --classes (up to {MOST_ROWS})"
        )
    if points is not None:
        to_locations(points, subjects[0].network.config.resolution, 1)
    sections, measured = [], []
    for names, subject in zip(chosen, subjects, strict=True):
        statistics = observe_attention(subject.network, *subject.measured).statistics()
        measured.append((subject.name, statistics))
        sections += _sections(subject, names, points, statistics)
    save_figure(draw_maps(sections, smooth=smooth), out)
    return out, format_table(measured)


def draw_attention(
    generator: Generator,
    z: Tensor,
    y: Tensor | None = None,
    *,
    points: Points | None = None,
    layer: str = "last",
    labels: Sequence[str] | None = None,
    smooth: bool = True,
) -> Image.Image:
    """The figure for pictures of a generator: latents z (N, latent_dim), classes y (N,), a row each.

    Args:
        points: query points (Q, 2) or (N, Q, 2), (x, y) in pixels; None: chosen by what each picture shows.
        layer: 'last', 'all', a name or a size.
        labels: one for each row.

    Raises:
        UserError: no such layer (or no self-attention layer at all), or a point outside of the picture.
    """
    subject = Subject("generator", generator, z, y, (z, y), labels)
    statistics = observe_attention(generator, z, y).statistics()
    return to_image(draw_maps(_sections(subject, choose_layers(generator, layer), points, statistics), smooth=smooth))


def choose_layers(network: Generator | Discriminator, layer: str) -> list[str]:
    """'last', 'all', a name ('16.0') or a size ('16') to names. UserError if there is no such layer with maps."""
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
) -> Subject:
    """A run's generator, and latents of `count` pictures of each class: those of `sagan sample`."""
    generator, names, _ = read_generator(path)
    generator = bake_spectral_norm(generator.eval()).to(device)
    wanted, count = _rows(classes, names, count)
    y = torch.tensor(wanted or [0]).repeat_interleave(count)
    y_measured = torch.arange(MEASURED) % max(1, len(names))  # of all classes alike
    z, z_measured = (
        draw_latents(len(labels), generator.config.latent_dim, seed=seed, truncation=truncation)
        for labels in (y, y_measured)
    )
    return Subject("generator", generator, z, y, (z_measured, y_measured), [names[i] for i in y] if names else None)


def real_subject(
    path: Path,
    count: int | None,
    classes: Sequence[str],
    seed: int,
    device: torch.device = CPU,
    data: str | None = None,
) -> Subject:
    """A run's discriminator, and `count` pictures of each class out of the run's data, drawn by the seed.

    Raises:
        UserError: no checkpoint, the data cannot be read or have other classes now, or no such class.
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
    wanted, count = _rows(classes, names, count)
    store = prepare(images, resolution=config.model.resolution, image_channels=config.model.image_channels)
    if store.class_names != names and data is not None:
        shown = ", ".join(map(printable, names[:5])) + (", ..." if len(names) > 5 else "")
        raise UserError(f"--data {data}: its classes must be those of {path}, in class folders: {shown}")
    if store.class_names != names:
        raise UserError(f"{config.data.source} has other classes than {path} was trained on: put it back as it was")
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(store))
    of_classes = [order[store.labels[order] == i][:count] for i in wanted] or [order[:count]]
    chosen = np.concatenate(of_classes)
    if not len(chosen):
        raise UserError(f"--classes {' '.join(classes)}: the run's data hold no picture of it")
    x, y = _pictures(store, chosen)
    measured = _pictures(store, order[-MEASURED:])
    return Subject("discriminator", discriminator, x, y, measured, [names[i] for i in y] if names else None)


def format_table(measured: Sequence[tuple[str, dict[str, LayerStatistics]]]) -> str:
    """A line for each layer of each network: how strongly it is used, and how far it looks."""
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


def _rows(classes: Sequence[str], names: Sequence[str], count: int | None) -> tuple[list[int], int]:
    """The classes to draw, none where there are none, and how many pictures of each."""
    wanted = find_classes(classes, names)
    if not classes:
        wanted = wanted[:CLASSES]
    return wanted, count or (1 if wanted else WITHOUT_CLASSES)


def _pictures(store: Store, chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Pictures (N, C, R, R) in [-1, 1] and labels of the store."""
    return to_signed(store.load_images(chosen)), torch.from_numpy(store.labels[chosen])


def _sections(
    subject: Subject, layers: Sequence[str], points: Points | None, statistics: dict[str, LayerStatistics]
) -> list[MapSection]:
    """A section of the figure for each of the layers."""
    observed = observe_attention(subject.network, subject.inputs, subject.y, layers=layers)
    generated = subject.name == "generator"
    images = to_bytes(observed.output if generated else subject.inputs).permute(0, 2, 3, 1).contiguous().numpy()
    queries = choose_points(images, POINTS) if points is None else points
    maps = observed.maps(queries)
    pixels = np.floor(np.asarray(queries)).astype(np.int64)
    pixels = np.broadcast_to(pixels, (len(images), *pixels.shape[-2:]))
    sections = []
    for name in layers:
        title = f"{subject.name.capitalize()}, layer {name}" + ("" if generated else ", on real pictures")
        maps_NQKK = maps[name].float().cpu().numpy()
        sections.append(MapSection(title, _describe(statistics[name]), images, pixels, maps_NQKK, subject.labels))
    return sections


def _describe(s: LayerStatistics) -> str:
    return (
        f"{s.grid} × {s.grid} queries, {s.keys} × {s.keys} keys   ·   γ {s.gamma:+.3g}   ·   "
        f"|γ·o| / |x| {s.strength:.2g}   ·   mean distance {s.distance:.1f} px, if uniform {s.uniform_distance:.1f} px"
    )
