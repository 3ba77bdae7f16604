"""Plan a study, train and evaluate its runs several at a time, and resume it where it was stopped (`sagan study`)."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm

from sagan.config import Config
from sagan.data import Store, prepare
from sagan.data.diff import is_unchanged
from sagan.data.store import cache_folder
from sagan.device import choose_device, choose_precision, keep_memory
from sagan.distributed import Processes
from sagan.errors import UserError
from sagan.locate import absolute_features, absolute_paths
from sagan.metrics.features import open_features
from sagan.presets import different_options
from sagan.run import Run
from sagan.study.plan import Job, MeasuredAt, Plan, StudyFolder
from sagan.study.variants import STUDIES, StudyName, update_share
from sagan.training.progress import say
from sagan.training.speed import seconds, seconds_per_step

EVALUATION_SEED = 1_000_000  # of latents other than those that chose the best checkpoint


def open_study(
    out: Path,
    study: StudyName,
    config: Config,
    *,
    budget: str = "",
    seeds: int = 3,
    only: tuple[str, ...] = (),
    count: int = 2000,
    features: str = "auto",
    measured_at: MeasuredAt = "best",
    jobs: int = 1,
    device: str = "auto",
) -> StudyFolder:
    """Open the study in a folder, or plan a new one if there is none. A study may get more seeds than it had.

    Raises:
        UserError: an option is wrong, or the folder holds a study with other options.
    """
    config, features = absolute_paths(config), absolute_features(features)
    variants = STUDIES[study].variants(config)
    known = [variant.name for variant in variants]
    check_names(study, only, known)
    budget_seconds = seconds(budget) if budget else None
    store = open_images(config, features, device)
    if study == "comparison" and not store.num_classes:
        raise UserError(f"--data {config.data.source}: AC-GAN and SNGAN's projection need images in class folders")
    config = replace(config, model=replace(config.model, num_classes=store.num_classes))
    plan = Plan(
        study=study,
        base=config,
        seeds=tuple(range(config.training.seed, config.training.seed + seeds)),
        variants=tuple(v.name for v in variants if v.name in only or not (only or v.by_name_only)),
        count=count,
        features=features,
        budget=budget,
        class_names=store.class_names,
        data_key=store.key,
        measured_at=measured_at,
    )
    if (out / "study.json").exists():
        folder = StudyFolder(out)
        old = folder.plan.seeds
        more = plan.seeds if plan.seeds[: len(old)] == old else old
        if is_unchanged(folder.plan.data_key, store):
            plan = replace(plan, data_key=folder.plan.data_key)
        _check_same(folder, plan, more)
        return folder if more == old else StudyFolder.create(out, replace(folder.plan, seeds=more))
    if budget_seconds or any(variant.same_time for variant in plan.chosen()):
        plan = _timed(plan, budget_seconds, store, jobs, choose_device(device))
    return StudyFolder.create(out, plan)


def check_names(study: str, only: tuple[str, ...], known: Sequence[str]) -> None:
    """Check that a study has the variants that --only names. Raises UserError for one that it has not."""
    for name in only:
        if name not in known:
            raise UserError(f"--only {name}: the variants of '{study}' are {', '.join(known)}")


def open_images(config: Config, features: str, device: str) -> Store:
    """Open the images of a study, after checking what its runs will need, so that errors come before the training.

    Raises:
        UserError: there are no images, features or device, or none that fit the configuration.
    """
    if not config.data.source:
        raise UserError("--data is missing: pass a folder of images, a .zip, hf:USER/NAME, robots, twins or digits")
    choose_precision(config.training.precision, choose_device(device))
    open_features(features, cache=cache_folder(config.data) / "features")
    store = prepare(config.data, resolution=config.model.resolution, image_channels=config.model.image_channels)
    store.check_trainable()
    return store


def refuse_other_options(path: Path, what: str, plan: Any, theirs: Any) -> None:
    """Raise UserError if the plan in a folder, `theirs`, is not `plan`: both of one class with a `base`."""
    changed = [name for name in vars(plan) if getattr(plan, name) != getattr(theirs, name)]
    if changed:
        words = {"base": ", ".join(different_options(plan.base, theirs.base)), "data_key": "images in its data"}
        listed = " and ".join(words.get(name, name) for name in changed)
        raise UserError(
            f"{path} holds a {what} with other options ({listed}): give the same options to resume it, or another --out"
        )


def _check_same(folder: StudyFolder, plan: Plan, seeds: tuple[int, ...]) -> None:
    """Raise UserError if a folder's plan, with these seeds, differs from `plan` but for what speed determines."""
    theirs = replace(folder.plan, seeds=seeds)
    plan = replace(plan, shares=theirs.shares)
    if plan.budget:
        base = replace(plan.base, training=replace(plan.base.training, steps=theirs.base.training.steps))
        plan = replace(plan, base=base)
    refuse_other_options(folder.path, "study", plan, theirs)


def _timed(plan: Plan, budget: float | None, store: Store, jobs: int, device: torch.device) -> Plan:
    """Return the plan with what a trial determines: shares of the same time, and steps that fit `budget` seconds."""
    keep_memory()
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(threads_of(jobs))
    try:
        alone = Processes(device)
        chosen = plan.chosen()
        costs = {v.name: seconds_per_step(v.config, store, alone) for v in chosen if budget or v.same_time}
        same_time = [v.name for v in chosen if v.same_time]
        base = seconds_per_step(plan.base, store, alone) if same_time else 0.0
    finally:
        torch.set_num_threads(threads)
    shares = {name: base / costs[name] for name in same_time}
    plan = replace(plan, shares=shares)
    if not budget:
        return plan
    cost = sum(costs[v.name] * shares.get(v.name, update_share(v.config)) for v in chosen)
    steps = int(budget * jobs / (cost * len(plan.seeds)))
    if steps < 1:
        raise UserError(f"--budget {plan.budget}: not enough for one step of every run; choose fewer variants (--only)")
    return replace(plan, base=replace(plan.base, training=replace(plan.base.training, steps=steps)))


def default_jobs(device: str) -> int:
    """Return the number of runs at a time: one per GPU, or one per core, which suits small networks best."""
    kind = choose_device(device).type
    return max(1, torch.cuda.device_count() if kind == "cuda" and device in ("auto", "cuda") else os.cpu_count() or 1)


def threads_of(jobs: int) -> int:
    """Return the threads of each of several jobs that share the cores."""
    return max(1, (os.cpu_count() or 1) // jobs)


@dataclass
class Workers:
    """The running processes, and whether they should stop."""

    jobs: int
    device: str
    stopping: bool = False
    processes: set[subprocess.Popen[bytes]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, number: int, command: list[str], output: Path) -> int | None:
        """Run one `sagan` command with its output in a file; returns its status, None if it was stopped."""
        device = self.device
        if device in ("auto", "cuda") and torch.cuda.device_count() > 1:
            device = f"cuda:{number % torch.cuda.device_count()}"
        environment = os.environ | {"OMP_NUM_THREADS": str(threads_of(self.jobs))}
        with output.open("ab") as file:
            with self.lock:
                if self.stopping:
                    return None
                process = subprocess.Popen(
                    [sys.executable, "-m", "sagan", *command, "--device", device],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,  # the terminal's Ctrl-C reaches this process alone, which passes it on once
                )
                self.processes.add(process)
            status = process.wait()
        with self.lock:
            self.processes.discard(process)
        return None if self.stopping else status

    def stop(self) -> None:
        """Tell every process to save and end; called a second time, to end at once."""
        with self.lock:
            self.stopping = True
            for process in self.processes:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGINT)


def run_study(folder: StudyFolder, *, jobs: int, device: str) -> bool:
    """Train and evaluate the runs that are not done; returns whether all runs are evaluated.

    SIGINT or SIGTERM saves and stops all runs; a second signal stops them at once. A run that ends in an error (one
    that diverged, say) does not stop the others; it is tried again when the study is resumed.
    """
    workers = Workers(jobs, device)
    all_jobs = folder.jobs()
    todo = [job for job in all_jobs if job.evaluation() is None]
    for job in todo:
        folder.start(job)
    totals = [job.config.training.steps for job in all_jobs]
    done = [job.steps_done() for job in all_jobs]

    def count_steps() -> int:
        """Return the steps done so far; the logs of finished runs are not read again."""
        for i, job in enumerate(all_jobs):
            if done[i] < totals[i]:
                done[i] = job.steps_done()
        return sum(done)

    with (
        stopped_by_signals(workers),
        ThreadPoolExecutor(jobs) as pool,
        tqdm(total=sum(totals), unit=" steps", desc=f"study: {folder.plan.study}") as bar,
    ):
        running = [pool.submit(_work, workers, i, job, folder.plan) for i, job in enumerate(todo)]
        bar.update(sum(done))
        bar.initial = bar.n  # steps of an earlier call do not count into the rate
        while wait(running, timeout=1).not_done:
            bar.update(count_steps() - bar.n)
        bar.update(count_steps() - bar.n)
    for future in running:
        future.result()
    return all(job.evaluation() is not None for job in all_jobs)


def _work(workers: Workers, number: int, job: Job, plan: Plan) -> None:
    """Train one run to its end and evaluate it."""
    # What a run's config.json names is used only where a command line names it too; `open_study` has compared them.
    base = plan.base
    cache = ["--cache", base.data.cache] if base.data.cache else []
    end = Run(job.path).checkpoint_path(job.config.training.steps)
    measured = end if plan.measured_at == "end" else job.path
    counts = ["--count", str(plan.count), "--reference-count", str(plan.count), "--seed", str(EVALUATION_SEED)]
    for command in (
        ["train", "--resume", str(job.path), "--evaluate-features", base.output.evaluate_features, *cache],
        ["evaluate", str(measured), "--out", str(job.evaluation_path), "--features", plan.features, *counts, *cache],
    ):
        status = workers.run(number, command, job.output_path)
        if status:
            say(f"{job.variant.name}, seed {job.seed}: sagan {command[0]} failed: {job.last_line()}")
        if status != 0:
            return


@contextmanager
def stopped_by_signals(workers: Workers) -> Iterator[None]:
    """Let SIGINT and SIGTERM stop the workers."""

    def stop(number: int, frame: FrameType | None) -> None:
        again = workers.stopping
        say("stopping at once" if again else "stopping all runs, each after its step; Ctrl-C again stops them at once")
        workers.stop()

    previous = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)
