"""Read the two sets of images that an evaluation compares, with their features: a generator's, or those of a source."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sagan.config import DataConfig, EvaluationConfig
from sagan.data import Store, prepare
from sagan.data.diff import note_on_changes
from sagan.data.open import first_size
from sagan.data.sources import BUILT_IN
from sagan.data.store import cache_folder
from sagan.distributed import Processes
from sagan.errors import UserError
from sagan.files import sha256
from sagan.locate import check_present
from sagan.metrics.features import BATCH, Features, extract
from sagan.metrics.patch_correlation import PatchReader
from sagan.metrics.reference import choose, reference_features
from sagan.metrics.statistics import Statistics
from sagan.model.config import ModelConfig
from sagan.model.spectral_norm import for_inference
from sagan.run import Run, read_generator
from sagan.sampling import draw_latents, estimate_statistics, sample_batches, use_batch_statistics
from sagan.text import as_class_names, printable
from sagan.trained import find


@dataclass(frozen=True)
class ImageSet:
    """A set of images, which need not fit into memory."""

    about: dict[str, Any]
    read: Callable[[int, int], Tensor]
    """Read the images from i to j, (j - i, C, H, W) uint8; i is a multiple of BATCH where batch statistics matter."""
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    features: np.ndarray
    patches: NDArray[np.float64] | None
    """Patch values (N, D); None: not wanted."""
    remarks: tuple[str, ...] = ()
    """Cautions for the reader of the metrics."""


def is_generator(path: Path) -> bool:
    """Return whether a path is a run, a generator or a checkpoint, and not a source of images."""
    return path.suffix == ".safetensors" or (find(path) / "config.json").is_file()


def read_generated(
    generated: str,
    reference: str | Statistics | None,
    config: EvaluationConfig,
    network: Features,
    processes: Processes,
    cache: str,
) -> tuple[ImageSet, ImageSet | Statistics]:
    """Return the images of a generator, and those that they are compared with; without a reference, its run's data.

    Raises:
        UserError: the generator or the reference cannot be read, or they do not fit.
    """
    # Load the generator, and read what it is compared with.
    path = Path(generated)
    generator, names, step = read_generator(path, averaged=config.ema)
    model = generator.config
    if config.resolution not in (None, model.resolution):
        raise UserError(f"--resolution {config.resolution}: the images of {path} are {model.resolution} px wide")
    theirs: ImageSet | Statistics
    store = None
    if isinstance(reference, Statistics):
        theirs = reference
        size = (model.image_channels, model.resolution, model.resolution)
        reference.check_dimensions(network, size, processes.device)
    else:
        store, theirs = _read_reference(path, reference, model, config, network, processes, cache)

    # Choose the classes of the generated images, and the batch-norm statistics.
    if not names:
        shares, labels = "none", np.zeros(config.count, np.int64)
    elif store and config.class_shares == "reference" and store.class_names == as_class_names(names):
        shares, labels = "as in the reference", np.resize(store.labels[choose(store, len(store))], config.count)
    else:
        shares, labels = "uniform", np.arange(config.count) % len(names)
    generator = for_inference(generator, processes.device)
    statistics: str = config.batch_norm
    if statistics == "batch":
        use_batch_statistics(generator)
    elif statistics == "standing":
        statistics += f", from {config.standing_batches} batches of {BATCH}"
        estimate_statistics(generator, batches=config.standing_batches, batch_size=BATCH, seed=config.seed)
    about = {
        "path": str(path),
        "step": step,
        "pictures": config.count,
        "size": f"{model.resolution} x {model.resolution} x {model.image_channels}",
        "weights": "averaged (EMA)" if config.ema else "as trained (no EMA)",
        "checksum": _checksum_of(path, config.ema),
        "batch-norm statistics": statistics,
        "truncation": config.truncation,
        "seed": config.seed,
        "class shares": shares,
        "class counts": _counts(labels, names),
    }

    # Generate the images, and compute their features.
    z = draw_latents(config.count, model.latent_dim, seed=config.seed, truncation=config.truncation)
    y = torch.from_numpy(labels)

    def draw(i: int, j: int) -> Tensor:
        return torch.cat(list(sample_batches(generator, z[i:j], y[i:j], BATCH)))

    read = PatchReader(draw) if config.patch_correlation else draw
    # Features are cached until all of them exist, so that a long extraction resumes where it was stopped.
    content = [about, network.name, network.checksum, network.size, network.resize]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    cache_path = cache_folder(DataConfig(cache=cache)) / "features" / key if network.checksum else None
    features = extract(
        network,
        read,
        config.count,
        device=processes.device,
        cache=cache_path,
        label="generated images",
        share=processes,
    )
    if cache_path and processes.is_first:
        shutil.rmtree(cache_path, ignore_errors=True)
    patches = read.values(config.count, processes) if isinstance(read, PatchReader) else None
    return ImageSet(about, read, labels, names, features, patches), theirs


def _read_reference(
    path: Path,
    reference: str | None,
    model: ModelConfig,
    config: EvaluationConfig,
    network: Features,
    processes: Processes,
    cache: str,
) -> tuple[Store, ImageSet]:
    """Open the images that a generator is compared with; without a reference, those of its run."""
    run = run_of(path)
    if reference is not None:  # made square as the images that the generator learnt from
        trained_on = run.info.config.data if run else DataConfig()
        data = DataConfig(source=reference, crop=trained_on.crop, background=trained_on.background)
        run = None
    elif run:
        data = run.info.config.data
        check_present(data.source, "name images to compare with after the run")
    else:
        raise UserError(f"{path} is not in a run, so its data are unknown: give a folder of images to compare with")
    data_config = replace(data, cache=cache)
    store = processes.in_turn(
        lambda: prepare(data_config, resolution=model.resolution, image_channels=model.image_channels)
    )
    theirs = _read_store(store, config.reference_count or len(store), config, network, processes, "real images")
    if run and not run.info.origin and (note := note_on_changes(run.info.data_key, store)):
        theirs = replace(
            theirs,
            remarks=(
                *theirs.remarks,
                f"{note}: the metrics compare with the images as they are now",
            ),
        )
    return store, theirs


def read_folders(
    generated: str,
    reference: str | Statistics | None,
    config: EvaluationConfig,
    network: Features,
    processes: Processes,
    cache: str,
) -> tuple[ImageSet, ImageSet | Statistics]:
    """Return the images of two sources, at one size.

    Raises:
        UserError: a source is missing, or the images have several sizes and no resolution is chosen.
    """
    if generated not in BUILT_IN and not Path(generated).exists() and not generated.startswith("hf:"):
        raise UserError(f"{printable(generated)} does not exist: give a run, or two folders of images")
    if reference is None:
        raise UserError(f"{printable(generated)} is not a run: give a second folder, of images to compare with")
    side = config.resolution or first_size(generated)
    sources = [generated] if isinstance(reference, Statistics) else [generated, reference]

    def prepare_one(source: str) -> Store:
        data = DataConfig(source=source, cache=cache)
        return prepare(data, resolution=side, image_channels=3, samples=source == generated)

    stores = processes.in_turn(lambda: [prepare_one(source) for source in sources])
    sizes = stores[0].sizes
    if config.resolution is None and (sizes != side).any():
        areas = sizes.prod(1)
        low, high = (" x ".join(map(str, sizes[i])) for i in (areas.argmin(), areas.argmax()))
        raise UserError(
            f"--resolution is missing: the images of {printable(generated)} have several sizes, from {low} to "
            f"{high}; give the side, in pixels, at which to compare"
        )
    if isinstance(reference, Statistics):
        reference.check_dimensions(network, (3, side, side), processes.device)
    ours = _read_store(stores[0], config.count, config, network, processes, "images")
    if isinstance(reference, Statistics):
        return ours, reference
    theirs = _read_store(stores[1], config.reference_count or len(stores[1]), config, network, processes, "reference")
    return ours, theirs


def _read_store(
    store: Store, count: int, config: EvaluationConfig, network: Features, processes: Processes, label: str
) -> ImageSet:
    chosen = choose(store, count)
    if len(chosen) < 2:
        raise UserError(f"{printable(store.source)} holds {len(chosen)} image: give at least 2, better 1,000")
    labels = store.labels[chosen]
    about = {
        "source": store.source,
        "pictures": len(chosen),
        "of": len(store),
        "size": " x ".join(map(str, store.images.shape[1:])),
        "left out": len(store.skipped),
        "key": store.key,
        "class counts": _counts(labels, store.class_names),
    }

    def load(i: int, j: int) -> Tensor:
        return store.load_images(chosen[i:j])

    read = PatchReader(load) if config.patch_correlation else load
    features = reference_features(
        store, chosen, network, device=processes.device, label=label, share=processes, read=read
    )
    patches = read.values(len(chosen), processes) if isinstance(read, PatchReader) else None
    notes = tuple(f"{printable(store.source)}: {note}" for note in store.notes)
    return ImageSet(about, read, labels, store.class_names, features, patches, notes)


def run_of(path: Path) -> Run | None:
    """Return the run at a path, or that of a generator or checkpoint; None if there is none."""
    path = find(path)
    folders = (path, path.parent, path.parent.parent)
    return next((Run(folder) for folder in folders if (folder / "config.json").is_file()), None)


def _checksum_of(path: Path, averaged: bool) -> str:
    path = find(path)
    if path.is_dir():
        run = Run(path)
        path = run.generator_path if averaged else run.weights_checkpoint() or run.generator_path
    return sha256(path)


def _counts(labels: NDArray[np.int64], class_names: tuple[str, ...]) -> dict[str, int]:
    if not class_names:
        return {}
    return dict(zip(class_names, np.bincount(labels, minlength=len(class_names)).tolist(), strict=True))
