"""Runs tests on a fake GPU: each in a second process, for the guard changes the process that loads it for good."""

import atexit
import functools
import importlib
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from helpers.fake_cuda import guard

REQUIRED = "SAGAN_REQUIRE_FAKE_CUDA"
"""Environment variable that turns the skipping of these tests into a failure."""

_pool: ProcessPoolExecutor | None = None


def fake_gpu(test: Callable[..., None]) -> Callable[..., None]:
    """Make a test run in a process with a fake GPU, which the tests of one pytest process share.

    The test is a function of a module; what it is called with must be picklable. Without a compiler it is skipped, or
    fails where $SAGAN_REQUIRE_FAKE_CUDA is set.
    """

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        global _pool
        library = _library()
        if isinstance(library, guard.Unavailable):
            if os.environ.get(REQUIRED):
                pytest.fail(f"{REQUIRED} is set: {library}", pytrace=False)
            pytest.skip(str(library))
        if _pool is None:
            context = multiprocessing.get_context("spawn")
            _pool = ProcessPoolExecutor(1, context, initializer=guard.load, initargs=(library,))
            atexit.register(_pool.shutdown)
        try:
            failure = _pool.submit(_run, sys.modules[test.__module__].__file__, test.__name__, arguments).result()
        except BrokenProcessPool:
            _pool = None
            failure = "the process with the fake GPU has crashed"
        if failure:
            pytest.fail(failure, pytrace=False)

    return run


@functools.cache
def _library() -> Path | guard.Unavailable:
    try:
        return guard.build()
    except guard.Unavailable as reason:
        return reason


def _run(file: str, name: str, arguments: dict[str, Any]) -> str:
    """Run a test in this process; what went wrong, with a traceback, else nothing."""
    folder, module = os.path.split(file)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    test = getattr(importlib.import_module(module.removesuffix(".py")), name).__wrapped__
    try:
        test(**arguments)
    except Exception:
        return traceback.format_exc()
    return ""
