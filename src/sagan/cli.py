"""The commands: read the options, call one function, print."""

import argparse
import contextlib
import difflib
import io
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from sagan.config import PRESETS, Config, DataConfig, EvaluationConfig, PresetName, check_ranges
from sagan.errors import UserError
from sagan.study.variants import StudyName

if TYPE_CHECKING:
    from sagan.data import Store
    from sagan.run import Run
    from sagan.training.processes import Processes

CodebaseName = Literal["studiogan", "mmgeneration", "biggan-pytorch", "mimicry", "heykeetae", "tensorflow"]
RunArgument = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


@dataclass(frozen=True)
class Train:
    """Train a generator on pictures.

    Start from a preset and override what you like: sagan train --preset small --data pictures/ --resolution 64.
    The data decide the number of classes. Ctrl-C saves; --resume goes on.
    """

    preset: PresetName = "small"
    """What the other options start from; their defaults below are this preset's."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Folder of a run to go on with, exactly as it was configured; other options are not taken."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the new run; default: runs/ and the date and time."""
    go_on: bool = False
    """Where --out holds this run already, go on with it: one command that starts, and starts again."""
    device: str = "auto"
    """'auto' (a CUDA GPU if there is one, else the CPU), 'cpu', 'cuda', 'cuda:1', 'mps'."""
    config: Config = field(default_factory=lambda: PRESETS["small"])


def train(options: Train) -> None:
    """Runs `sagan train`."""
    from sagan.training.loop import train as train_run
    from sagan.training.processes import join

    with join(options.device) as processes, contextlib.ExitStack() as held:
        now = f"runs/{datetime.now():%Y%m%d-%H%M%S}"
        out = options.resume or options.out or Path(processes.first(lambda: now))
        run, store = processes.in_turn(lambda: _open_run(options, out, processes, held))
        config = run.info.config
        classes = f"{store.num_classes} classes" if store.num_classes else "no classes"
        where = str(processes.device) if processes.count == 1 else f"{processes.count} x {processes.device.type}"
        if processes.is_first:
            print(f"{len(store)} pictures, {classes}, {config.model.resolution} px -> {run.path} on {where}")
        complete = train_run(run, store, processes)
        if not processes.is_first:
            return
        if complete:
            print(f"done: {run.samples_path}; more with: sagan sample {run.path}")
            if any(kind == "self" for _, kind in config.model.attention_at("generator")):
                from sagan.attention_files import write_attention

                print(f"what its last attention layer looks at: {write_attention(run.path, None)[0]}")
        else:
            print(f"stopped and saved; go on with: sagan train --resume {run.path}")


def _open_run(options: Train, out: Path, processes: "Processes", held: contextlib.ExitStack) -> "tuple[Run, Store]":
    """The run to train, made by the first process if it is to be new, and its pictures; `held` keeps others out."""
    from sagan.data import prepare
    from sagan.data.changes import what_changed
    from sagan.data.sources import printable
    from sagan.run import Run, RunInfo, only_training
    from sagan.training.processes import check_batch
    from sagan.training.transfer import check_source

    if options.go_on and options.out is None:
        raise UserError("--go-on is for a run in a folder that is known before: give it with --out")
    there = options.go_on and (out / "config.json").exists()
    run = Run(out) if options.resume or there or not processes.is_first else None
    config = run.info.config if run else options.config
    check_batch(config.training.batch_size, config.training.accumulate, processes)
    if run and run.info.origin:
        raise UserError(f"{run.path} was imported, so has no training to resume: start from it with --from {run.path}")
    if not config.data.source:
        raise UserError("--data is missing: give a folder of pictures, a .zip, hf:USER/NAME, robots or digits")
    store = prepare(config.data, resolution=config.model.resolution, image_channels=config.model.image_channels)
    if run is None:
        for skipped in store.skipped[:20]:
            print(f"skipped {printable(skipped.name)}: {skipped.reason}", file=sys.stderr)
        if len(store.skipped) > 20:
            print(f"... and {len(store.skipped) - 20} more: sagan data {config.data.source}", file=sys.stderr)
        model = replace(config.model, num_classes=store.num_classes)
        if config.training.start:
            check_source(config.training.start, model, config.training.freeze_discriminator)
        info = RunInfo(replace(config, model=model), store.class_names, store.key)
    elif store.key != run.info.data_key:
        changed = what_changed(run.info.data_key, store)
        raise UserError(
            f"{config.data.source} has changed since {run.path} was started ({changed}): "
            f"put it back, or train on what is there now with --from {run.path} --data {config.data.source}"
        )
    elif (
        there and replace(options.config, model=replace(options.config.model, num_classes=store.num_classes)) != config
    ):
        raise UserError(f"{run.path} holds a run of other options: give those of its config.json, or another --out")
    if processes.is_first:
        held.enter_context(only_training(out))
    return run or Run.create(out, info), store


@dataclass(frozen=True)
class Sample:
    """Draw pictures from a trained run."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or its generator.safetensors."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """A .png (a labelled grid), a .npz (arrays) or a folder (single PNGs); default: samples-SEED.png in the run."""
    count: int = 8
    """Pictures of each class; without classes, pictures in all."""
    classes: tuple[str, ...] = ()
    """Names or numbers of the classes to draw; default: all."""
    seed: int = 0
    """The same seed gives the same pictures."""
    truncation: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Cut latents off at this magnitude: nearer to 0 gives more typical, less varied pictures."""

    def __post_init__(self) -> None:
        check_ranges(self, least={"count": 1, "seed": 0}, above_zero=("truncation",))


def sample(options: Sample) -> None:
    """Runs `sagan sample`."""
    from sagan.sample_files import write_samples
    from sagan.training.processes import join

    with join("cpu") as processes:
        out = write_samples(
            options.run,
            options.out,
            count=options.count,
            classes=options.classes,
            seed=options.seed,
            truncation=options.truncation,
            share=processes,
        )
        if processes.is_first:
            print(out)


@dataclass(frozen=True)
class Attend:
    """Show what the attention layers look at: pictures with query points, and a map for each point.

    Also prints how strongly each layer is used, and how far it looks.
    """

    run: RunArgument
    """Folder of the run; for the generator alone, its generator.safetensors will do."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A .png or .svg; default: attend.png in the run."""
    network: Literal["generator", "discriminator", "both"] = "generator"
    """The generator on pictures of its own, the discriminator on pictures of the run's data."""
    layer: str = "last"
    """last, all, a layer's name as in the metrics log (16.0), or the size of its feature map (16)."""
    points: Annotated[tuple[str, ...], tyro.conf.arg(metavar="X,Y")] = ()
    """Query points in pixels from the upper left, such as 8,20 16,3; default: five for what each picture shows."""
    count: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Pictures of each class, or in all without classes; default: 1, or 6 without classes."""
    classes: tuple[str, ...] = ()
    """Names or numbers of the classes to draw; default: the first eight."""
    seed: int = 0
    """The same seed gives the same pictures, those of sagan sample."""
    truncation: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Cut latents off at this magnitude."""
    smooth: bool = True
    """Draw maps smoothly between the keys' centres; False: as the cells that they are."""

    def __post_init__(self) -> None:
        check_ranges(self, least={"count": 1, "seed": 0}, above_zero=("truncation",))
        if self.out is not None and self.out.suffix.lower() not in (".png", ".svg"):
            raise ValueError(f"out must be a .png or a .svg, got {self.out}")
        if len(self.points) > 8:
            raise ValueError(f"points must be 8 or fewer, got {len(self.points)}")
        self.query_points()

    def query_points(self) -> list[tuple[float, float]] | None:
        """The points as numbers; None if none are given."""
        found = []
        for point in self.points:
            try:
                x, y = map(float, point.split(","))
            except ValueError:
                raise ValueError(f"points must be X,Y in pixels such as 8,20, got {point}") from None
            found.append((x, y))
        return found or None


def attend(options: Attend) -> None:
    """Runs `sagan attend`."""
    from sagan.attention_files import write_attention

    out, table = write_attention(
        options.run,
        options.out,
        network=options.network,
        layer=options.layer,
        points=options.query_points(),
        count=options.count,
        classes=options.classes,
        seed=options.seed,
        truncation=options.truncation,
        smooth=options.smooth,
    )
    print(table)
    print(out)


@dataclass(frozen=True)
class Explore:
    """Serve a page on which to generate pictures, click on pixels and see what they attend to."""

    run: RunArgument
    """Folder of the run, or its generator.safetensors, which does for all but the discriminator's part."""
    host: str = "127.0.0.1"
    """Address to listen on; the default is reached from this machine only."""
    port: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Port to listen on; default: 7860, or the next free one."""
    open: bool = True
    """Open the page in a browser, where there is a screen."""
    device: str = "auto"
    """'auto' (a CUDA GPU if there is one, else the CPU), 'cpu', 'cuda', 'cuda:1', 'mps'."""

    def __post_init__(self) -> None:
        if self.port is not None and not 0 <= self.port <= 65535:
            raise ValueError(f"port must be from 0 (any free one) to 65535, got {self.port}")


def explore(options: Explore) -> None:
    """Runs `sagan explore`."""
    from sagan.explorer import launch

    launch(options.run, host=options.host, port=options.port, open_browser=options.open, device=options.device)


@dataclass(frozen=True)
class Data:
    """Show what would be trained on: pictures, classes, sizes, problems, and a contact sheet."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A folder, a .zip, tar shards (WebDataset), hf:USER/NAME, robots or digits; 'pack' writes shards."""
    resolution: Literal[32, 64, 128, 256] = 64
    """Side of the pictures, pixels."""
    image_channels: Literal[1, 3, 4] = 3
    """1 (grey), 3 (RGB) or 4 (RGB and alpha)."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("contact-sheet.png")
    """Where to write the contact sheet."""
    labels: bool = True
    """Use the classes that the source names."""
    background: tuple[int, int, int] = (255, 255, 255)
    """Colour that transparent pictures are laid on: red, green, blue, 0 to 255."""
    cache: str = ""
    """Folder of the packed picture stores; empty: $SAGAN_CACHE, or the user's cache folder."""


def data(options: Data) -> None:
    """Runs `sagan data`."""
    from sagan.data import prepare
    from sagan.data.summary import contact_sheet, summarise
    from sagan.figures.grid import save

    config = DataConfig(options.source, options.labels, options.background, cache=options.cache)
    store = prepare(config, resolution=options.resolution, image_channels=options.image_channels)
    print(summarise(store))
    save(contact_sheet(store), options.out)
    print(f"contact sheet: {options.out}")


@dataclass(frozen=True)
class Pack:
    """Write a source as WebDataset tar shards, which train without a copy on this machine's disk.

    Pictures stay byte for byte as they are. Stopped, it goes on with the same command.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A folder, a .zip, tar shards, hf:USER/NAME, robots or digits."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the shards, which are named after it."""
    shard_size: int = 256
    """MiB after which a shard is full."""
    labels: bool = True
    """Use the classes that the source names."""
    resolution: Literal[32, 64, 128, 256] = 64
    """Side that robots or digits are drawn at; other pictures keep their size."""
    cache: str = ""
    """Folder of the packed picture stores; empty: $SAGAN_CACHE, or the user's cache folder."""

    def __post_init__(self) -> None:
        check_ranges(self, least={"shard_size": 1})


def pack(options: Pack) -> None:
    """Runs `sagan data pack`."""
    from sagan.data.pack import pack
    from sagan.data.sources import printable

    config = DataConfig(options.source, options.labels, cache=options.cache)
    made = pack(
        config, options.out, shard_size=options.shard_size * 2**20, resolution=options.resolution, image_channels=3
    )
    for skipped in made.left_out[:20]:
        print(f"left out {printable(skipped.name)}: {skipped.reason}", file=sys.stderr)
    if len(made.left_out) > 20:
        print(f"... and {len(made.left_out) - 20} more", file=sys.stderr)
    print(f"{made.pictures:,} pictures in {made.shards:,} shards, {made.size / 2**20:,.0f} MiB: {made.folder}")


@dataclass(frozen=True)
class Evaluate:
    """Measure how near generated pictures are to real ones: a run against its data, or two folders."""

    generated: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_FOLDER")]
    """A run, its generator.safetensors or one of its checkpoints; or a folder or .zip of pictures."""
    reference: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="REFERENCE")] = None
    """Pictures to compare with: a folder, a .zip, hf:USER/NAME, robots or digits; default: the run's own data."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where to write the figures (.json, and the nearest neighbours beside it); default: evaluations/ in the run."""
    device: str = "auto"
    """'auto' (a CUDA GPU if there is one, else the CPU), 'cpu', 'cuda', 'cuda:1'."""
    cache: str = ""
    """Folder of picture stores and cached features; empty: $SAGAN_CACHE, or the user's cache folder."""
    config: EvaluationConfig = field(default_factory=EvaluationConfig)


def evaluate(options: Evaluate) -> None:
    """Runs `sagan evaluate`."""
    from dataclasses import asdict

    from sagan.evaluation import default_path, evaluate_together
    from sagan.training.processes import join

    if options.out is not None and options.out.suffix != ".json":
        raise UserError(f"--out {options.out}: give a .json file")
    with join(options.device) as processes:
        found = evaluate_together(
            processes, options.generated, options.reference, cache=options.cache, **asdict(options.config)
        )
    if found is None:  # another process has it
        return
    out = options.out or default_path(Path(options.generated), found)
    print(found)
    if out:
        found.save(out)
        print(f"{out}" + (f", {out.with_suffix('.png')}" if found.nearest else ""))


@dataclass(frozen=True)
class Plot:
    """Draw a run's losses, logits, gammas and evaluations, and how its pictures changed."""

    run: RunArgument
    """Folder of the run; it may be in training still."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A .png or .svg for the curves, samples-over-time.png beside it; default: curves.png in the run."""


def plot(options: Plot) -> None:
    """Runs `sagan plot`."""
    from sagan.plot_files import write_curves, write_film_strip

    out = write_curves(options.run, options.out)
    print(out)
    strip = write_film_strip(options.run, options.out and out.with_name("samples-over-time.png"))
    print(strip or "no film strip: the run has no grid of samples yet")


@dataclass(frozen=True)
class Interpolate:
    """Walk smoothly between latents and between classes: a grid, or a GIF or MP4 that repeats without a jump."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or its generator.safetensors."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A .png (a row for each walk), .gif or .mp4; default: interpolation.png in the run."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Pictures along a walk; default: 9 or more in a grid, 12.5 a second in a GIF, 25 in an MP4."""
    count: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Walks of each kind; default: 1 in a grid, up to 4 side by side in a GIF or MP4; 8 without classes."""
    classes: tuple[str, ...] = ()
    """Names or numbers of the classes to walk within and through; default: the first eight."""
    seconds: float = 6.0
    """Length of a GIF or MP4."""
    seed: int = 0
    """The same seed gives the same walks."""
    truncation: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Cut latents off at this magnitude: nearer to 0 gives more typical, less varied pictures."""

    def __post_init__(self) -> None:
        check_ranges(self, least={"steps": 2, "count": 1, "seed": 0}, above_zero=("seconds", "truncation"))


def interpolate(options: Interpolate) -> None:
    """Runs `sagan interpolate`."""
    from sagan.walk_files import write_interpolation

    out = write_interpolation(
        options.run,
        options.out,
        steps=options.steps,
        count=options.count,
        classes=options.classes,
        seconds=options.seconds,
        seed=options.seed,
        truncation=options.truncation,
    )
    print(out)


@dataclass(frozen=True)
class Report:
    """Gather a run's pictures, curves, figures and configuration into one HTML file that can be mailed."""

    run: RunArgument
    """Folder of the run; it may be in training still."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A .html file; default: report.html in the run."""


def report(options: Report) -> None:
    """Runs `sagan report`."""
    from sagan.report import write_report

    print(write_report(options.run, options.out))


@dataclass(frozen=True)
class Import:
    """Make a run of another codebase's checkpoint: PyTorch-StudioGAN, mmgeneration, BigGAN-PyTorch, mimicry and others.

    The networks compute what theirs compute, or the import is refused: docs/import.md says what is covered.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The generator's file (the averaged one, if there is one), or that of all networks; of TensorFlow, a .npz."""
    codebase: Annotated[CodebaseName | None, tyro.conf.arg(name="from")] = None
    """Where it comes from; default: recognised by the names of its tensors."""
    discriminator: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The discriminator's file, where it has one of its own; fine-tuning starts better with it."""
    average: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The file of the generator's moving average, if FILE is the generator as trained."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the new run; default: runs/ and the file's name."""
    batch_norm_eps: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Epsilon of the batch norms, if it was trained with another than its codebase's SAGAN."""
    inplace_relu: bool | None = None
    """Whether the discriminator's ReLUs work in place, if not as in its codebase's SAGAN."""

    def __post_init__(self) -> None:
        check_ranges(self, above_zero=("batch_norm_eps",))


def import_(options: Import) -> None:
    """Runs `sagan import`."""
    from sagan.interop.importing import describe, import_networks, write_import

    given: dict[str, Any] = {}
    if options.batch_norm_eps is not None:
        given["batch_norm_eps"] = options.batch_norm_eps
    if options.inplace_relu is not None:
        given["shortcut"] = "rectified" if options.inplace_relu else "plain"
    imported = import_networks(
        options.file,
        codebase=options.codebase,
        discriminator=options.discriminator,
        average=options.average,
        given=given,
    )
    run = write_import(options.out or Path("runs") / options.file.stem, imported, options.file)
    print(describe(imported, run))


@dataclass(frozen=True)
class Export:
    """Write the generator as ONNX, a torch.export program or plain safetensors, checked against the run."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or its generator.safetensors."""
    to: Literal["onnx", "safetensors", "torch-export"] = "onnx"
    """onnx; torch-export (.pt2, needs PyTorch but not sagan); or safetensors (plain weights, for sagan.load)."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Default: generator.onnx, generator.pt2 or generator-plain.safetensors in the run."""
    truncation: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Let the graph cut its latents off at this magnitude, as sagan sample --truncation does."""
    uint8: bool = False
    """Let the graph give bytes in [0, 255], as torch-fidelity expects, and not floats in [-1, 1]."""
    opset: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Version of ONNX's operators; default: 18."""

    def __post_init__(self) -> None:
        check_ranges(self, above_zero=("truncation",))
        if self.to == "safetensors" and (self.truncation is not None or self.uint8):
            raise ValueError("truncation and uint8 are for onnx and torch-export: safetensors holds weights alone")
        if self.to != "onnx" and self.opset is not None:
            raise ValueError(f"opset is ONNX's: {self.to} has none")


def export(options: Export) -> None:
    """Runs `sagan export`."""
    from sagan.interop.export import export

    print(
        export(
            options.run,
            options.to,
            options.out,
            truncation=options.truncation,
            uint8=options.uint8,
            opset=options.opset,
        )
    )


@dataclass(frozen=True)
class Push:
    """Publish the generator on the Hugging Face Hub, with a model card written from the run."""

    run: RunArgument
    """Folder of the run."""
    repo: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="USER/NAME")]
    """The repository; it is made if it is not there."""
    licence: str = "unknown"
    """Under what others may use the weights, as the Hub spells it (cc-by-4.0, ...); the card says so if unknown."""
    private: bool = False
    """Make a new repository that nobody else sees."""
    dry_run: bool = False
    """Only say what would be uploaded."""


def push(options: Push) -> None:
    """Runs `sagan push`."""
    from sagan.interop.hub import push

    url = push(options.run, options.repo, licence=options.licence, private=options.private, dry_run=options.dry_run)
    if url:
        print(f'{url}; load it with sagan.load("{options.repo}")')


@dataclass(frozen=True)
class Study:
    """Run an experiment on your data, the paper's three or one on settings: variants, several seeds, and a report.

    The same command goes on where it was stopped. The other options are those of sagan train, for all variants alike.
    """

    study: Annotated[StudyName, tyro.conf.Positional]
    """attention (Table 1), stability (Figure 3), comparison (Table 2), or settings: what matters on your data."""
    preset: PresetName = "small"
    """What the other options start from; their defaults below are this preset's."""
    budget: str = ""
    """Time for all the training, such as 2h or 90m, from which the steps follow; default: --steps for each run."""
    seeds: int = 3
    """Runs of each variant: seeds --seed, --seed + 1, ..."""
    only: tuple[str, ...] = ()
    """These variants only, such as none self-16 residual-16."""
    count: int = 2000
    """Pictures of a run's evaluation at its end, generated and real."""
    features: str = "auto"
    """inception (FID), efficientnet-lite0, a TorchScript file, or auto: inception if its weights are here."""
    jobs: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Runs at a time; default: one for each GPU, or one for each core."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the study; default: studies/ and its name."""
    device: str = "auto"
    """'auto' (a CUDA GPU if there is one, else the CPU), 'cpu', 'cuda', 'cuda:1', 'mps'."""
    config: Config = field(default_factory=lambda: PRESETS["small"])

    def __post_init__(self) -> None:
        check_ranges(self, least={"seeds": 1, "count": 2, "jobs": 1})


def study(options: Study) -> None:
    """Runs `sagan study`."""
    from sagan.study.report import write_study_report
    from sagan.study.study import default_jobs, open_study, run_study

    jobs = options.jobs or default_jobs(options.device)
    folder = open_study(
        options.out or Path("studies") / options.study,
        options.study,
        options.config,
        budget=options.budget,
        seeds=options.seeds,
        only=options.only,
        count=options.count,
        features=options.features,
        jobs=jobs,
        device=options.device,
    )
    plan = folder.plan
    print(f"{len(folder.jobs())} runs of {plan.base.training.steps:,} steps, {jobs} at a time -> {folder.path}")
    complete = run_study(folder, jobs=jobs, device=options.device)
    print(f"{'done' if complete else 'so far; the same command goes on'}: {write_study_report(folder)}")


# name: (its options, what runs it)
COMMANDS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "train": (Train, train),
    "sample": (Sample, sample),
    "evaluate": (Evaluate, evaluate),
    "attend": (Attend, attend),
    "plot": (Plot, plot),
    "interpolate": (Interpolate, interpolate),
    "report": (Report, report),
    "explore": (Explore, explore),
    "import": (Import, import_),
    "export": (Export, export),
    "push": (Push, push),
    "data": (Data, data),
    "data pack": (Pack, pack),
    "study": (Study, study),
}


def _help() -> str:
    lines = [f"  sagan {name:12}{(options.__doc__ or '').splitlines()[0]}" for name, (options, _) in COMMANDS.items()]
    return "\n".join(
        (
            "Self-Attention GANs: from a folder of pictures to pictures of your own.",
            "",
            *lines,
            "",
            "sagan COMMAND --help says what a command takes.",
            "First steps: sagan train --preset demo",
        )
    )


def _preset(options: type[Train] | type[Study], arguments: list[str]) -> Train | Study:
    """The options that tyro starts from: those of the preset in the arguments, with the shape of --from's networks."""
    required = {"study": tyro.MISSING} if options is Study else {}
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", default="small", choices=PRESETS)
    parser.add_argument("--from", dest="start")
    try:
        found = parser.parse_known_args(arguments)[0]
    except argparse.ArgumentError:  # a value is missing, or no preset: tyro will say so
        return options(**required)
    config = PRESETS[found.preset]
    if found.start:
        from sagan.training.transfer import read_model

        config = replace(config, model=read_model(found.start))
    return options(preset=found.preset, config=config, **required)


def _parse(options: type, name: str, arguments: list[str]) -> Any:
    """The options of a command from its arguments: tyro.cli, its box of an error message made into one line.

    Raises:
        UserError: an unknown option or a bad value.
    """
    errors = io.StringIO()
    markers = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff)
    default = _preset(options, arguments) if options in (Train, Study) else None
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(options, prog=f"sagan {name}", args=arguments, config=markers, default=default)
    except SystemExit as error:
        if not error.code:
            raise
        raise UserError(f"{_one_line(errors.getvalue())}; see sagan {name} --help") from None


def _one_line(box: str) -> str:
    """The message of tyro's error box: what stands between its title and the first rule, and its suggestion."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)  # colours, on a terminal
    blocks: list[list[str]] = [[]]
    for line in plain.splitlines()[1:]:
        text = line.strip("│╰╯ ")
        if text.strip("─-"):
            blocks[-1].append(text)
        else:  # a rule
            blocks.append([])
    first, *others = [block for block in blocks if block]
    message = " ".join(first).removesuffix(".")
    message = re.sub(r"^Error parsing (config\.\w+|[\w ]*root): ", "", message)
    near = [block[1].split()[0] for block in others if block[0].startswith("Perhaps you meant")]
    return message + (f"; did you mean {near[0]}?" if near else "")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0, 2 for what the user can mend, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    name = " ".join(arguments[:words]) or "--help"
    try:
        if name in ("-h", "--help"):
            print(_help())
        elif name == "--version":
            print(metadata.version("sagan"))
        elif name in COMMANDS:
            options, run = COMMANDS[name]
            try:
                given = _parse(options, name, arguments[words:])
            except UserError:
                if os.environ.get("RANK", "0") != "0":  # one of many processes, all of which were given the same
                    return 2
                raise
            run(given)
        else:
            near = difflib.get_close_matches(name, COMMANDS, 1)
            raise UserError(f"{name}: no such command; " + (f"did you mean {near[0]}?" if near else "see sagan --help"))
    except BrokenPipeError:  # whoever reads our output has seen enough: sagan data ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor shall the interpreter's last flush fail
    except (UserError, OSError) as error:  # what the operating system refuses is named in its own words
        print(f"sagan: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sagan: stopped", file=sys.stderr)
        return 130
    return 0
