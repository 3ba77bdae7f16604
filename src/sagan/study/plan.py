"""Read and write a study's folder: the one place that knows its layout.

study.json                  what is compared, and how much of it
runs/VARIANT/seed-N/        an ordinary run, which every command can read and resume
runs/VARIANT/seed-N.txt     the output of its training and evaluation
runs/VARIANT/seed-N.json    its evaluation
report.md, report.html      the report
figures/                    the report's images
"""

import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict

from sagan.config import Config
from sagan.errors import UserError
from sagan.files import read_json, write_json
from sagan.parsing import CheckedConfig, read_as
from sagan.run import Run, RunInfo
from sagan.study.variants import STUDIES, Study, StudyName, Variant, update_share

EVALUATIONS = 8  # per run, during training
MeasuredAt = Literal["best", "end"]


@dataclass(frozen=True)
class Plan:
    """The content of study.json."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    study: StudyName
    base: CheckedConfig
    """The configuration that every variant changes; each of its steps is one update of D and one of G."""
    seeds: tuple[int, ...]
    variants: tuple[str, ...]
    count: int
    """Images in a run's evaluation, generated and real."""
    features: str
    budget: str
    """The budget given, such as 2h; the steps follow from it and from the speed measured at the start."""
    class_names: tuple[str, ...]
    data_key: str
    shares: dict[str, float] = field(default_factory=dict)
    """Steps per step of the base, of each variant that gets the same training time; measured at the start."""
    measured_at: MeasuredAt = "best"
    """Which generator of a run is measured: that of the smallest distance during training, or that of its last step."""

    @property
    def definition(self) -> Study:
        return STUDIES[self.study]

    def chosen(self) -> list[Variant]:
        """Return the variants with their steps and evaluations."""
        return [
            settle(v, self.shares.get(v.name)) for v in self.definition.variants(self.base) if v.name in self.variants
        ]


def settle(variant: Variant, share: float | None = None) -> Variant:
    """Return a variant with its share of the steps (None: by its updates), and evaluations spread evenly over them."""
    config = variant.config
    steps = max(1, round(config.training.steps * (share or update_share(config))))
    every = max(1, -(-steps // EVALUATIONS))
    output = replace(
        config.output,
        log_every=max(1, steps // 100),
        sample_every=every,
        checkpoint_every=every,
        evaluate_every=every,
    )
    return replace(variant, config=replace(config, training=replace(config.training, steps=steps), output=output))


def with_seed(config: Config, seed: int) -> Config:
    """Return a configuration that trains with another seed."""
    return replace(config, training=replace(config.training, seed=seed))


@dataclass(frozen=True)
class Job:
    """One run of a study."""

    variant: Variant
    seed: int
    path: Path
    """The run's folder."""

    @property
    def config(self) -> Config:
        return with_seed(self.variant.config, self.seed)

    @property
    def output_path(self) -> Path:
        return self.path.with_suffix(".txt")

    @property
    def evaluation_path(self) -> Path:
        return self.path.with_suffix(".json")

    def run(self) -> Run | None:
        """Return the run; None before it was started."""
        return Run(self.path) if (self.path / "config.json").exists() else None

    def rows(self) -> list[dict[str, Any]]:
        """Return the run's metrics log; empty before the run was started."""
        run = self.run()
        return run.metrics() if run else []

    def steps_done(self) -> int:
        return max((row["step"] for row in self.rows()), default=0)

    def last_line(self) -> str:
        """Return the last line that the run's commands printed."""
        text = self.output_path.read_text("utf-8", "replace") if self.output_path.exists() else ""
        lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
        return lines[-1].strip().removeprefix("sagan: ") if lines else "it printed nothing"

    def evaluation(self) -> dict[str, Any] | None:
        """Read the evaluation made at the end of the run; None before that.

        Raises:
            UserError: the file is damaged.
        """
        if not self.evaluation_path.exists():
            return None
        try:
            evaluation = read_json(self.evaluation_path)
            return evaluation if isinstance(evaluation["figures"], list) else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.evaluation_path} is damaged: delete it to measure the run again") from error


class StudyFolder:
    """Open a study's folder.

    Raises:
        UserError: the folder does not hold a study, or its study.json cannot be read.
    """

    def __init__(self, path: Path):
        self.path = path
        self.plan_path = path / "study.json"
        self.plan = read_as(Plan, self.plan_path, "a study's plan")

    @classmethod
    def create(cls, path: Path, plan: Plan) -> "StudyFolder":
        """Create a new study."""
        write_json(path / "study.json", asdict(plan))
        return cls(path)

    def jobs(self) -> list[Job]:
        """Return every run, the first seed of all variants first, so that an early report covers all variants."""
        return [
            Job(variant, seed, self.path / "runs" / variant.name / f"seed-{seed}")
            for seed in self.plan.seeds
            for variant in self.plan.chosen()
        ]

    def start(self, job: Job) -> Run:
        """Return the run of a job, and create it if it does not exist yet."""
        return job.run() or Run.create(job.path, RunInfo(job.config, self.plan.class_names, self.plan.data_key))
