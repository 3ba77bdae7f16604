"""Walks of a run's generator between latents and between classes, written as a grid, GIF or MP4."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from sagan.device import CPU
from sagan.errors import UserError
from sagan.figures.grid import animate, save
from sagan.figures.interpolation import draw_film, draw_walks, walk_classes, walk_latents
from sagan.files import write_atomically
from sagan.model.generator import Generator
from sagan.model.spectral_norm import bake_spectral_norm
from sagan.run import read_generator
from sagan.sampling import draw_latents, find_classes, sample_batches

CLASSES = 8  # by default
WITHOUT_CLASSES = 8  # walks, and
FILM_COLUMNS = 4  # of them side by side
FILM_WIDTH = 256  # of these pictures together, in pixels, which large ones are fewer for
GRID_STEPS = 9
LATENTS_OF_LOOP = 3  # that a film passes through
FRAMES_A_SECOND = {".gif": 12.5, ".mp4": 25.0}
SHORTEST_FRAME = 0.02  # seconds; browsers slow a faster GIF down
MOST_PICTURES = 50_000
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
    truncation: float | None = None,
    device: torch.device = CPU,
) -> Path:
    """Draws walks through latents within each class, and through the classes, and writes them; returns where to.

    Args:
        path: the run's folder, or its generator.safetensors.
        out: a .png gets a row for each walk; a .gif or .mp4 gets closed walks, all at once, so that it repeats without
            a jump. None: interpolation.png in the run.
        steps: pictures along a walk; None: 9 in a grid, or as many as show each class and what is between; in a GIF
            12.5, in an MP4 25 for each second.
        count: walks within each class, and through the classes; None: 1 in a grid, up to 4 in a GIF or MP4; 8 without
            classes.
        classes: names or numbers; none: the first eight.
        seconds: length of a GIF or MP4.
        seed, truncation: of the latents.
        device: where the generator runs.

    Raises:
        UserError: no such run, class or place to write, too many pictures, or the packages for MP4 are missing.
    """
    generator, names, _ = read_generator(path)
    generator = bake_spectral_norm(generator.eval()).to(device)
    out = out or (path if path.is_dir() else path.parent) / "interpolation.png"
    kind = out.suffix.lower()
    if kind not in (".png", *FRAMES_A_SECOND):
        raise UserError(f"--out {out}: give a .png (a grid), a .gif or an .mp4")
    film = kind != ".png"
    if kind == ".mp4":
        import_imageio()
    chosen = find_classes(classes, names)
    if not classes:
        chosen = chosen[:CLASSES]
    columns = min(FILM_COLUMNS, max(1, FILM_WIDTH // generator.config.resolution))
    count = count or ((columns if film else 1) if chosen else WITHOUT_CLASSES)
    steps = steps or (max(2, round(seconds * FRAMES_A_SECOND[kind])) if film else _steps_of_grid(len(chosen)))
    if kind == ".gif" and seconds / steps < SHORTEST_FRAME:
        raise UserError(f"--steps {steps}: a GIF shows 50 pictures a second at most; give fewer, or more --seconds")
    pictures = count * steps * (len(chosen) + (len(chosen) > 1) or 1)
    if pictures > MOST_PICTURES:
        raise UserError(f"--steps {steps}, --count {count}: {pictures:,} pictures; {MOST_PICTURES:,} at most")
    images = draw_images(generator, chosen, steps, count, closed=film, seed=seed, truncation=truncation)
    labels = [names[i] for i in chosen] + [BETWEEN_CLASSES] * (len(chosen) > 1)
    if film:
        frames = draw_film(images, columns=count if chosen else columns, labels=labels or None)
        (animate if kind == ".gif" else write_video)(frames, out, seconds / steps)
    else:
        rows = [label if i == 0 else "" for label in labels for i in range(count)]
        save(draw_walks(images, rows or None), out)
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
) -> NDArray[np.uint8]:
    """The pictures (W, steps, H, W, C) uint8 along W walks: `count` within each class, then `count` through them all.

    The latents are the same for each class; where the walk goes through classes, they stand still. Open walks lead
    from one latent to another, closed ones through three. Without classes, `count` walks.
    """
    model = generator.config
    number = LATENTS_OF_LOOP if closed else 2
    z = draw_latents(count * number, model.latent_dim, seed=seed, truncation=truncation).view(count, number, -1)
    moving = walk_latents(z.transpose(0, 1), steps, closed=closed).transpose(0, 1)  # (count, steps, D)
    if not classes:
        z_walks, y_walks = moving, torch.zeros(count, steps, dtype=torch.int64)
    else:
        still = z[:, :1].expand(-1, steps, -1)
        within = F.one_hot(torch.tensor(classes), model.num_classes).float()[:, None].expand(-1, steps, -1)
        through = walk_classes(classes, model.num_classes, steps, closed=closed)
        several = len(classes) > 1
        z_walks = torch.cat([moving] * len(classes) + [still] * several)
        y_walks = torch.cat([within, through[None]] if several else [within]).repeat_interleave(count, 0)
    z_all, y_all = z_walks.flatten(0, 1), y_walks.flatten(0, 1)
    drawn = []
    with tqdm(total=len(z_all), unit="images", desc="walking", disable=None) as bar:  # None: off where nobody watches
        for batch in sample_batches(generator, z_all, y_all):
            drawn.append(batch.permute(0, 2, 3, 1).numpy())
            bar.update(len(batch))
    return np.concatenate(drawn).reshape(len(z_walks), steps, *drawn[0].shape[1:])


def write_video(frames: Sequence[Image.Image], path: Path, seconds_per_frame: float) -> None:
    """Writes frames of one size as an MP4 (H.264), whole or not at all.

    Raises:
        UserError: imageio or its ffmpeg is missing, or the file cannot be written.
    """
    imageio = import_imageio()
    # H.264 as every player takes it halves the colours' resolution: even sides, or it would stretch the picture.
    arrays = [np.asarray(frame.convert("RGB")) for frame in frames]
    height, width, _ = arrays[0].shape
    even = ((0, height % 2), (0, width % 2), (0, 0))
    arrays = [np.pad(array, even, constant_values=255) for array in arrays]
    options = {"fps": 1 / seconds_per_frame, "codec": "libx264", "quality": 8, "macro_block_size": 2}
    write_atomically(path, lambda temporary: imageio.mimwrite(temporary, arrays, format="FFMPEG", **options))


def import_imageio() -> ModuleType:
    """imageio, with its ffmpeg. UserError if they are not installed."""
    try:
        import imageio.v2 as imageio
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise UserError("an .mp4 needs imageio and ffmpeg: pip install 'sagan[video]', or give a .gif") from error
    return imageio


def _steps_of_grid(classes: int) -> int:
    """Columns that show each of the classes and as much between any two, 9 or more."""
    legs = max(1, classes - 1)
    return legs * max(2 if classes > 1 else 1, -(-(GRID_STEPS - 1) // legs)) + 1
