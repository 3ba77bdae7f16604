"""Draw samples from a run and write them as a labelled grid, single PNGs or arrays."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sagan.device import CPU
from sagan.distributed import Processes
from sagan.errors import UserError
from sagan.figures.grid import draw_grid, mark_sample, save
from sagan.files import write_atomically
from sagan.run import default_output, load_generator
from sagan.sampling import BATCH, draw_latents, find_classes, sample


def write_samples(
    path: Path,
    out: Path | None,
    *,
    count: int,
    classes: Sequence[str],
    seed: int,
    truncation: float | None,
    device: torch.device = CPU,
    processes: Processes | None = None,
) -> Path:
    """Draw `count` images of each class, write them, and return where.

    Args:
        path: the run's folder, its generator.safetensors, or one of its checkpoints.
        out: a .png gets a grid with one row per class, a .npz the arrays images (N, H, W, C) uint8 and labels (N,)
            int64, a folder one PNG per image. None: samples-SEED.png in the run.
        count: images of each class; without classes, images in total.
        classes: names or numbers; none: all classes.
        seed: seed of the latents.
        truncation: magnitude to which latents are truncated.
        device: where the generator runs.
        processes: distributed processes that draw together. All of them call this function; the first one writes.

    Raises:
        UserError: there is no such run or class, or the file cannot be written.
    """
    generator, names, _ = load_generator(path, device)
    out = out or default_output(path, f"samples-{seed}.png")
    processes = processes or Processes(torch.device("cpu"))

    # Draw.
    numbers = find_classes(classes, names)
    y = torch.tensor(numbers or [0]).repeat_interleave(count)
    z = draw_latents(len(y), generator.config.latent_dim, seed=seed, truncation=truncation)

    def draw_batch(i: int) -> np.ndarray:
        batch = slice(i * BATCH, (i + 1) * BATCH)
        return sample(generator, z[batch], y[batch])

    batches = processes.map(draw_batch, -(-len(z) // BATCH))
    if not processes.is_first:
        return out

    # Write.
    images = np.concatenate(batches)
    if out.suffix.lower() == ".png":
        columns = count if numbers else max(1, round(count**0.5))
        save(draw_grid(images, columns=columns, row_labels=[names[i] for i in numbers] or None), out)
    elif out.suffix.lower() == ".npz":
        write_atomically(out, lambda temporary: np.savez(temporary, images=images, labels=y.numpy()))
    elif out.suffix:
        raise UserError(f"--out {out}: pass a .png (a grid), a .npz (arrays) or a folder (single PNGs)")
    else:
        for i, image in enumerate(images):
            label = f"{_file_name(names[y[i]])}-" if names else ""
            save(mark_sample(Image.fromarray(image.squeeze())), out / f"{label}{i % count:05d}.png")
    return out


def _file_name(class_name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in class_name)
