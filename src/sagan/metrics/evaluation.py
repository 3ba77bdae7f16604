"""`sagan evaluate`: how near generated pictures are to real ones, in figures that say what was compared."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from sagan.config import DataConfig, EvaluationConfig
from sagan.data import Store, prepare
from sagan.data.sources import BUILT_IN
from sagan.data.store import cache_folder, first_size
from sagan.device import choose_device, keep_memory
from sagan.distributed import Processes
from sagan.errors import UserError
from sagan.figures.grid import draw_grid, save
from sagan.files import sha256, write_atomically
from sagan.metrics.features import BATCH, Features, extract, open_features
from sagan.metrics.frechet import classwise_frechet_distance, frechet_distance
from sagan.metrics.kernel import kernel_distance
from sagan.metrics.neighbours import Neighbours, compare
from sagan.metrics.reference import choose, reference_features
from sagan.metrics.score import classifier_score
from sagan.model.spectral_norm import bake_spectral_norm
from sagan.run import Run, read_generator
from sagan.sampling import draw_latents, estimate_statistics, sample_batches, use_batch_statistics
from sagan.text import printable, short

NEAREST_SHOWN = 10  # pictures a row of the figure of nearest neighbours
FEW = 10_000  # pictures, below which a Frechet distance is far above what it would be for many
LEAST_FOR_NEIGHBOURS = 6


@dataclass(frozen=True)
class Figure:
    """One number of an evaluation."""

    name: str
    value: float
    spread: float | None
    """Standard deviation over what `about` says; None if there is but one value."""
    about: str


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found; printed, it is a table."""

    generated: dict[str, Any]
    """What the pictures are: where from, count, classes and, of a generator, how it was sampled."""
    reference: dict[str, Any]
    """What they were compared with."""
    features: dict[str, Any]
    """The feature network, its checksum and the resizing."""
    figures: tuple[Figure, ...]
    classes: dict[str, float]
    """The Frechet distance of each class, by name."""
    remarks: tuple[str, ...]
    """What a reader of the figures should know."""
    options: dict[str, Any]
    """All options, to repeat it."""
    nearest: Image.Image | None
    """Samples above the reference pictures nearest to them: the nearest pairs of all, and pairs at random."""

    def __getitem__(self, name: str) -> float:
        """The value of a figure by its name."""
        return next(figure.value for figure in self.figures if figure.name == name)

    def __str__(self) -> str:
        wide = max(len(figure.name) for figure in self.figures)
        sets = (_sentence(about) for about in (self.generated, self.reference, self.features))
        lines = ["{}\nagainst {}\nin {}\n".format(*sets)]
        for figure in self.figures:
            spread = f" ± {short(figure.spread)}" if figure.spread is not None else ""
            lines.append(f"{figure.name:<{wide}}  {short(figure.value) + spread:<18}  {figure.about}")
        return "\n".join([*lines, *(f"note: {remark}" for remark in self.remarks)])

    def as_json(self) -> dict[str, Any]:
        """Everything but the picture, as JSON values."""
        packages = {name: metadata.version(name) for name in ("sagan", "torch", "numpy", "pillow")}
        return {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "generated": self.generated,
            "reference": self.reference,
            "features": self.features,
            "figures": [asdict(figure) for figure in self.figures],
            "classes": self.classes,
            "remarks": self.remarks,
            "options": self.options,
            "versions": packages,
        }

    def save(self, path: Path) -> None:
        """Writes the JSON and, beside it as .png, the picture. Raises UserError if that fails."""
        text = json.dumps(self.as_json(), indent=2) + "\n"
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        if self.nearest is not None:
            save(self.nearest, path.with_suffix(".png"))


@dataclass(frozen=True)
class _Pictures:
    """A set of pictures, not all in memory at once."""

    about: dict[str, Any]
    read: Callable[[int, int], Tensor]
    """Those from i to j, (j - i, C, H, W) uint8; i a multiple of BATCH where the batch matters."""
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    features: np.ndarray


def evaluate(
    generated: str | Path,
    reference: str | None = None,
    *,
    features: str | nn.Module = "auto",
    device: str = "auto",
    cache: str = "",
    **options: Any,
) -> Evaluation:
    """Measures a generator's pictures, or those of a folder, against reference pictures.

    Args:
        generated: a run's folder, its generator.safetensors or one of its checkpoints, or a source of pictures.
        reference: a source of pictures (a folder, a .zip, hf:USER/NAME, robots, digits); None: the run's own data.
        features: 'auto', 'inception', 'efficientnet-lite0', a TorchScript file, or a module that maps float pictures
            (N, 3, H, W) in [0, 255] to (N, D).
        device: 'auto', 'cpu', 'cuda', ...
        cache: folder of the picture stores and cached features; empty: $SAGAN_CACHE, or the user's cache folder.
        options: the other fields of `sagan.config.EvaluationConfig`.

    Raises:
        UserError: something of this is not there, or too few pictures to compare.
        ValueError: an option is out of its range.
    """
    found = evaluate_together(
        Processes(choose_device(device)), generated, reference, features=features, cache=cache, **options
    )
    assert found is not None
    return found


def evaluate_together(
    processes: Processes,
    generated: str | Path,
    reference: str | None = None,
    *,
    features: str | nn.Module = "auto",
    cache: str = "",
    **options: Any,
) -> Evaluation | None:
    """The same by many processes, all of which call it; what was found comes from the first, None from the others."""
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
    if _is_generator(Path(generated)):
        ours, theirs = _of_generator(Path(generated), reference, config, network, processes, cache)
    else:
        ours, theirs = _of_folders(str(generated), reference, config, network, processes, cache)
    return _measure(ours, theirs, config, network) if processes.is_first else None


def default_path(generated: Path, evaluation: Evaluation) -> Path | None:
    """Where a run keeps an evaluation of it, its generator or a checkpoint: the same options, the same file.

    None for what belongs to no run.
    """
    run = _run_of(generated)
    if run is None or "step" not in evaluation.generated:
        return None
    content = [evaluation.generated, evaluation.reference, evaluation.features, evaluation.options]
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    features = "".join(c if c.isalnum() else "-" for c in evaluation.features["network"].lower())
    return run.evaluations_path / f"step-{evaluation.generated['step']:08d}-{features}-{key}.json"


def _is_generator(path: Path) -> bool:
    return path.suffix == ".safetensors" or (path / "config.json").is_file()


def _of_generator(
    path: Path,
    reference: str | None,
    config: EvaluationConfig,
    network: Features,
    processes: Processes,
    cache: str,
) -> tuple[_Pictures, _Pictures]:
    generator, names, step = read_generator(path, averaged=config.ema)
    model = generator.config
    if config.resolution not in (None, model.resolution):
        raise UserError(f"--resolution {config.resolution}: the pictures of {path} are {model.resolution} px wide")
    if reference is not None:
        data = DataConfig(source=reference)
    elif run := _run_of(path):
        data = run.info.config.data
    else:
        raise UserError(f"{path} lies in no run, so its data are not known: give a folder of pictures to compare with")
    data_config = replace(data, cache=cache)
    store = processes.in_turn(
        lambda: prepare(data_config, resolution=model.resolution, image_channels=model.image_channels)
    )
    theirs = _of_store(store, config.reference_count or len(store), network, processes, "real pictures")
    if not names:
        shares, labels = "none", np.zeros(config.count, np.int64)
    elif config.class_shares == "reference" and store.class_names == names:
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

    def read(i: int, j: int) -> Tensor:
        return torch.cat(list(sample_batches(generator, z[i:j], y[i:j], BATCH)))

    # Kept until all are there, so that a long extraction goes on where it was stopped.
    content = [about, network.name, network.checksum, network.size, network.resize]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    kept = store.path.parent.parent / "features" / key if network.checksum else None
    found = extract(
        network,
        read,
        config.count,
        device=processes.device,
        cache=kept,
        label="generated pictures",
        share=processes,
    )
    if kept and processes.is_first:
        shutil.rmtree(kept, ignore_errors=True)
    return _Pictures(about, read, labels, names, found), theirs


def _of_folders(
    generated: str,
    reference: str | None,
    config: EvaluationConfig,
    network: Features,
    processes: Processes,
    cache: str,
) -> tuple[_Pictures, _Pictures]:
    if generated not in BUILT_IN and not Path(generated).exists() and not generated.startswith("hf:"):
        raise UserError(f"{printable(generated)} does not exist: give a run, or two folders of pictures")
    if reference is None:
        raise UserError(f"{printable(generated)} is not a run: give a second folder, of pictures to compare it with")
    side = config.resolution or first_size(generated)
    stores = processes.in_turn(
        lambda: [
            prepare(DataConfig(source=source, cache=cache), resolution=side, image_channels=3)
            for source in (generated, reference)
        ]
    )
    for store in stores[:1]:
        sizes = store.sizes
        if config.resolution is None and (sizes != side).any():
            low, high = (" x ".join(map(str, sizes[at])) for at in (sizes.prod(1).argmin(), sizes.prod(1).argmax()))
            raise UserError(
                f"--resolution is missing: the pictures of {printable(generated)} have several sizes, from {low} to "
                f"{high}; give the side, in pixels, at which to compare"
            )
    ours = _of_store(stores[0], config.count, network, processes, "pictures")
    theirs = _of_store(stores[1], config.reference_count or len(stores[1]), network, processes, "reference")
    return ours, theirs


def _of_store(store: Store, count: int, network: Features, processes: Processes, label: str) -> _Pictures:
    chosen = choose(store, count)
    if len(chosen) < 2:
        raise UserError(f"{printable(store.source)} holds {len(chosen)} picture: give 2, or better 1,000")
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
    found = reference_features(store, chosen, network, device=processes.device, label=label, share=processes)
    return _Pictures(about, lambda i, j: store.load_images(chosen[i:j]), labels, store.class_names, found)


def _measure(ours: _Pictures, theirs: _Pictures, config: EvaluationConfig, network: Features) -> Evaluation:
    a, b = ours.features, theirs.features
    is_inception = network.name == "Inception"
    figures, remarks, classes = [], [], dict[str, float]()

    def add(name: str, name_of_inception: str, value: float, spread: float | None, about: str) -> None:
        figures.append(Figure(name_of_inception if is_inception else name, value, spread, about))

    add(
        "Frechet distance",
        "FID",
        frechet_distance(a, b),
        None,
        "0 is best" + ("" if is_inception else f" (in {network.name} features, so not an FID)"),
    )
    if min(len(a), len(b)) < FEW:
        remarks.append(
            f"a Frechet distance of {min(len(a), len(b)):,} pictures is higher than that of many: compare it with such "
            "of equal counts only"
        )
    value, spread = kernel_distance(a, b, seed=config.seed)
    add("kernel distance", "KID", value, spread, "0 is best, whatever the counts; ± over subsets of 1,000")
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
    nearest = None
    if config.neighbours and min(len(a), len(b)) < LEAST_FOR_NEIGHBOURS:
        remarks.append(f"nearest neighbours take {LEAST_FOR_NEIGHBOURS} pictures or more of each")
    elif config.neighbours:
        found = compare(b, a)
        for name in ("precision", "recall"):
            figures.append(Figure(name, getattr(found, name), None, "1 is best; k = 3"))
        for name in ("density", "coverage"):
            figures.append(Figure(name, getattr(found, name), None, "1 is as the reference; k = 5"))
        about = "share not suspiciously near to a reference picture"
        figures.append(Figure("authenticity", found.authenticity, None, about))
        nearest = _draw_nearest(ours, theirs, found)
    if _is_grey(ours) != _is_grey(theirs):
        grey = "pictures" if _is_grey(ours) else "reference pictures"
        remarks.append(f"only the {grey} are grey, the others in colour: the figures measure that above all")
    size = f"{network.size} px" if network.size else "as they are"
    about_features = {
        "network": network.name,
        "dimensions": a.shape[1],
        "checksum": network.checksum,
        "resize": network.resize if network.size else "none",
        "side": size,
    }
    options = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(config).items()}
    return Evaluation(
        ours.about, theirs.about, about_features, tuple(figures), classes, tuple(remarks), options, nearest
    )


def _draw_nearest(ours: _Pictures, theirs: _Pictures, found: Neighbours) -> Image.Image:
    order = np.argsort(found.distance, kind="stable")
    count = min(NEAREST_SHOWN, len(order))
    random = np.random.Generator(np.random.Philox(0)).permutation(len(order))[:count]

    def pictures(source: _Pictures, chosen: NDArray[np.int64]) -> list[Tensor]:
        # By whole batches, as they were measured.
        starts = chosen // BATCH * BATCH
        total = len(source.features)
        blocks = {start: source.read(start, min(start + BATCH, total)) for start in np.unique(starts).tolist()}
        return [blocks[start][i - start] for start, i in zip(starts.tolist(), chosen.tolist(), strict=True)]

    rows = []
    for chosen in (order[:count], random):
        rows += pictures(ours, chosen) + pictures(theirs, found.nearest[chosen])
    images = torch.stack(rows).permute(0, 2, 3, 1).numpy()
    labels = ["nearest of all", "their reference", "at random", "their reference"]
    title = "Samples, and the reference pictures nearest to them"
    return draw_grid(images, columns=count, row_labels=labels, title=title)


def _is_grey(pictures: _Pictures) -> bool:
    some = pictures.read(0, min(BATCH, len(pictures.features)))
    return some.shape[1] == 1 or bool((some[:, :1] == some[:, :3]).all())


def _run_of(path: Path) -> Run | None:
    """The run that this is, or that a generator or checkpoint lies in."""
    folders = (path, path.parent, path.parent.parent)
    return next((Run(folder) for folder in folders if (folder / "config.json").is_file()), None)


def _checksum_of(path: Path, averaged: bool) -> str:
    if path.is_dir():
        run = Run(path)
        path = run.generator_path if averaged else run.checkpoints()[-1]
    return sha256(path)


def _counts(labels: NDArray[np.int64], class_names: tuple[str, ...]) -> dict[str, int]:
    if not class_names:
        return {}
    return dict(zip(class_names, np.bincount(labels, minlength=len(class_names)).tolist(), strict=True))


def _sentence(about: dict[str, Any]) -> str:
    """The facts of a set in one line, without those that only a machine wants."""
    left_out = ("key", "checksum", "class counts")
    facts = [
        f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" if i else printable(str(value))
        for i, (key, value) in enumerate(about.items())
        if key not in left_out and value not in (None, "none")
    ]
    return ", ".join(facts)
