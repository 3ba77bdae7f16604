"""Draw samples from a run and write them as a labelled grid, or in constant memory as PNGs or arrays."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from sagan.device import CPU
from sagan.distributed import Processes
from sagan.errors import UserError
from sagan.figures.grid import check_page, default_scale, draw_grid, mark_sample, png_marks, save, wrap_rows
from sagan.figures.labels import class_labels
from sagan.files import write_atomically, write_npy_header
from sagan.marks import SEARCHED, checksum_of
from sagan.model.generator import Generator
from sagan.model.spectral_norm import for_inference
from sagan.render.latents import read_latents
from sagan.render.outputs import (
    check_space,
    check_writable,
    default_path,
    file_names,
    is_folder,
    latents_stem,
    number_text,
)
from sagan.run import read_generator
from sagan.sampling import SAMPLE_BATCH, SampleSet, find_classes, sample

MAX_IMAGES = 1_000_000  # of one command
COUNT = 8  # images of each class by default
_ACCEPTED = "a .png (a grid), a .npz (arrays), a .zip (PNGs) or a folder (PNGs)"
_PAGE_WIDTH = 1600  # pixels after which a row of a grid is continued on the next one
_ROW = 8  # images that a row has at least
_BLOCK = 4096  # bytes that a file occupies at least
_COMPRESSION = 8  # by which PNG shrinks images, generously

Batches = Iterator[NDArray[np.uint8]]


@dataclass(frozen=True)
class _Job:
    """What is drawn, and how it is written."""

    images: SampleSet
    class_names: Sequence[str]
    shape: tuple[int, int, int]
    """Height, width and channels of an image as the generator draws it."""
    scale: int | None
    checksum: str = ""
    """Checksum of the weights and latents from which the images are drawn, for the marks of single images."""

    @property
    def written_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image as it is written."""
        height, width, channels = self.shape
        return height * (self.scale or 1), width * (self.scale or 1), channels

    def name(self, i: int, stems: Sequence[str]) -> str:
        """Return the file name of image i, which no other class, seed or truncation has."""
        label, seed, k = self.images.place(i)
        parts = [] if label is None else [stems[label]]
        if seed is None:
            parts.append("latent")
        elif seed or len(self.images.seeds) > 1:
            parts.append(f"seed{seed}")
        if self.images.truncation is not None:
            parts.append(f"truncation{number_text(self.images.truncation)}")
        if self.scale:
            parts.append(f"scale{self.scale}")
        return "-".join([*parts, f"{k:05d}.png"])


def write_samples(
    path: Path,
    out: Path | None,
    *,
    count: int | None = None,
    classes: Sequence[str] = (),
    seed: int = 0,
    seeds: Sequence[int] = (),
    latents: Path | None = None,
    truncation: float | None = None,
    scale: int | None = None,
    device: torch.device = CPU,
    processes: Processes | None = None,
) -> Path:
    """Draw `count` images of each class, write them, and return where.

    Args:
        path: the run's folder, its generator.safetensors, or one of its checkpoints.
        out: a .png gets a grid with a row or more per class, a .npz the arrays images (N, H, W, C) uint8 and labels
            (N,) int64, a .zip or a folder one PNG per image. None: a .png in the run, whose name tells the options.
        count: images of each class and seed; without classes, images in total. None: 8, or 1 with `seeds`.
        classes: names or numbers; none: all classes.
        seed: seed of the latents.
        seeds: several seeds, instead of `seed`.
        latents: a .npy file of latents (N, latent_dim) to draw for each class, instead of seeds, count and truncation.
        truncation: magnitude to which latents are truncated.
        scale: magnification of the images without smoothing; None: 1, in grids at least to 64 pixels.
        device: where the generator runs.
        processes: distributed processes that draw together. All of them call this function; the first one writes.

    Raises:
        UserError: there is no such run, class or file of latents, there are too many images, or the file cannot be
            written or has another image of a name in it.
    """
    # Say what is drawn.
    stored, names, step = read_generator(path)
    model = stored.config
    numbers = list(dict.fromkeys(find_classes(classes, names)))
    images = SampleSet(
        model.latent_dim,
        count or (1 if seeds else COUNT),
        numbers,
        tuple(dict.fromkeys(seeds)) or (seed,),
        truncation,
        None if latents is None else read_latents(latents, model.latent_dim),
    )
    shape = (model.resolution, model.resolution, model.image_channels)
    job = _Job(images, names, shape, scale)

    # Check that it can be written.
    if out is None:
        out = _default_path(path, job, count, classes, seed, seeds, latents)
    folder = is_folder(out, (".png", ".npz", ".zip"), _ACCEPTED)
    suffix = "" if folder else out.suffix.lower()
    check_writable(out, folder=folder)
    _check_size(job, out, suffix)
    if suffix in ("", ".zip"):
        job = replace(job, checksum=_checksum(stored, images))
    if folder:
        _check_folder(job, out)

    # Draw and write, batch by batch.
    generator = for_inference(stored, device)
    processes = processes or Processes(torch.device("cpu"))
    batches = _draw(generator, images, processes)
    if not processes.is_first:
        for _ in batches:
            pass
    elif suffix == ".png":
        save(draw_page(np.concatenate(list(batches)), images, names, scale), out, step=step)
    elif suffix == ".npz":
        write_atomically(out, lambda temporary: _write_arrays(temporary, job, batches))
    elif suffix == ".zip":
        write_atomically(out, lambda temporary: _write_archive(temporary, job, batches))
    else:
        _write_folder(out, job, batches)
    return out


def draw_page(
    drawn: NDArray[np.uint8], images: SampleSet, class_names: Sequence[str], scale: int | None = None
) -> Image.Image:
    """Draw images (N, H, W, C) as a labelled grid: a row or more per class, without classes about a square."""
    columns = _columns(images, drawn.shape[2], scale)
    if not images.labels:
        return draw_grid(drawn, columns=columns, scale=scale)
    by_class = drawn.reshape(len(images.labels), images.per_class, *drawn.shape[1:])
    tiles, labels = wrap_rows(by_class, class_labels(class_names, images.labels), columns)
    above = None
    if columns == images.per_class and len(images.seeds) > 1 and images.latents is None:
        above = [f"seed {images.place(i)[1]}" for i in range(columns)]
    return draw_grid(tiles, columns=columns, row_labels=labels, column_labels=above, scale=scale)


def _columns(images: SampleSet, width: int, scale: int | None) -> int:
    """Return the images per row of a grid: multiples of eight within the width of a page, or all if they are fewer."""
    fitting = max(_ROW, _PAGE_WIDTH // (width * (scale or default_scale(width))) // _ROW * _ROW)
    wanted = images.per_class if images.labels else max(1, round(images.per_class**0.5))
    return min(wanted, fitting)


def _default_path(
    path: Path,
    job: _Job,
    count: int | None,
    classes: Sequence[str],
    seed: int,
    seeds: Sequence[int],
    latents: Path | None,
) -> Path:
    images = job.images
    options: dict[str, object] = {}
    if classes:
        stems = file_names(job.class_names)
        options["_classes"] = [stems[label] for label in images.labels]
    if count is not None:
        options["count"] = count
    if images.truncation is not None:
        options["truncation"] = number_text(images.truncation)
    if job.scale is not None:
        options["scale"] = job.scale
    end = str(seed)
    if latents is not None:
        options["_latents"] = latents_stem(latents)
        end = ""
    elif seeds:
        options["seeds"] = ",".join(map(str, images.seeds))
        end = ""
    return default_path(path, "samples", ".png", options, end)


def _check_size(job: _Job, out: Path, suffix: str) -> None:
    """Check that the images are not too many for the memory or the disk."""
    images = job.images
    if suffix == ".png":
        height, width, _ = job.shape
        columns = _columns(images, width, job.scale)
        tiles = -(-images.per_class // columns) * columns * max(1, len(images.labels))
        advice = "lower --count or --scale, choose fewer --classes, or write single images (--out FOLDER)"
        return check_page(tiles, columns, height, width, job.scale, advice)
    if images.total > MAX_IMAGES:
        advice = "lower --count, and draw more with other seeds"
        raise UserError(f"{images.total:,} images are too many for one command (at most {MAX_IMAGES:,}): {advice}")
    pixels = int(np.prod(job.written_shape))
    if suffix == ".npz":
        each = pixels + 8
    elif suffix == ".zip":
        each = int(np.prod(job.shape)) // _COMPRESSION + 200
    else:
        each = max(_BLOCK, int(np.prod(job.shape)) // _COMPRESSION)
    return check_space(out, images.total * each)


def _checksum(stored: Generator, images: SampleSet) -> str:
    """Return a checksum, 16 hexadecimal digits, of a generator as it is stored, and of the latents of a file."""
    digest = hashlib.sha256()
    for name, tensor in stored.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    if images.latents is not None:
        digest.update(images.latents.astype(np.float32).tobytes())
    return digest.hexdigest()[:16]


def _check_folder(job: _Job, folder: Path) -> None:
    """Check that every file that would be replaced holds the same image.

    Raises:
        UserError: one is of other weights or latents, or not a sample.
    """
    existing = set(os.listdir(folder)) if folder.is_dir() else set()
    if not existing:
        return
    stems = file_names(job.class_names)
    for i in range(job.images.total):
        name = job.name(i, stems)
        if name in existing and _checksum_in(folder / name) != job.checksum:
            raise UserError(
                f"--out {folder}: {name} exists and is another image, of other weights or latents or not from sagan "
                "sample: choose another folder"
            )


def _checksum_in(path: Path) -> str | None:
    """Return the checksum in an image's mark; None if it has none, or is not a file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return checksum_of(file.read(SEARCHED))


def _draw(generator: Generator, images: SampleSet, processes: Processes) -> Batches:
    """Draw images (n, H, W, C), batch by batch; distributed processes draw as many batches at a time as they are."""
    batches = -(-images.total // SAMPLE_BATCH)
    with tqdm(total=images.total, unit="images", desc="drawing", disable=None if processes.is_first else True) as bar:
        for first in range(0, batches, processes.count):

            def draw_batch(i: int, first: int = first) -> NDArray[np.uint8]:
                start = (first + i) * SAMPLE_BATCH
                return sample(generator, *images.inputs(start, start + SAMPLE_BATCH))

            for batch in processes.map(draw_batch, min(processes.count, batches - first)):
                yield batch
                bar.update(len(batch))


def _enlarge(image: NDArray[np.uint8], scale: int | None, axis: int = 0) -> NDArray[np.uint8]:
    """Repeat the pixels of an image (H, W, C), or with `axis` 1 of images (N, H, W, C)."""
    return image if scale in (None, 1) else image.repeat(scale, axis).repeat(scale, axis + 1)


def _write_arrays(path: Path, job: _Job, batches: Batches) -> None:
    """Write a .npz file, as np.savez would write all of it."""
    images = job.images
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as file:
            write_npy_header(file, np.dtype(np.uint8), (images.total, *job.written_shape))
            for batch in batches:
                file.write(np.ascontiguousarray(_enlarge(batch, job.scale, axis=1)).data)
        with archive.open("labels.npy", "w", force_zip64=True) as file:
            write_npy_header(file, np.dtype(np.int64), (images.total,))
            for label in images.labels or (0,):
                _write_repeated(file, np.int64(label).tobytes(), images.per_class)


def _write_repeated(file: IO[bytes], item: bytes, count: int) -> None:
    block = item * min(count, 2**16)
    for start in range(0, count, 2**16):
        file.write(block[: len(item) * (count - start)])


def _write_archive(path: Path, job: _Job, batches: Batches) -> None:
    """Write a .zip of PNGs with a dataset.json of their labels, as `sagan data` and StyleGAN's tools read it."""
    stems = file_names(job.class_names)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for i, image in enumerate(_singles(batches)):
            archive.writestr(zipfile.ZipInfo(job.name(i, stems)), _to_png(image, job))
        if job.images.labels:
            with archive.open("dataset.json", "w") as file:
                file.write(b'{"labels": [')
                for i in range(job.images.total):
                    entry = json.dumps([job.name(i, stems), job.images.place(i)[0]])
                    file.write((", " if i else "").encode() + entry.encode())
                file.write(b"]}")


def _write_folder(folder: Path, job: _Job, batches: Batches) -> None:
    """Write a PNG per image. If it is interrupted, the files there are intact."""
    stems = file_names(job.class_names)
    written = 0
    try:
        for i, image in enumerate(_singles(batches)):
            data = _to_png(image, job)
            _write_bytes(folder / job.name(i, stems), data)
            written += 1
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"{written:,} of {job.images.total:,} images are in {folder}") from stop


def _write_bytes(path: Path, data: bytes) -> None:
    write_atomically(path, lambda temporary: temporary.write_bytes(data), sync=False)


def _singles(batches: Batches) -> Iterator[NDArray[np.uint8]]:
    for batch in batches:
        yield from batch


def _to_png(image: NDArray[np.uint8], job: _Job) -> bytes:
    file = io.BytesIO()
    marked = mark_sample(Image.fromarray(_enlarge(image, job.scale).squeeze()), job.checksum)
    marked.save(file, format="PNG", pnginfo=png_marks(marked))
    return file.getvalue()
