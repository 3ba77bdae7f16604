"""`sagan study`: plans the runs, trains and measures them several at a time, goes on where it was stopped."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

import torch
from tqdm import tqdm

from sagan.config import Config
from sagan.data import Batches, Prefetcher, Store, prepare
from sagan.data.store import cache_folder
from sagan.device import choose_device, choose_precision, keep_memory
from sagan.errors import UserError
from sagan.metrics.features import open_features
from sagan.study.plan import Job, Plan, StudyFolder
from sagan.study.variants import STUDIES, StudyName, update_share
from sagan.training.progress import say
from sagan.training.step import Trainer

TRIAL_STEPS = 8  # of a timed block, at the least
TRIAL_BLOCKS = 6  # at the most
TRIAL_TOLERANCE = 0.05  # of the later of two blocks: both then count as the speed of the run
EVALUATION_SEED = 1_000_000  # latents that no run was chosen by
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """'2h', '90m', '1.5h' or '45s' as seconds.

    Raises:
        UserError: it is none of these.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not found or not float(found[1]):
        raise UserError(f"--budget {text}: give a time such as 2h, 90m or 45s")
    return float(found[1]) * _UNITS[found[2]]


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
    jobs: int = 1,
    device: str = "auto",
) -> StudyFolder:
    """The study in a folder, planned anew if there is none.

    Raises:
        UserError: bad options, or the folder holds a study of something else.
    """
    known = [variant.name for variant in STUDIES[study].variants(config)]
    for name in only:
        if name not in known:
            raise UserError(f"--only {name}: the variants of '{study}' are {', '.join(known)}")
    if not config.data.source:
        raise UserError("--data is missing: give a folder of pictures, a .zip, hf:USER/NAME, robots or digits")
    choose_precision(config.training.precision, choose_device(device))
    budget_seconds = seconds(budget) if budget else None
    open_features(
        features, cache=cache_folder(config.data) / "features"
    )  # complains now rather than after the training
    store = prepare(config.data, resolution=config.model.resolution, image_channels=config.model.image_channels)
    if study == "comparison" and not store.num_classes:
        raise UserError(f"--data {config.data.source}: AC-GAN and SNGAN's projection need pictures in class folders")
    config = replace(config, model=replace(config.model, num_classes=store.num_classes))
    plan = Plan(
        study=study,
        base=config,
        seeds=tuple(range(config.training.seed, config.training.seed + seeds)),
        variants=tuple(name for name in known if name in only or not only),
        count=count,
        features=features,
        budget=budget,
        class_names=store.class_names,
        data_key=store.key,
    )
    if (out / "study.json").exists():
        folder = StudyFolder(out)
        _check_same(folder, plan)
        return folder
    if budget_seconds or any(variant.same_time for variant in plan.chosen()):
        plan = _timed(plan, budget_seconds, store, jobs, choose_device(device))
    return StudyFolder.create(out, plan)


def _check_same(folder: StudyFolder, plan: Plan) -> None:
    """Raises UserError if a folder's study is another than that asked for; what follows from measured speed may be."""
    theirs = folder.plan
    plan = replace(plan, shares=theirs.shares)
    if plan.budget:
        base = replace(plan.base, training=replace(plan.base.training, steps=theirs.base.training.steps))
        plan = replace(plan, base=base)
    if plan != theirs:
        changed = [name for name in vars(plan) if getattr(plan, name) != getattr(theirs, name)]
        raise UserError(
            f"{folder.path} holds a study with another {' and '.join(changed)}: give the same options to go on with "
            "it, or another --out"
        )


def _timed(plan: Plan, budget: float | None, store: Store, jobs: int, device: torch.device) -> Plan:
    """The plan with what follows from a trial: shares of the same time, and steps that fit into `budget` seconds."""
    keep_memory()
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(_threads(jobs))
    try:
        chosen = plan.chosen()
        costs = {v.name: _seconds_per_step(v.config, store, device) for v in chosen if budget or v.same_time}
        same_time = [v.name for v in chosen if v.same_time]
        base = _seconds_per_step(plan.base, store, device) if same_time else 0.0
    finally:
        torch.set_num_threads(threads)
    shares = {name: base / costs[name] for name in same_time}
    plan = replace(plan, shares=shares)
    if not budget:
        return plan
    cost = sum(costs[v.name] * shares.get(v.name, update_share(v.config)) for v in chosen)
    steps = int(budget * jobs / (cost * len(plan.seeds)))
    if steps < 1:
        raise UserError(f"--budget {plan.budget}: not enough for one step of every run; take fewer variants (--only)")
    return replace(plan, base=replace(plan.base, training=replace(plan.base.training, steps=steps)))


def _seconds_per_step(config: Config, store: Store, device: torch.device) -> float:
    """Return what a training step takes, with and without penalty as often as in training, after a warm-up."""
    torch.backends.cudnn.benchmark = True  # all as in training: its search for kernels belongs to the warm-up
    trainer = Trainer(config.model, config.training, device)
    order = Batches(store, config.training.batch_size, seed=0, flips=config.data.flips)
    every = config.training.penalty_every
    block = -(-TRIAL_STEPS // every) * every  # steps; every block has as many penalties as any other
    seconds: list[float] = []
    with closing(Prefetcher(order, device)) as batches:
        for step in range(every + 1):  # both kinds of step: the first of each loads its kernels
            trainer.step(step, batches)
        for start in range(every + 1, every + 1 + TRIAL_BLOCKS * block, block):
            _synchronise(device)
            since = time.perf_counter()
            for step in range(start, start + block):
                trainer.step(step, batches)
            _synchronise(device)
            seconds.append((time.perf_counter() - since) / block)
            if has_settled(seconds):
                break
    return (seconds[-2] + seconds[-1]) / 2


def has_settled(seconds: Sequence[float]) -> bool:
    """Return whether the last two of some durations agree, so that none of the warm-up is left in them."""
    return len(seconds) > 1 and abs(seconds[-1] - seconds[-2]) <= TRIAL_TOLERANCE * seconds[-1]


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def default_jobs(device: str) -> int:
    """Runs at a time: one for each GPU, or one for each core, which suits small networks best."""
    kind = choose_device(device).type
    return max(1, torch.cuda.device_count() if kind == "cuda" and device in ("auto", "cuda") else os.cpu_count() or 1)


def _threads(jobs: int) -> int:
    return max(1, (os.cpu_count() or 1) // jobs)


@dataclass
class Workers:
    """The processes at work, and whether they are to stop."""

    jobs: int
    device: str
    stopping: bool = False
    processes: set[subprocess.Popen[bytes]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, number: int, command: list[str], output: Path) -> int | None:
        """One `sagan` command to its end, what it prints going to a file; its status, None where it was stopped."""
        device = self.device
        if device in ("auto", "cuda") and torch.cuda.device_count() > 1:
            device = f"cuda:{number % torch.cuda.device_count()}"
        environment = os.environ | {"OMP_NUM_THREADS": str(_threads(self.jobs))}
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
                    start_new_session=True,  # the terminal's Ctrl-C comes to us alone, who pass it on once
                )
                self.processes.add(process)
            status = process.wait()
        with self.lock:
            self.processes.discard(process)
        return None if self.stopping else status

    def stop(self) -> None:
        """Asks every process to save and end; a second time, to end at once."""
        with self.lock:
            self.stopping = True
            for process in self.processes:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGINT)


def run_study(folder: StudyFolder, *, jobs: int, device: str) -> bool:
    """Trains and measures what is not yet; returns whether all of it is there.

    SIGINT or SIGTERM stop all runs, saved; a second one at once. A run that ends in an error (it came apart, say) does
    not keep the others from going on; it is tried again when the study is.
    """
    workers = Workers(jobs, device)
    all_jobs = folder.jobs()
    todo = [job for job in all_jobs if job.evaluation() is None]
    for job in todo:
        folder.start(job)
    totals = [job.config.training.steps for job in all_jobs]
    done = [job.steps_done() for job in all_jobs]

    def look() -> int:
        """Steps done by now; the logs of runs that are through are not read again."""
        done[:] = [n if n == most else job.steps_done() for n, most, job in zip(done, totals, all_jobs, strict=True)]
        return sum(done)

    with (
        stopped_by_signals(workers),
        ThreadPoolExecutor(jobs) as pool,
        tqdm(total=sum(totals), unit=" steps", desc=f"study: {folder.plan.study}") as bar,
    ):
        running = [pool.submit(_work, workers, i, job, folder.plan) for i, job in enumerate(todo)]
        bar.update(sum(done))
        bar.initial = bar.n  # or what was done another time would count into the rate
        while wait(running, timeout=1).not_done:
            bar.update(look() - bar.n)
        bar.update(look() - bar.n)
    for future in running:
        future.result()
    return all(job.evaluation() is not None for job in all_jobs)


def _work(workers: Workers, number: int, job: Job, plan: Plan) -> None:
    """Trains one run to its end and measures it."""
    # What a run's config.json names is used only where a command line names it too; `open_study` has compared them.
    base = plan.base
    cache = ["--cache", base.data.cache] if base.data.cache else []
    counts = ["--count", str(plan.count), "--reference-count", str(plan.count), "--seed", str(EVALUATION_SEED)]
    for command in (
        ["train", "--resume", str(job.path), "--evaluate-features", base.output.evaluate_features, *cache],
        ["evaluate", str(job.path), "--out", str(job.evaluation_path), "--features", plan.features, *counts, *cache],
    ):
        status = workers.run(number, command, job.output_path)
        if status:
            say(f"{job.variant.name}, seed {job.seed}: sagan {command[0]} failed: {job.last_words()}")
        if status != 0:
            return


@contextmanager
def stopped_by_signals(workers: Workers) -> Iterator[None]:
    """Lets SIGINT and SIGTERM stop the workers."""

    def stop(number: int, frame: FrameType | None) -> None:
        again = workers.stopping
        say("stopping at once" if again else "stopping all runs, each after its step; once more to stop at once")
        workers.stop()

    previous = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)
