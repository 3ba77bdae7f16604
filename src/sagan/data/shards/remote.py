"""Files here or at a URL: which ones a pattern names, how large they are, and parts of their bytes.

Files here need the standard library only; URLs are read by fsspec (extra `remote`). What fails is asked for again a few
times before it is an error, since a run of days is not to end with a connection.
"""

import glob
import itertools
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sagan.errors import UserError
from sagan.text import printable

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between the attempts to read something."""
MOST_FILES = 1_000_000
"""Most files that a pattern may name."""


class Unreachable(UserError):
    """A file that is not there, or not any more, or does not answer."""


_T = TypeVar("_T")
_SECONDS = 30  # that a server may be silent
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_log = logging.getLogger(__name__)


def is_url(name: str) -> bool:
    """Whether a name is a URL of some kind, and not a path."""
    return "://" in name or "::" in name


def expand(pattern: str) -> list[str]:
    """The files that a pattern names: braces in their own order, '{000..012}' or '{a,b}'; wildcards sorted.

    Raises:
        UserError: it names none, or more than MOST_FILES, or its URL cannot be listed.
    """
    names = _expand_braces(pattern)
    found = [one for name in names for one in (_matching(name) if glob.has_magic(name) else [name])]
    if not found:
        raise UserError(f"data source '{printable(pattern)}' matches no file: check the pattern")
    return found


def size(name: str) -> int:
    """Bytes of a file. UserError where it is not there or may not be read."""
    return int(stamp(name)[0])


def stamp(name: str) -> list[Any]:
    """Size in bytes, and what else changes with a file: JSON values."""
    return _repeat(lambda: _stamp(name), name, lasting=(FileNotFoundError, PermissionError))


def exists(name: str) -> bool:
    """Whether there is such a file."""
    if not is_url(name):
        return Path(name).is_file()
    system, path = _system(name)
    return _repeat(lambda: bool(system.isfile(path)), name)


def read(name: str, start: int, stop: int) -> bytes:
    """Bytes from `start` to before `stop`. UserError when they cannot be had, after several attempts."""
    return _repeat(lambda: _read(name, start, stop), name)


def _stamp(name: str) -> list[Any]:
    if not is_url(name):
        state = os.stat(name)
        return [state.st_size, state.st_mtime_ns]
    system, path = _system(name)
    about = system.info(path)
    if about.get("size") is None or not _hands_out_parts(system, name, path):
        raise UserError(
            f"{printable(name)}: its server does not hand out parts of files (HTTP ranges): use one that does, or copy "
            "the files here"
        )
    marks = (about.get(key) for key in ("ETag", "etag", "LastModified", "mtime", "updated", "created"))
    return [int(about["size"]), next((str(mark) for mark in marks if mark), "")]


def _read(name: str, start: int, stop: int) -> bytes:
    if not is_url(name):
        with open(name, "rb") as file:
            file.seek(start)
            got = file.read(stop - start)
    else:
        system, path = _system(name)
        got = system.cat_file(path, start=start, end=stop)
    if len(got) != stop - start:
        raise EOFError(f"{len(got)} bytes came where {stop - start} should be: it is cut off, or has changed")
    return got


def _repeat(attempt: Callable[[], _T], name: str, lasting: tuple[type[Exception], ...] = ()) -> _T:
    """What `attempt` returns, at the first time or later; errors that are `lasting` are not waited for."""
    for wait in (*WAITS, None):
        try:
            return attempt()
        except UserError:
            raise
        except Exception as error:  # each kind of URL has errors of its own
            reason = printable(" ".join(str(getattr(error, "strerror", None) or error).split())[:200])
            reason = reason or type(error).__name__
            if isinstance(error, FileNotFoundError):
                reason = "it does not exist"
            if wait is None or isinstance(error, lasting):
                again = "" if wait is not None else f" after {len(WAITS) + 1} attempts"
                raise Unreachable(
                    f"{printable(name)} cannot be read{again}: {reason}; check that it is there and can be reached"
                ) from error
            _log.warning("%s cannot be read (%s): trying again in %g s", printable(name), reason, wait)
            time.sleep(wait)
    raise AssertionError


def _system(name: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise UserError(f"{printable(name)} is a URL: reading it needs fsspec: pip install 'sagan[remote]'") from None
    options: dict[str, Any] = {}
    try:
        if name.startswith(("http://", "https://")):
            from aiohttp import ClientTimeout

            timeout = ClientTimeout(total=None, sock_connect=_SECONDS, sock_read=_SECONDS)
            options = {"client_kwargs": {"timeout": timeout}}
        system, path = url_to_fs(name, **options)
    except ImportError as error:  # fsspec names the package that this kind of URL needs
        raise UserError(f"{printable(name)} cannot be read: {printable(str(error))}; pip install it") from error
    except ValueError as error:
        raise UserError(f"{printable(name)} is no URL that fsspec reads: {printable(str(error))}") from error
    return system, path


def _hands_out_parts(system: Any, name: str, path: str) -> bool:
    """Whether a range can be read alone; asked of HTTP servers, which may send all of a file instead."""
    if not name.startswith(("http://", "https://")):
        return True
    try:
        with system.open(path, block_size=2**12, cache_type="none") as file:
            file.seek(1)
            file.read(1)
    except ValueError:
        return False
    return True


def _matching(pattern: str) -> list[str]:
    if not is_url(pattern):
        return sorted(glob.glob(pattern))
    system, path = _system(pattern)
    return sorted(system.unstrip_protocol(one) for one in _repeat(lambda: system.glob(path), pattern))


def _expand_braces(pattern: str) -> list[str]:
    parts = _BRACES.split(pattern)  # text and the insides of braces in turn
    choices = [[part] if i % 2 == 0 else _choices(part) for i, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MOST_FILES:
        raise _too_many(pattern)
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _choices(inside: str) -> list[str]:
    found = _RANGE.fullmatch(inside)
    if found is None:
        return inside.split(",") if "," in inside else ["{" + inside + "}"]
    first, last = found.groups()
    if max(len(first), len(last)) > 18 or int(last) - int(first) >= MOST_FILES:
        raise _too_many("{" + inside[:60] + "}")
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def _too_many(pattern: str) -> UserError:
    return UserError(f"data source '{printable(pattern)}' names more than {MOST_FILES:,} files: give fewer")
