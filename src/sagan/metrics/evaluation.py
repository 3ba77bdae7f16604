"""Measure how near generated images are to real ones, in metrics that say what was compared (`sagan evaluate`)."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from sagan.config import DataConfig, EvaluationConfig
from sagan.data import Store, prepare
from sagan.data.diff import note_on_changes
from sagan.data.open import first_size
from sagan.data.sources import BUILT_IN
from sagan.data.store import cache_folder
from sagan.device import keep_memory
from sagan.distributed import Processes
from sagan.errors import UserError
from sagan.figures.grid import draw_grid, save
from sagan.files import sha256, write_atomically
from sagan.locate import check_present
from sagan.metric_names import HIDDEN_FACTS, join_facts
from sagan.metrics.features import BATCH, Features, extract, open_features
from sagan.metrics.frechet import classwise_frechet_distance, frechet_distance, frechet_distance_to_normal
from sagan.metrics.kernel import kernel_distance
from sagan.metrics.measurement import Measurement
from sagan.metrics.neighbours import Neighbours, compare
from sagan.metrics.patch_correlation import (
    FAR_ABOVE,
    LEAST_IMAGES,
    NEAR_BELOW,
    PatchCorrelation,
    PatchReader,
    compare_patch_correlation,
)
from sagan.metrics.reference import choose, reference_features
from sagan.metrics.score import classifier_score
from sagan.metrics.statistics import Statistics, read_statistics
from sagan.metrics.twin_evaluation import MAPPED_IMAGES, SOURCE, evaluate_copies, evaluate_peaks
from sagan.model.config import ModelConfig
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.model.spectral_norm import bake_spectral_norm
from sagan.run import Run, read_discriminator, read_generator
from sagan.sampling import draw_latents, estimate_statistics, sample_batches, use_batch_statistics
from sagan.text import as_class_names, html_table, printable, short
from sagan.trained import find, shipped_name
from sagan.version import versions

NEAREST_SHOWN = 10  # images in a row of the figure of nearest neighbours
FEW = 10_000  # images; with fewer, the upward bias of a Frechet distance is large
_NAME_LENGTH = 60  # bytes of a network's name in the name of a file
LEAST_FOR_NEIGHBOURS = 6  # images of each set: density and coverage use the fifth neighbour


@dataclass(frozen=True)
class Evaluation:
    """The result of `sagan evaluate`: printed, or shown in a notebook, it is a table."""

    generated: dict[str, Any]
    """The generated images: source, count, classes and, for a generator, how it was sampled."""
    reference: dict[str, Any]
    """The images that they were compared with."""
    features: dict[str, Any]
    """The feature network, its checksum and the resizing."""
    metrics: tuple[Measurement, ...]
    classes: dict[str, float]
    """The Frechet distance of each class, by name."""
    remarks: tuple[str, ...]
    """Cautions for the reader of the metrics."""
    options: dict[str, Any]
    """All options, to repeat the evaluation."""
    nearest: Image.Image | None
    """Samples above the reference images nearest to them: the nearest pairs of all, and pairs at random."""
    patch_correlation: PatchCorrelation | None = None
    """Long-range structure; None if it was not measured."""

    def __getitem__(self, name: str) -> float:
        """Return the value of a metric by its name."""
        return next(metric.value for metric in self.metrics if metric.name == name)

    def __str__(self) -> str:
        width = max(len(metric.name) for metric in self.metrics)
        sets = (printable(join_facts(about, HIDDEN_FACTS)) for about in (self.generated, self.reference, self.features))
        lines = ["{}\nagainst {}\nin {}\n".format(*sets)]
        for metric, (value, about) in zip(self.metrics, self._cells(), strict=True):
            lines.append(f"{metric.name:<{width}}  {value:<18}  {about}")
        return "\n".join([*lines, *(f"note: {remark}" for remark in self.remarks)])

    def _repr_html_(self) -> str:
        rows = [(metric.name, *cells) for metric, cells in zip(self.metrics, self._cells(), strict=True)]
        facts = [join_facts(about, HIDDEN_FACTS) for about in (self.generated, self.reference, self.features)]
        sets = html_table(list(zip(("images", "against", "in"), facts, strict=True)))
        notes = html_table([("note", remark) for remark in self.remarks])
        return sets + html_table(rows, head=("metric", "value", "")) + notes

    def _cells(self) -> list[tuple[str, str]]:
        """Return the value of each metric as text, with its spread, and what it is about."""
        spreads = ["" if metric.spread is None else f" ± {short(metric.spread)}" for metric in self.metrics]
        return [(short(m.value) + spread, m.about) for m, spread in zip(self.metrics, spreads, strict=True)]

    def as_json(self) -> dict[str, Any]:
        """Return everything but `nearest` as JSON values."""
        return {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "generated": self.generated,
            "reference": self.reference,
            "features": self.features,
            "figures": [asdict(metric) for metric in self.metrics],
            "classes": self.classes,
            "patch_correlation": self.patch_correlation and self.patch_correlation.as_json(),
            "remarks": self.remarks,
            "options": self.options,
            "versions": versions("torch", "numpy", "pillow"),
        }

    def save(self, path: Path) -> None:
        """Write the JSON and, next to it as .png, `nearest` and the figure of the patch correlation error.

        Raises:
            UserError: the disk refuses.
        """
        text = json.dumps(self.as_json(), indent=2) + "\n"
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        if self.nearest is not None:
            save(self.nearest, path.with_suffix(".png"))
        if self.has_patch_correlation_figure:
            # Imported here because matplotlib takes a second.
            from sagan.figures.curves import save_figure
            from sagan.figures.patch_correlation import draw_patch_correlation

            found = self.patch_correlation
            assert found is not None
            figure = draw_patch_correlation(
                found.distance, {"these images": found.error}, found.floor, near_below=NEAR_BELOW, far_above=FAR_ABOVE
            )
            save_figure(figure, patch_correlation_path(path))

    @property
    def has_patch_correlation_figure(self) -> bool:
        """Whether `save` writes a figure of the patch correlation error."""
        return self.patch_correlation is not None and bool(self.patch_correlation.distance)


@dataclass(frozen=True)
class _ImageSet:
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


def evaluate_together(
    processes: Processes,
    generated: str | Path,
    reference: str | None = None,
    *,
    features: str | nn.Module = "auto",
    cache: str = "",
    **options: Any,
) -> Evaluation | None:
    """Compare a generator's images, or those of a folder, with reference images; all processes call this.

    Args:
        processes: that share the work.
        generated: a run, its generator.safetensors or one of its checkpoints, the name of a trained model, or a source
            of images.
        reference: a source of images, or a .npz of statistics (mu, sigma); None: the run's own data.
        features: as in `sagan.config.EvaluationConfig`, or a module.
        cache: folder of the image stores and cached features; empty: $SAGAN_CACHE, or the user's cache folder.
        options: the other fields of `sagan.config.EvaluationConfig`.

    Returns:
        The evaluation; None on all processes but the first.

    Raises:
        UserError: a file is missing, or there are too few images to compare.
        ValueError: an option is out of range.
    """
    keep_memory()
    named = features if isinstance(features, str) else type(features).__name__
    config = EvaluationConfig(features=named, **options)
    network = open_features(
        features,
        cache=cache_folder(DataConfig(cache=cache)) / "features",
        inception_file=config.inception,
        size=config.feature_size,
        resize=config.resize,
    ).to(processes.device)
    statistics = read_statistics(reference)
    if statistics:
        config = replace(config, neighbours=False, patch_correlation=False)
    of = _of_generator if _is_generator(Path(generated)) else _of_folders
    ours, theirs = of(str(generated), statistics or reference, config, network, processes, cache)
    if not processes.is_first:
        return None
    if isinstance(theirs, Statistics):
        return _measure_to_statistics(ours, theirs, config, network)
    evaluation = _measure(ours, theirs, config, network)
    if theirs.about["source"] != SOURCE:
        return evaluation
    metrics = [*evaluation.metrics, *evaluate_copies(ours.read, ours.labels)]
    if of is _of_generator:
        metrics += _twin_peaks(Path(generated), theirs, config)
    return replace(evaluation, metrics=tuple(metrics))


def _twin_peaks(path: Path, theirs: _ImageSet, config: EvaluationConfig) -> list[Measurement]:
    """Return where the maps of a generator have their peaks, and those of its discriminator if it was kept."""
    images = theirs.read(0, min(MAPPED_IMAGES, len(theirs.labels)))
    y = torch.from_numpy(theirs.labels[: len(images)])
    networks: list[Generator | Discriminator] = [read_generator(path, averaged=config.ema)[0]]
    run = _run_of(path)
    if run and run.checkpoints():
        networks.append(read_discriminator(path if path.parent.name == "checkpoints" else run.path))
    metrics = []
    for network in networks:
        metrics += evaluate_peaks(bake_spectral_norm(network.eval()), images, y, seed=config.seed)
    return metrics


def patch_correlation_path(path: Path) -> Path:
    """Return the path of the figure of the patch correlation error that belongs to an evaluation's JSON file."""
    return path.with_name(f"{path.stem}-patch-correlation.png")


def default_path(generated: Path, evaluation: Evaluation) -> Path | None:
    """Return the file in which a run keeps an evaluation: the same options, the same file.

    None outside a run, and for a trained model that comes with the package.
    """
    run = _run_of(generated)
    if run is None or shipped_name(run.path) or "step" not in evaluation.generated:
        return None
    content = [evaluation.generated, evaluation.reference, evaluation.features, evaluation.options]
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    features = "".join(c if c.isalnum() else "-" for c in evaluation.features["network"].lower())
    features = features.encode()[:_NAME_LENGTH].decode(errors="ignore")  # the key tells such networks apart
    return run.evaluations_path / f"step-{evaluation.generated['step']:08d}-{features}-{key}.json"


def _is_generator(path: Path) -> bool:
    return path.suffix == ".safetensors" or (find(path) / "config.json").is_file()


def _of_generator(
    generated: str,
    reference: str | Statistics | None,
    config: EvaluationConfig,
    network: Features,
    processes: Processes,
    cache: str,
) -> tuple[_ImageSet, _ImageSet | Statistics]:
    path = Path(generated)
    generator, names, step = read_generator(path, averaged=config.ema)
    model = generator.config
    if config.resolution not in (None, model.resolution):
        raise UserError(f"--resolution {config.resolution}: the images of {path} are {model.resolution} px wide")
    theirs: _ImageSet | Statistics
    store = None
    if isinstance(reference, Statistics):
        theirs = reference
        size = (model.image_channels, model.resolution, model.resolution)
        reference.check_dimensions(network, size, processes.device)
    else:
        store, theirs = _reference_of(path, reference, model, config, network, processes, cache)
    if not names:
        shares, labels = "none", np.zeros(config.count, np.int64)
    elif store and config.class_shares == "reference" and store.class_names == as_class_names(names):
        shares, labels = "as in the reference", np.resize(store.labels[choose(store, len(store))], config.count)
    else:
        shares, labels = "uniform", np.arange(config.count) % len(names)
    generator = bake_spectral_norm(generator.eval()).requires_grad_(False).to(processes.device)
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
    return _ImageSet(about, read, labels, names, features, patches), theirs


def _reference_of(
    path: Path,
    reference: str | None,
    model: ModelConfig,
    config: EvaluationConfig,
    network: Features,
    processes: Processes,
    cache: str,
) -> tuple[Store, _ImageSet]:
    """Open the images that a generator is compared with; without a reference, those of its run."""
    run = _run_of(path)
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
    theirs = _of_store(store, config.reference_count or len(store), config, network, processes, "real images")
    if run and not run.info.origin and (note := note_on_changes(run.info.data_key, store)):
        theirs = replace(
            theirs,
            remarks=(
                *theirs.remarks,
                f"{note}: the metrics compare with the images as they are now",
            ),
        )
    return store, theirs


def _of_folders(
    generated: str,
    reference: str | Statistics | None,
    config: EvaluationConfig,
    network: Features,
    processes: Processes,
    cache: str,
) -> tuple[_ImageSet, _ImageSet | Statistics]:
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
    ours = _of_store(stores[0], config.count, config, network, processes, "images")
    if isinstance(reference, Statistics):
        return ours, reference
    theirs = _of_store(stores[1], config.reference_count or len(stores[1]), config, network, processes, "reference")
    return ours, theirs


def _of_store(
    store: Store, count: int, config: EvaluationConfig, network: Features, processes: Processes, label: str
) -> _ImageSet:
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
    return _ImageSet(about, read, labels, store.class_names, features, patches, notes)


def _measure(ours: _ImageSet, theirs: _ImageSet, config: EvaluationConfig, network: Features) -> Evaluation:
    a, b = ours.features, theirs.features
    is_inception = network.name == "Inception"
    metrics = [_frechet_measurement(frechet_distance(a, b), network)]
    remarks = [*ours.remarks, *theirs.remarks]
    classes: dict[str, float] = {}

    def add(name: str, inception_name: str, value: float, spread: float | None, about: str) -> None:
        metrics.append(Measurement(inception_name if is_inception else name, value, spread, about))

    remarks += _few_remark(min(len(a), len(b)))
    value, spread = kernel_distance(a, b, seed=config.seed)
    add("kernel distance", "KID", value, spread, "0 is best, at any count; ± over subsets of 1,000")
    probabilities = network.probabilities(a)
    if probabilities is not None:
        value, spread = classifier_score(probabilities)
        add("classifier score", "Inception Score", value, spread, "higher is better; ± over 10 parts")
    if ours.class_names and ours.class_names == theirs.class_names:
        by_class = classwise_frechet_distance(a, ours.labels, b, theirs.labels)
        if by_class:
            values = np.array(list(by_class.values()))
            about = f"0 is best; mean of {len(values)} classes, ± over them"
            add("class-wise Frechet distance", "intra-FID", values.mean(), values.std(), about)
            classes = {ours.class_names[y]: value for y, value in by_class.items()}
    patch_correlation = None
    if ours.patches is not None and theirs.patches is not None:
        # Labels of other classes than the reference's mean nothing there.
        same = ours.class_names == theirs.class_names
        y_ours, y_theirs = (x.labels if same else np.zeros_like(x.labels) for x in (ours, theirs))
        patch_correlation = compare_patch_correlation(ours.patches, y_ours, theirs.patches, y_theirs)
        if patch_correlation is None:
            remarks.append(
                f"patch correlation requires at least {LEAST_IMAGES} images, and twice as many reference images"
            )
        else:
            metrics += _patch_correlation_metrics(patch_correlation)
            if patch_correlation.excluded:
                share = patch_correlation.excluded / (patch_correlation.excluded + patch_correlation.pairs)
                remarks.append(
                    f"patch correlation excludes {share:.1%} of the pairs of values: one of them hardly varies in "
                    "the reference"
                )
    nearest = None
    if config.neighbours and min(len(a), len(b)) < LEAST_FOR_NEIGHBOURS:
        remarks.append(f"nearest neighbours need at least {LEAST_FOR_NEIGHBOURS} images of each set")
    elif config.neighbours:
        neighbours = compare(b, a)
        for name in ("precision", "recall"):
            metrics.append(Measurement(name, getattr(neighbours, name), None, "1 is best; k = 3"))
        for name in ("density", "coverage"):
            metrics.append(Measurement(name, getattr(neighbours, name), None, "1 is as the reference; k = 5"))
        about = "share not suspiciously near to a reference image"
        metrics.append(Measurement("authenticity", neighbours.authenticity, None, about))
        nearest = _draw_nearest(ours, theirs, neighbours)
    if _is_grey(ours) != _is_grey(theirs):
        grey = "generated" if _is_grey(ours) else "reference"
        remarks.append(f"the {grey} images are grey, the others in colour: the metrics mostly measure that")
    return Evaluation(
        ours.about,
        theirs.about,
        _about_features(network, a.shape[1]),
        tuple(metrics),
        classes,
        tuple(remarks),
        _options(config),
        nearest,
        patch_correlation,
    )


def _measure_to_statistics(
    ours: _ImageSet, theirs: Statistics, config: EvaluationConfig, network: Features
) -> Evaluation:
    """Measure the only metric that statistics of reference features allow."""
    a = ours.features
    distance = frechet_distance_to_normal(a, theirs.mean, theirs.root)
    remarks = [
        *ours.remarks,
        "statistics (mu, sigma) allow only the Frechet distance; it means something if they were computed by the same "
        "network with the same resizing",
        *_few_remark(len(a)),
    ]
    about_features = _about_features(network, a.shape[1])
    metrics = (_frechet_measurement(distance, network),)
    return Evaluation(ours.about, theirs.about, about_features, metrics, {}, tuple(remarks), _options(config), None)


def _frechet_measurement(distance: float, network: Features) -> Measurement:
    if network.name == "Inception":
        return Measurement("FID", distance, None, "0 is best")
    return Measurement("Frechet distance", distance, None, f"0 is best (in {network.name} features, so not an FID)")


def _few_remark(count: int) -> list[str]:
    """Return a remark on the Frechet distance of a count of images, if it is small."""
    if count >= FEW:
        return []
    return [f"the Frechet distance of {count:,} images is biased upward: compare it only with values at the same count"]


def _about_features(network: Features, dimensions: int) -> dict[str, Any]:
    return {
        "network": network.name,
        "dimensions": dimensions,
        "checksum": network.checksum,
        "resize": network.resize if network.size else "none",
        "side": f"{network.size} px" if network.size else "as they are",
    }


def _options(config: EvaluationConfig) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()}


def _patch_correlation_metrics(found: PatchCorrelation) -> list[Measurement]:
    """Return the near and the far error, each if there are pairs that far apart."""
    ends = (
        ("near", found.near, found.near_floor, f"below {NEAR_BELOW:g}"),
        ("far", found.far, found.far_floor, f"above {FAR_ABOVE:g}"),
    )
    return [
        Measurement(
            f"patch correlation error, {end}",
            error,
            None,
            f"two real sets of {found.images:,}: {short(floor)}; distances {where} patches of 8",
        )
        for end, error, floor, where in ends
        if not math.isnan(error)
    ]


def _draw_nearest(ours: _ImageSet, theirs: _ImageSet, neighbours: Neighbours) -> Image.Image:
    order = np.argsort(neighbours.distance, kind="stable")
    count = min(NEAREST_SHOWN, len(order))
    random = np.random.Generator(np.random.Philox(0)).permutation(len(order))[:count]

    def load(source: _ImageSet, chosen: NDArray[np.int64]) -> list[Tensor]:
        # Whole batches are read, as they were when measured: batch statistics then are the same.
        starts = chosen // BATCH * BATCH
        total = len(source.features)
        blocks = {start: source.read(start, min(start + BATCH, total)) for start in np.unique(starts).tolist()}
        return [blocks[start][i - start] for start, i in zip(starts.tolist(), chosen.tolist(), strict=True)]

    rows = []
    for chosen in (order[:count], random):
        rows += load(ours, chosen) + load(theirs, neighbours.nearest[chosen])
    images = torch.stack(rows).permute(0, 2, 3, 1).numpy()
    labels = ["nearest of all", "their reference", "at random", "their reference"]
    title = "Samples, and the reference images nearest to them"
    return draw_grid(images, columns=count, row_labels=labels, title=title)


def _is_grey(source: _ImageSet) -> bool:
    """Return whether the first batch of a set has no colour."""
    batch = source.read(0, min(BATCH, len(source.features)))
    return batch.shape[1] == 1 or bool((batch[:, :1] == batch[:, :3]).all())


def _run_of(path: Path) -> Run | None:
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
