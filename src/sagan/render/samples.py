"""Pictures out: drawn from a run and written as a labelled grid, single PNGs or arrays."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sagan.device import CPU
from sagan.distributed import Processes
from sagan.errors import UserError
from sagan.figures.grid import draw_grid, save
from sagan.files import write_atomically
from sagan.model.spectral_norm import bake_spectral_norm
from sagan.run import read_generator
from sagan.sampling import BATCH, draw_latents, find_classes, sample


def write_samples(
    run: Path,
    out: Path | None,
    *,
    count: int,
    classes: Sequence[str],
    seed: int,
    truncation: float | None,
    device: torch.device = CPU,
    share: Processes | None = None,
) -> Path:
    """Draws `count` pictures of each class on a device and writes them; returns where to.

    A path that ends in .png gets a grid with a row for each class, .npz the arrays images (N, H, W, C) uint8 and
    labels (N,) int64, anything else is a folder of single PNGs. Processes that `share` the drawing all call this, and
    the first one writes.

    Raises:
        UserError: no such run, class or place to write.
    """
    generator, names, _ = read_generator(run)
    generator = bake_spectral_norm(generator.eval()).to(device)
    out = out or (run if run.is_dir() else run.parent) / f"samples-{seed}.png"
    wanted = find_classes(classes, names)
    y = torch.tensor(wanted or [0]).repeat_interleave(count)
    z = draw_latents(len(y), generator.config.latent_dim, seed=seed, truncation=truncation)
    share = share or Processes(torch.device("cpu"))
    drawn = share.map(
        lambda i: sample(generator, *(t[i * BATCH : (i + 1) * BATCH] for t in (z, y))), -(-len(z) // BATCH)
    )
    if not share.is_first:
        return out
    images = np.concatenate(drawn)
    if out.suffix.lower() == ".png":
        columns = count if wanted else max(1, round(count**0.5))
        save(draw_grid(images, columns=columns, row_labels=[names[i] for i in wanted] or None), out)
    elif out.suffix.lower() == ".npz":
        write_atomically(out, lambda path: np.savez(path, images=images, labels=y.numpy()))
    elif out.suffix:
        raise UserError(f"--out {out}: give a .png (a grid), a .npz (arrays) or a folder (single PNGs)")
    else:
        for i, picture in enumerate(images):
            label = f"{_file_name(names[y[i]])}-" if names else ""
            save(Image.fromarray(picture.squeeze()), out / f"{label}{i % count:05d}.png")
    return out


def _file_name(class_name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in class_name)
