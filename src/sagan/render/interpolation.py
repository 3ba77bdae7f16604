"""Interpolate between latents and between classes of a run's generator, as a grid, GIF or MP4.

A walk is one such path, e.g. between two latents of a class.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from sagan.device import CPU
from sagan.errors import UserError
from sagan.figures.grid import animate, check_page, default_scale, save
from sagan.figures.interpolation import draw_film, draw_walks, walk_classes, walk_latents
from sagan.figures.labels import class_labels
from sagan.files import write_atomically
from sagan.marks import FILM_KEY, figure_text
from sagan.model.generator import Generator
from sagan.render.latents import read_latents
from sagan.render.outputs import check_writable, class_stems, default_path, latents_stem
from sagan.run import load_generator
from sagan.sampling import draw_latents, find_classes, sample_batches

MAX_CLASSES = 8  # classes drawn by default
UNCONDITIONAL_COUNT = 8  # walks drawn by default without classes
FILM_COLUMNS = 4  # walks next to each other in a film, at most
FILM_WIDTH = 256  # target width of these walks together, in pixels of the generator; larger images get fewer columns
GRID_STEPS = 9  # least number of images along a walk in a grid
LATENTS_OF_LOOP = 3  # latents that a closed walk passes through
FRAMES_PER_SECOND = {".gif": 12.5, ".mp4": 25.0}
SHORTEST_FRAME = 0.02  # seconds; browsers slow down a faster GIF
MAX_IMAGES = 50_000  # images of one figure or film
MAX_FILM_PIXELS = 300_000_000  # of all frames of a film, which are in memory
PAGE_WIDTH = 4000  # pixels after which a walk is continued on the next row
BETWEEN_CLASSES = "through classes"


def write_interpolation(
    path: Path,
    out: Path | None = None,
    *,
    steps: int | None = None,
    count: int | None = None,
    classes: Sequence[str] = (),
    seconds: float = 6.0,
    seed: int = 0,
    seeds: Sequence[int] = (),
    latents: Path | None = None,
    truncation: float | None = None,
    scale: int | None = None,
    device: torch.device = CPU,
) -> Path:
    """Draw walks between latents within each class, and through the classes; write them, and return where.

    Args:
        path: the run's folder, its generator.safetensors, or one of its checkpoints.
        out: a .png gets one row per walk. A .gif or .mp4 shows closed walks at the same time, so that it repeats
            without a jump. None: interpolation.png in the run, or with other options than the defaults a name that
            tells them.
        steps: images along a walk; None: in a grid at least 9, so that every class, or every given latent, and a point
            between two of them is shown; in a GIF 12.5 per second, in an MP4 25.
        count: walks within each class, and through the classes; None: 1 in a grid, up to 4 in a GIF or MP4; 8 without
            classes.
        classes: names or numbers; none: the first eight.
        seconds: length of a GIF or MP4.
        seed: seed of the latents.
        seeds: several seeds, through whose first latents the walks pass in order.
        latents: a .npy file of latents (N, latent_dim) through which the walks pass in order.
        truncation: magnitude to which latents are truncated.
        scale: magnification of the images; None: at least to 64 pixels.
        device: where the generator runs.

    Raises:
        UserError: there is no such run or class, the file cannot be written, the images are too many, or the packages
            for MP4 are missing.
    """
    generator, names, step = load_generator(path, device)
    resolution, latent_dim = generator.config.resolution, generator.config.latent_dim

    # Choose the format.
    if out is None:
        values: dict[str, Any] = {"steps": steps, "count": count, "_classes": tuple(classes), "seed": seed}
        values |= {"seeds": tuple(seeds), "_latents": latents, "truncation": truncation, "scale": scale}
        out = _default_path(path, values)
    suffix = out.suffix.lower()
    if suffix not in (".png", *FRAMES_PER_SECOND):
        raise UserError(f"--out {out}: pass a .png (a grid), a .gif or an .mp4")
    is_film = suffix in FRAMES_PER_SECOND
    check_writable(out)
    if suffix == ".mp4":
        import_imageio()

    # Choose classes, walks and steps.
    numbers = find_classes(classes, names)
    if not classes:
        numbers = numbers[:MAX_CLASSES]
    columns = min(FILM_COLUMNS, max(1, FILM_WIDTH // resolution))
    given = None if latents is None else read_latents(latents, latent_dim)
    if given is not None and len(given) < 2:
        raise UserError(f"--latents {latents} holds one latent: a walk needs two or more")
    passed = len(seeds) if given is None else len(given)  # latents that a walk passes through; 0: drawn from the seed
    if count is None:
        count = 1 if passed else UNCONDITIONAL_COUNT if not numbers else columns if is_film else 1
    if steps is None:
        steps = max(2, round(seconds * FRAMES_PER_SECOND[suffix])) if is_film else _grid_steps(passed or len(numbers))
    if suffix == ".gif" and seconds / steps < SHORTEST_FRAME:
        raise UserError(f"--steps {steps}: a GIF shows at most 50 images per second; lower --steps or raise --seconds")
    groups = max(1, len(numbers)) + (len(numbers) > 1)  # of walks: one per class, and one through the classes
    total = count * steps * groups
    if total > MAX_IMAGES:
        raise UserError(f"--steps {steps}, --count {count}: {total:,} images are too many (at most {MAX_IMAGES:,})")
    tile = resolution * (scale or default_scale(resolution))
    row = max(_grid_steps(len(numbers)), PAGE_WIDTH // tile)  # images in a row of a grid
    advice = "lower --steps, --count or --scale, or choose fewer --classes"
    if not is_film:
        wide = -(-steps // row) * row if steps > row else steps
        check_page(count * groups * wide, min(steps, row), resolution, resolution, scale, advice)
    elif total * tile**2 > MAX_FILM_PIXELS:
        at_most = f"at most {MAX_FILM_PIXELS // 1_000_000} million pixels"
        raise UserError(f"a film of {total:,} images of {tile} x {tile} pixels is too large ({at_most}): {advice}")

    # Choose the latents that the walks pass through.
    z = None
    if given is not None:
        z = torch.from_numpy(np.array(given, np.float32))[None]
    elif seeds:
        z = torch.cat([draw_latents(1, latent_dim, seed=each, truncation=truncation) for each in seeds])[None]

    # Draw and write.
    images = draw_images(generator, numbers, steps, count, closed=is_film, seed=seed, truncation=truncation, through=z)
    labels = class_labels(names, numbers)
    if len(numbers) > 1:
        labels.append(BETWEEN_CLASSES)
    if is_film:
        frames = draw_film(images, columns=count if numbers else columns, labels=labels or None, scale=scale)
        write = animate if suffix == ".gif" else write_video
        write(frames, out, seconds / steps, step=step)
    else:
        row_labels = [label if i == 0 else "" for label in labels for i in range(count)]
        grid = draw_walks(images, row_labels or None, columns=row, scale=scale)
        save(grid, out, step=step)
    return out


def draw_images(
    generator: Generator,
    classes: Sequence[int],
    steps: int,
    count: int,
    *,
    closed: bool,
    seed: int = 0,
    truncation: float | None = None,
    through: Tensor | None = None,
) -> NDArray[np.uint8]:
    """Draw the images (W, steps, H, W, C) uint8 along W walks.

    The walks are `count` within each class, then `count` through all classes if there are several; without classes,
    `count` walks. Within a class the latent moves, along the same path for each class; through the classes it is
    constant. Open walks lead from one latent to another, closed ones through three and back. Walk i depends on the
    seed, the class and i, and on nothing else.

    Args:
        through: latents (count, P, latent_dim) that the walks pass through instead of latents of the seed.
    """
    model = generator.config
    num_latents = LATENTS_OF_LOOP if closed else 2
    if through is None:
        z = draw_latents(count * num_latents, model.latent_dim, seed=seed, truncation=truncation)
        z = z.view(count, num_latents, -1)
    else:
        z = through
    moving = walk_latents(z.transpose(0, 1), steps, closed=closed).transpose(0, 1)  # (count, steps, latent_dim)
    if not classes:
        z_walks = moving
        y_walks = torch.zeros(count, steps, dtype=torch.int64)
    else:
        z_groups = [moving] * len(classes)
        y_groups = F.one_hot(torch.tensor(classes), model.num_classes).float()[:, None].expand(-1, steps, -1)
        if len(classes) > 1:
            z_groups.append(z[:, :1].expand(-1, steps, -1))
            y_groups = torch.cat([y_groups, walk_classes(classes, model.num_classes, steps, closed=closed)[None]])
        z_walks = torch.cat(z_groups)
        y_walks = y_groups.repeat_interleave(count, 0)
    z_all, y_all = z_walks.flatten(0, 1), y_walks.flatten(0, 1)
    batches = []
    with tqdm(total=len(z_all), unit="images", desc="interpolating", disable=None) as bar:  # None: only on a terminal
        for batch in sample_batches(generator, z_all, y_all):
            batches.append(batch.permute(0, 2, 3, 1).numpy())
            bar.update(len(batch))
    return np.concatenate(batches).reshape(len(z_walks), steps, *batches[0].shape[1:])


def write_video(
    frames: Sequence[Image.Image], path: Path, seconds_per_frame: float, *, step: int | None = None
) -> None:
    """Write frames of one size as an MP4 (H.264), atomically; its comment marks it as `figures.grid.save` does.

    Raises:
        UserError: imageio or its ffmpeg is missing, or the file cannot be written.
    """
    imageio = import_imageio()
    # H.264 as every player supports it halves the resolution of the colours: pad to even sides, or it would scale.
    arrays = [np.asarray(frame.convert("RGB")) for frame in frames]
    height, width, _ = arrays[0].shape
    even = ((0, height % 2), (0, width % 2), (0, 0))
    arrays = [np.pad(array, even, constant_values=255) for array in arrays]
    options: dict[str, Any] = {"fps": 1 / seconds_per_frame, "codec": "libx264", "quality": 8, "macro_block_size": 2}
    options["output_params"] = ["-metadata", f"comment={FILM_KEY}{figure_text(step)}"]
    write_atomically(path, lambda temporary: imageio.mimwrite(temporary, arrays, format="FFMPEG", **options))


def import_imageio() -> ModuleType:
    """Import imageio, and check that its ffmpeg is installed.

    Raises:
        UserError: one of them is missing.
    """
    try:
        import imageio.v2 as imageio
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise UserError(
            "an .mp4 requires imageio and ffmpeg: pip install 'sagan-torch[video]', or write a .gif"
        ) from error
    return imageio


def _default_path(path: Path, values: dict[str, Any]) -> Path:
    """Return interpolation.png in the run, or with other values than the defaults a name that tells them."""
    options = {name: value for name, value in values.items() if value not in (None, (), 0)}
    if "_classes" in options:
        options["_classes"] = class_stems(path, options["_classes"])
    if "_latents" in options:
        options["_latents"] = latents_stem(options["_latents"])
    return default_path(path, "interpolation", ".png", options)


def _grid_steps(count: int) -> int:
    """Return the number of columns that shows each of `count` and as many images between any two, at least 9."""
    legs = max(1, count - 1)
    least = 2 if count > 1 else 1  # columns per leg
    return legs * max(least, -(-(GRID_STEPS - 1) // legs)) + 1
