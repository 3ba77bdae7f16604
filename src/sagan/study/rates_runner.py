"""Plan the search of `sagan study rates`, run its trials several at a time, and resume it where it was stopped."""

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch
from tqdm import tqdm

from sagan.config import Config
from sagan.data import prepare
from sagan.data.diff import is_unchanged
from sagan.data.store import cache_folder
from sagan.device import choose_device
from sagan.errors import UserError
from sagan.locate import absolute_paths
from sagan.metrics.features import open_features
from sagan.metrics.monitor import Monitor
from sagan.study.rates import VARIANTS, RatesFolder, RatesPlan, Trials, describe
from sagan.study.runner import check_names, open_images, refuse_other_options, threads_of


def open_search(
    out: Path,
    config: Config,
    *,
    seeds: int = 2,
    only: tuple[str, ...] = (),
    max_distance: float = 0.8,
    min_diversity: float = 0.1,
    device: str = "auto",
) -> RatesFolder:
    """Open the search in a folder, or plan a new one if there is none. A search may get more seeds than it had.

    Raises:
        UserError: an option is wrong, or the folder holds a search with other options.
    """
    config = absolute_paths(config)
    check_names("rates", only, VARIANTS)
    store = open_images(config, config.output.evaluate_features, device)
    if len(store) < 2:
        raise UserError(f"--data {config.data.source} holds {len(store)} image: pass at least 2")
    config = replace(config, model=replace(config.model, num_classes=store.num_classes))
    plan = RatesPlan(
        base=config,
        seeds=tuple(range(config.training.seed, config.training.seed + seeds)),
        variants=tuple(name for name in VARIANTS if name in only or not only),
        max_distance=max_distance,
        min_diversity=min_diversity,
        data_key=store.key,
    )
    if not (out / "rates.json").exists():
        return RatesFolder.create(out, plan)
    folder = RatesFolder(out)
    theirs = folder.plan
    if plan.seeds[: len(theirs.seeds)] == theirs.seeds:
        theirs = replace(theirs, seeds=plan.seeds)
    if is_unchanged(theirs.data_key, store):
        plan = replace(plan, data_key=theirs.data_key)
    refuse_other_options(out, "search", plan, theirs)
    return RatesFolder.create(out, plan)


def run_search(folder: RatesFolder, *, jobs: int, device: str) -> None:
    """Make the trials that are missing, one search per job at a time.

    SIGINT or SIGTERM stops all of them at once; every trial that was complete is recorded, and no other.
    """
    total = len(folder.searches())
    todo = [i for i, search in enumerate(folder.searches()) if search.next_rate() is not None]
    with tqdm(total=total, initial=total - len(todo), unit=" searches", desc="study: rates") as bar:
        if jobs == 1:
            for i in todo:
                _search(folder.path, i, device)
                bar.update()
            return
        context = multiprocessing.get_context("spawn")
        with _terminable(), context.Pool(jobs, _start_worker, (threads_of(jobs),)) as pool:
            results = [pool.apply_async(_search, (folder.path, i, device)) for i in todo]
            for result in results:
                result.get()
                bar.update()


def _start_worker(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers
    torch.set_num_threads(threads)


def _search(path: Path, number: int, device: str) -> None:
    """Make the trials of one search of a folder, and print a line for each."""
    folder = RatesFolder(path)
    config = folder.plan.base
    output = config.output
    store = prepare(
        config.data, resolution=config.model.resolution, image_channels=config.model.image_channels, progress=False
    )
    features = open_features(output.evaluate_features, cache=cache_folder(config.data) / "features")
    where = choose_device(device)
    monitor = Monitor(store, features, output.evaluate_count, where)
    search = folder.searches()[number]
    for trial in Trials(folder.plan, store, monitor, where).run(search):
        with tqdm.external_write_mode():
            print(describe(search, trial), flush=True)


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, so that the workers end with this process."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
