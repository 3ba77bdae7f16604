"""The command `sagan study rates`."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from sagan.commands.arguments import DeviceOption, FolderOption
from sagan.commands.study import tell_overridden
from sagan.config import Config, IntOption, check_ranges
from sagan.presets import PRESETS, PresetName

STEPS = 600


def with_steps(config: Config) -> Config:
    """Return a preset's configuration with the steps of a trial."""
    return replace(config, training=replace(config.training, steps=STEPS))


@dataclass(frozen=True)
class Rates:
    """Search the largest learning rate that training survives (Figure 3), with spectral norm in D or in both networks.

    Every trial trains --steps steps (default: 600) at constant rates, with the hinge loss and without attention. It
    survives if losses and weights stay finite, and if the distance and the diversity at the end are within the bounds
    below. From the preset's rate on, rates are multiplied or divided by 4 until one survives and one fails, and then
    bisected in their logarithm until the two are within a factor of 1.25. If the search is interrupted, the same
    command resumes it. The other options are those of sagan train and apply to all trials.
    """

    preset: PresetName = "small"
    """Preset that sets the defaults of all options below, but for --steps."""
    seeds: int = 2
    """Searches of each variant: seeds --seed, --seed + 1, ..."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="VARIANT ...", help_behavior_hint="")] = ()
    """Search only for these variants: sn-d, sn-both, sn-both-ttur; default: all."""
    max_distance: float = 0.8
    """Largest distance to the data at the end of a trial, as a share of the untrained generator's."""
    min_diversity: float = 0.1
    """Smallest diversity at the end of a trial."""
    jobs: IntOption = None
    """Number of searches at a time; default: one per GPU, or one per CPU core."""
    out: FolderOption = None
    """Folder of the search; default: studies/rates."""
    device: DeviceOption = "auto"
    config: Config = field(default_factory=lambda: with_steps(PRESETS["small"]))
    given: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Names of the options on the command line."""

    def __post_init__(self) -> None:
        check_ranges(self, minimum={"seeds": 1, "jobs": 1, "min_diversity": 0}, positive=("max_distance",))


def rates(options: Rates) -> None:
    """Run `sagan study rates`."""
    from sagan.study.rates import all_variants
    from sagan.study.rates_report import write_rates_report
    from sagan.study.rates_runner import open_search, run_search
    from sagan.study.runner import default_jobs

    tell_overridden(options.given, options.config, all_variants(options.config))
    folder = open_search(
        options.out or Path("studies") / "rates",
        options.config,
        seeds=options.seeds,
        only=options.only,
        max_distance=options.max_distance,
        min_diversity=options.min_diversity,
        device=options.device,
    )
    jobs = options.jobs or default_jobs(options.device)
    searches = len(folder.searches())
    print(
        f"{searches} searches, trials of {folder.plan.base.training.steps:,} steps, {jobs} at a time -> {folder.path}"
    )
    try:
        run_search(folder, jobs=jobs, device=options.device)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("trials that ended are kept, and the same command resumes") from stop
    finally:
        print(write_rates_report(folder))
