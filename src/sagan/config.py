"""Every hyper-parameter, once.

The command line is derived from these classes. The docstrings of their fields are its help, so each is one line.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sagan.model.config import ModelConfig

LossName = Literal["hinge", "non-saturating", "least-squares", "wasserstein", "relativistic"]
AugmentName = Literal["color", "translation", "cutout"]
BUILT_IN_FEATURES = ("auto", "inception", "efficientnet-lite0", "efficientnet-lite2")
"""Names of feature networks; all others are files, with code in them."""
MAX_COUNT = 1_000_000
"""Most generated images of an evaluation, whose features and latents are in memory."""
CropName = Literal["centre", "pad"]
PrecisionName = Literal["auto", "fp32", "tf32", "bf16"]

# The help of these options states their default in words, so tyro's "(default: ...)" is dropped.
CacheOption = Annotated[str, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
FileOption = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
IntOption = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
FloatOption = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]


def check_ranges(
    options: object,
    *,
    minimum: Mapping[str, int] | None = None,
    maximum: Mapping[str, int] | None = None,
    positive: Sequence[str] = (),
) -> None:
    """Check the ranges of fields of a dataclass. A field that is None passes.

    Args:
        options: the dataclass.
        minimum: the smallest value allowed, by field.
        maximum: the largest value allowed, by field: more would exhaust the memory before anything is said.
        positive: fields that must be above 0.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """
    for name, smallest in (minimum or {}).items():
        value = getattr(options, name)
        if value is not None and value < smallest:
            raise ValueError(f"{name} must be {smallest} or more, got {value}")
    for name, largest in (maximum or {}).items():
        value = getattr(options, name)
        if value is not None and value > largest:
            raise ValueError(f"{name} must be {largest:,} or less, got {value}")
    for name in positive:
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0 and finite, got {value}")


@dataclass(frozen=True)
class DataConfig:
    """The training images."""

    source: Annotated[
        str,
        tyro.conf.arg(
            name="data",
            metavar="SOURCE",
            help="Source of the images: a folder (subfolders become classes), a .zip (StyleGAN/EDM format), "
            "tar shards (WebDataset: a folder, a pattern such as shards/a-{000..009}.tar, or URLs), "
            "hf:USER/NAME, robots, twins or digits.",
            help_behavior_hint=lambda default: "(required)" if default == "''" else f"(default: {default})",
        ),
    ] = "robots"
    """Source of the images, as `sagan train --data` accepts it."""
    labels: bool = True
    """Use the classes that the source names; False: train unconditionally."""
    background: tuple[int, int, int] = (255, 255, 255)
    """Colour under transparent images and of padding: red, green, blue, 0 to 255. 4-channel models keep alpha."""
    crop: CropName = "centre"
    """Make images square: crop the central square, or pad the whole image with the background."""
    robots: int = 20_000
    """Number of images to render for the built-in data sets 'robots' and 'twins'."""
    flips: bool = False
    """Mirror each training image horizontally with probability 1/2."""
    cache: CacheOption = ""
    """Folder of the packed image stores; default: $SAGAN_CACHE, or the user's cache folder."""


@dataclass(frozen=True)
class TrainingConfig:
    """The training: length, losses, optimisers, precision.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    start: Annotated[str, tyro.conf.arg(name="from", metavar="RUN_OR_FILE", help_behavior_hint="")] = ""
    """Initialise from this run, checkpoint or generator.safetensors. Its architecture overrides the preset's."""
    freeze_discriminator: int = 0
    """Number of discriminator blocks, from the image on, to keep frozen with --from (FreezeD, Mo et al. 2020)."""
    steps: int = 100_000
    """Total number of generator steps."""
    batch_size: int = 64
    """Real images per step; the same number is generated."""
    accumulate: int = 1
    """Gradient accumulation steps per batch. Batch norm sees one micro-batch at a time."""
    discriminator_steps: int = 1
    """Discriminator steps per generator step."""
    loss: LossName = "hinge"
    """Loss of both networks. 'relativistic' is R3GAN's; use it with --r1 and --r2."""
    generator_lr: float = 1e-4
    """Adam's learning rate for the generator. The two rates may differ (TTUR)."""
    discriminator_lr: float = 4e-4
    """Adam's learning rate for the discriminator."""
    beta1: float = 0.0
    """Adam's decay rate of the mean gradient."""
    beta2: float = 0.9
    """Adam's decay rate of the mean squared gradient."""
    lr_decay_from: float = 1.0
    """Fraction of the steps after which both learning rates decay linearly to 0; 1: they stay constant."""
    ema_decay: float = 0.999
    """Decay of the generator's moving average (EMA), which draws the samples; 0: no average."""
    ema_start: int = 0
    """Step at which averaging starts; until then the average equals the generator."""
    sync_batch_norm: bool = False
    """With several processes, normalise over the whole batch instead of each process's part of it."""
    augment: tuple[AugmentName, ...] = ()
    """Differentiable augmentation of real and generated images, for small data sets (Zhao et al. 2020)."""
    r1: float = 0.0
    """Weight of the R1 penalty, gamma/2 |grad D|^2 at real images (Mescheder et al. 2018)."""
    r2: float = 0.0
    """Weight of the R2 penalty, gamma/2 |grad D|^2 at generated images."""
    gradient_penalty: float = 0.0
    """Weight of WGAN-GP's penalty, (|grad D| - 1)^2 between real and generated images (Gulrajani et al. 2017)."""
    penalty_every: int = 1
    """Compute R1, R2 and the gradient penalty every N discriminator steps, with N times the weight."""
    guide: float = 0.0
    """Weight of the guide, a second discriminator on features of EfficientNet-Lite0 (Projected GAN, Sauer et al.
    2021)."""
    lecam: float = 0.0
    """Weight of the LeCam regulariser for small data sets (Tseng et al. 2021)."""
    precision: PrecisionName = "auto"
    """auto: bf16 where the hardware is faster with it (CUDA from Ampere, CPUs with AMX), else fp32; tf32: CUDA only."""
    deterministic: bool = False
    """Use deterministic CUDA kernels, so that a resumed run repeats bit for bit; slower. The CPU always repeats."""
    cuda_graph: bool = False
    """On CUDA, replay the whole training step as a CUDA graph: faster where the step is many small kernels."""
    compile: bool = False
    """Compile both networks with torch.compile, for minutes before the first step; needs a C++ compiler."""
    seed: int = 0
    """Seed of the initial weights, order of the images, latents and augmentation."""

    def __post_init__(self) -> None:
        def check(ok: bool, name: str, expected: str) -> None:
            if not ok:
                raise ValueError(f"{name} must be {expected}, got {getattr(self, name)}")

        for name in ("steps", "batch_size", "accumulate", "discriminator_steps", "penalty_every"):
            check(getattr(self, name) >= 1, name, "1 or more")
        check(self.batch_size % self.accumulate == 0, "accumulate", f"a divisor of batch_size {self.batch_size}")
        for name in ("generator_lr", "discriminator_lr"):
            check(getattr(self, name) > 0, name, "above 0")
        for name in ("beta1", "beta2", "ema_decay"):
            check(0 <= getattr(self, name) < 1, name, "from 0 to below 1")
        check(self.freeze_discriminator >= 0, "freeze_discriminator", "0 or more")
        check(not self.freeze_discriminator or self.start != "", "freeze_discriminator", "0 without --from")
        check(0 <= self.lr_decay_from <= 1, "lr_decay_from", "from 0 to 1")
        for name in ("ema_start", "r1", "r2", "gradient_penalty", "guide", "lecam"):
            check(getattr(self, name) >= 0, name, "0 or more")
        check(0 <= self.seed < 2**31, "seed", f"from 0 to {2**31 - 1}")


@dataclass(frozen=True)
class OutputConfig:
    """The files that a run writes, and how often.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    log_every: int = 50
    """Steps between two lines of the metrics log."""
    sample_every: int = 500
    """Steps between two grids of samples."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints."""
    keep: int = 2
    """Number of newest checkpoints to keep; the best evaluated one is kept as well."""
    evaluate_every: int = 1000
    """Steps between two evaluations, which choose the best checkpoint and warn of collapse; 0: never evaluate."""
    evaluate_count: int = 1000
    """Number of real and of generated images per evaluation."""
    evaluate_features: Annotated[str, tyro.conf.arg(metavar="NAME_OR_FILE")] = "efficientnet-lite0"
    """Features of these evaluations: efficientnet-lite0 (cheap), efficientnet-lite2, inception (FID), or a TorchScript
    file."""

    def __post_init__(self) -> None:
        minimum = dict.fromkeys(("log_every", "sample_every", "checkpoint_every", "keep"), 1)
        check_ranges(self, minimum=minimum | {"evaluate_every": 0, "evaluate_count": 2})


@dataclass(frozen=True)
class EvaluationConfig:
    """The comparison of generated images with reference images.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    features: Annotated[str, tyro.conf.arg(metavar="NAME_OR_FILE")] = "auto"
    """inception (FID), efficientnet-lite0, efficientnet-lite2, a TorchScript file, or auto: inception if its weights
    are in the cache, else efficientnet-lite0."""
    inception: FileOption = None
    """Weights of the Inception network, for a machine that cannot download them."""
    resize: Literal["auto", "bicubic", "bilinear", "legacy"] = "auto"
    """Resizing to the features' input: bicubic (as clean-fid), bilinear or legacy (unfiltered, as StyleGAN, EDM)."""
    feature_size: IntOption = None
    """For a TorchScript file: resize images to this side, in pixels; default: no resizing."""
    count: int = 10_000
    """Number of images to generate; for a folder, the maximum to read. Papers report 50,000."""
    reference_count: int = 50_000
    """Maximum number of reference images; 0: all."""
    resolution: IntOption = None
    """Side at which images are compared, in pixels; default: the run's, or that of the images in the first folder."""
    seed: int = 0
    """Seed of the latents and of the kernel distance's subsets."""
    truncation: FloatOption = None
    """Truncate latents to this magnitude; default: no truncation. Report such metrics as truncated."""
    class_shares: Literal["reference", "uniform"] = "reference"
    """Classes of the generated images: in the same proportions as the reference, or all equally often."""
    ema: bool = True
    """Evaluate the averaged generator; False: the generator without averaging."""
    batch_norm: Literal["running", "batch", "standing"] = "running"
    """Batch-norm statistics: running (from training), batch (of each batch of 64), or standing (re-estimated)."""
    standing_batches: int = 16
    """Number of batches of 64 from which standing statistics are estimated."""
    neighbours: bool = True
    """Also compute precision, recall, density, coverage, and the nearest reference image of each sample."""
    patch_correlation: bool = True
    """Also compute the patch correlation error of near and of far patches: structure, independent of the features."""

    def __post_init__(self) -> None:
        minimum = {"count": 2, "reference_count": 0, "seed": 0, "standing_batches": 1}
        maximum = {"count": MAX_COUNT, "standing_batches": 10_000, "feature_size": 4096, "resolution": 4096}
        check_ranges(self, minimum=minimum, maximum=maximum, positive=("feature_size", "resolution", "truncation"))
        if self.resize == "legacy" and self.features not in ("auto", "inception"):
            raise ValueError("resize legacy requires the Inception features: use bicubic or bilinear")


@dataclass(frozen=True)
class Config:
    """The complete configuration of a run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
