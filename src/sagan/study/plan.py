"""A study's folder: the one place that knows its layout.

study.json                  what is compared, and how much of it
runs/VARIANT/seed-N/        a run like any other, resumable and readable by every command
runs/VARIANT/seed-N.txt     what its training printed
runs/VARIANT/seed-N.json    what its evaluation measured
report.md, report.html      the report; figures/ its pictures
"""

import json
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from sagan.config import Config
from sagan.errors import UserError
from sagan.files import write_atomically
from sagan.run import Run, RunInfo, read_as
from sagan.study.variants import STUDIES, Study, StudyName, Variant, update_share

EVALUATIONS = 8  # of a run, while it is trained


@dataclass(frozen=True)
class Plan:
    """What study.json holds."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    study: StudyName
    base: Config
    """What every variant is a change of; its steps are those of one update of D and one of G each."""
    seeds: tuple[int, ...]
    variants: tuple[str, ...]
    count: int
    """Pictures of a run's evaluation, generated and real."""
    features: str
    budget: str
    """What was asked for; the steps follow from it and from the speed that was measured at the start."""
    class_names: tuple[str, ...]
    data_key: str
    shares: dict[str, float] = field(default_factory=dict)
    """Steps for each step of the base, of the variants that are to take the same time: measured at the start."""

    @property
    def definition(self) -> Study:
        return STUDIES[self.study]

    def chosen(self) -> list[Variant]:
        """The variants, their steps and evaluations settled."""
        return [
            settle(v, self.shares.get(v.name)) for v in self.definition.variants(self.base) if v.name in self.variants
        ]


def settle(variant: Variant, share: float | None = None) -> Variant:
    """A variant with its share of the steps (None: by its updates), its evaluations spread evenly over them."""
    config = variant.config
    steps = max(1, round(config.training.steps * (share or update_share(config))))
    every = max(1, -(-steps // EVALUATIONS))
    output = replace(
        config.output,
        log_every=max(1, steps // 100),
        sample_every=every,
        checkpoint_every=every,
        evaluate_every=every,
        keep=1,
    )
    return replace(variant, config=replace(config, training=replace(config.training, steps=steps), output=output))


@dataclass(frozen=True)
class Job:
    """One run of a study."""

    variant: Variant
    seed: int
    path: Path
    """Of the run's folder."""

    @property
    def config(self) -> Config:
        config = self.variant.config
        return replace(config, training=replace(config.training, seed=self.seed))

    @property
    def output_path(self) -> Path:
        return self.path.with_suffix(".txt")

    @property
    def evaluation_path(self) -> Path:
        return self.path.with_suffix(".json")

    def run(self) -> Run | None:
        """The run, if it has begun."""
        return Run(self.path) if (self.path / "config.json").exists() else None

    def rows(self) -> list[dict[str, Any]]:
        """The run's metrics log; nothing before it has begun."""
        run = self.run()
        return run.metrics() if run else []

    def steps_done(self) -> int:
        return max((row["step"] for row in self.rows()), default=0)

    def last_words(self) -> str:
        """The last line of what its commands printed."""
        text = self.output_path.read_text("utf-8", "replace") if self.output_path.exists() else ""
        lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
        return lines[-1].strip().removeprefix("sagan: ") if lines else "it printed nothing"

    def evaluation(self) -> dict[str, Any] | None:
        """What was measured at the end; None before that.

        Raises:
            UserError: the file is damaged.
        """
        if not self.evaluation_path.exists():
            return None
        try:
            found = json.loads(self.evaluation_path.read_bytes())
            return found if isinstance(found["figures"], list) else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.evaluation_path} is damaged: remove it, and it is measured again") from error


class StudyFolder:
    """A study's folder.

    Raises:
        UserError: it holds no study, or its study.json is not readable as one.
    """

    def __init__(self, path: Path):
        self.path = path
        self.plan_path = path / "study.json"
        self.plan = read_as(Plan, self.plan_path, "a study's plan")

    @classmethod
    def create(cls, path: Path, plan: Plan) -> "StudyFolder":
        """A new study."""
        text = json.dumps(asdict(plan), indent=2) + "\n"
        write_atomically(path / "study.json", lambda temporary: temporary.write_text(text))
        return cls(path)

    def jobs(self) -> list[Job]:
        """Every run, the first seed of all variants first, so that an early look sees all of them."""
        return [
            Job(variant, seed, self.path / "runs" / variant.name / f"seed-{seed}")
            for seed in self.plan.seeds
            for variant in self.plan.chosen()
        ]

    def start(self, job: Job) -> Run:
        """The run of a job, begun if it is not there yet."""
        return job.run() or Run.create(job.path, RunInfo(job.config, self.plan.class_names, self.plan.data_key))
