"""The command sagan study."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from sagan.commands.arguments import DeviceOption, FolderOption, IntOption
from sagan.config import Config, check_ranges
from sagan.presets import PRESETS, PresetName
from sagan.study.variants import StudyName


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
    jobs: IntOption = None
    """Runs at a time; default: one for each GPU, or one for each core."""
    out: FolderOption = None
    """Folder of the study; default: studies/ and its name."""
    device: DeviceOption = "auto"
    config: Config = field(default_factory=lambda: PRESETS["small"])

    def __post_init__(self) -> None:
        check_ranges(self, least={"seeds": 1, "count": 2, "jobs": 1})


def study(options: Study) -> None:
    """Runs `sagan study`."""
    from sagan.study.report import write_study_report
    from sagan.study.runner import default_jobs, open_study, run_study

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
