"""The command `sagan study`."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from sagan.commands.arguments import DeviceOption, FolderOption
from sagan.config import MAX_COUNT, Config, IntOption, check_ranges
from sagan.presets import PRESETS, PresetName
from sagan.study.plan import MeasuredAt
from sagan.study.variants import STUDIES, StudyName, Variant, overridden_options


@dataclass(frozen=True)
class Study:
    """Run an experiment of the paper on your data, or measure which settings matter.

    A study trains several variants with several seeds each and writes a report. If it is interrupted, the same command
    resumes it. The other options are those of sagan train and apply to all variants.
    """

    study: Annotated[StudyName, tyro.conf.Positional]
    """attention (Table 1), stability (Figure 3), comparison (Table 2), or settings (which settings matter)."""
    preset: PresetName = "small"
    """Preset that sets the defaults of all options below."""
    budget: Annotated[str, tyro.conf.arg(metavar="TIME", help_behavior_hint="")] = ""
    """Training time of all runs together, such as 2h or 90m, which sets the steps; default: --steps per run."""
    seeds: int = 3
    """Runs of each variant: seeds --seed, --seed + 1, ..."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="VARIANT ...", help_behavior_hint="")] = ()
    """Run only these variants, such as none self-16 residual-16; default: all."""
    count: int = 2000
    """Number of generated and of real images in the evaluation at the end of a run."""
    features: Annotated[str, tyro.conf.arg(metavar="NAME_OR_FILE")] = "auto"
    """inception (FID), efficientnet-lite0, efficientnet-lite2, a TorchScript file, or auto: inception if its weights
    are in the cache, else efficientnet-lite0."""
    measured_at: MeasuredAt = "best"
    """Generator of a run that is measured: of the smallest distance during training, or of the last step (end)."""
    jobs: IntOption = None
    """Number of runs at a time; default: one per GPU, or one per CPU core."""
    out: FolderOption = None
    """Folder of the study; default: studies/NAME."""
    device: DeviceOption = "auto"
    config: Config = field(default_factory=lambda: PRESETS["small"])
    given: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Names of the options on the command line."""

    def __post_init__(self) -> None:
        maximum = {"seeds": 1000, "count": MAX_COUNT, "jobs": 1000}
        check_ranges(self, minimum={"seeds": 1, "count": 2, "jobs": 1}, maximum=maximum)


def tell_overridden(given: tuple[str, ...], base: Config, variants: list[Variant]) -> None:
    """Print a note on options whose values have no effect: no error, as the base of an earlier study may have them."""
    for option in overridden_options(given, base, variants):
        print(f"note: {option} has no effect: every variant of this study sets it", file=sys.stderr)


def study(options: Study) -> None:
    """Run `sagan study`."""
    from sagan.study.report import write_study_report
    from sagan.study.runner import default_jobs, open_study, run_study

    tell_overridden(options.given, options.config, STUDIES[options.study].variants(options.config))
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
        measured_at=options.measured_at,
        jobs=jobs,
        device=options.device,
    )
    plan = folder.plan
    print(f"{len(folder.jobs())} runs of {plan.base.training.steps:,} steps, {jobs} at a time -> {folder.path}")
    complete = run_study(folder, jobs=jobs, device=options.device)
    print(f"{'done' if complete else 'incomplete; the same command resumes it'}: {write_study_report(folder)}")
