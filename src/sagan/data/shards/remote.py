"""Access to files by path or URL: expand patterns, get sizes, read ranges of bytes.

Local files need the standard library only; URLs are read with fsspec (extra `remote`). Failed reads are retried, so
that a dropped connection does not end a long run.
"""

import glob
import itertools
import logging
import math
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sagan.data.images import Unavailable
from sagan.errors import UserError
from sagan.text import printable

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds to wait before each retry."""
MAX_FILES = 1_000_000
"""Number of files that a pattern may name."""


class Unreachable(Unavailable):
    """Report a file that does not exist, no longer exists, or whose server does not answer."""


_T = TypeVar("_T")
_TIMEOUT = 30  # seconds without an answer of a server
_LONGEST = 300  # seconds of one request: a server that sends a byte now and then would hold it for ever
_URL = re.compile(r"[A-Za-z][\w+.-]*(://|::)")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_log = logging.getLogger(__name__)


def is_url(name: str) -> bool:
    """Return whether a name is a URL of any kind, not a path."""
    return bool(_URL.match(name)) and not os.path.exists(name)


def expand(pattern: str) -> list[str]:
    """List the files that a pattern names: braces ('{000..012}', '{a,b}') in their order, wildcards sorted.

    Raises:
        UserError: the pattern names no file or more than MAX_FILES, or its URL cannot be listed.
    """
    names: list[str] = []
    there, rest = ("", pattern) if is_url(pattern) else _split_existing(pattern)
    for name in _expand_braces(rest):
        if glob.has_magic(name):
            names += _match_wildcards(there, name)
        else:
            names.append(there + name)
    if not names:
        raise UserError(f"data source '{printable(pattern)}' matches no file: check the pattern")
    return names


def size(name: str) -> int:
    """Return the size of a file in bytes. Raises UserError if the file does not exist or cannot be read."""
    return int(stamp(name)[0])


def stamp(name: str) -> list[Any]:
    """Return the size of a file in bytes and a JSON value that changes with the file. Raises UserError as `size`."""
    return _retry(lambda: _stamp(name), name, permanent=(FileNotFoundError, PermissionError))


def exists(name: str) -> bool:
    """Return whether a file of this name exists. Raises UserError if its server does not answer."""
    if not is_url(name):
        return Path(name).is_file()
    system, path = _system(name)

    def find() -> bool:  # not `isfile`, which says no whatever goes wrong
        try:
            return bool(system.info(path).get("type", "file") == "file")
        except FileNotFoundError as error:
            if _network_failure(error):
                raise
            return False

    return _retry(find, name)


def read(name: str, start: int, stop: int) -> bytes:
    """Read the bytes from `start` up to `stop`. Raises UserError if several attempts fail."""
    return _retry(lambda: _read(name, start, stop), name)


def _stamp(name: str) -> list[Any]:
    if not is_url(name):
        state = os.stat(name)
        return [state.st_size, state.st_mtime_ns]
    system, path = _system(name)
    info = system.info(path)
    if info.get("size") is None or not _serves_ranges(system, name, path):
        raise UserError(
            f"{printable(name)}: its server does not serve parts of files (HTTP ranges): use another server, or copy "
            "the files to a local folder"
        )
    versions = (info.get(key) for key in ("ETag", "etag", "LastModified", "mtime", "updated", "created"))
    return [int(info["size"]), next((str(version) for version in versions if version), "")]


def _read(name: str, start: int, stop: int) -> bytes:
    if not is_url(name):
        with open(name, "rb") as file:
            file.seek(start)
            data = file.read(stop - start)
    else:
        system, path = _system(name)
        data = system.cat_file(path, start=start, end=stop)
    if len(data) != stop - start:
        raise EOFError(f"{len(data)} bytes received, {stop - start} expected: it is truncated, or has changed")
    return data


def _retry(attempt: Callable[[], _T], name: str, permanent: tuple[type[Exception], ...] = ()) -> _T:
    """Call `attempt` until it succeeds, and return its result; errors of a `permanent` type are not retried."""
    for wait in (*WAITS, None):
        try:
            return attempt()
        except UserError:
            raise
        except Exception as raised:  # every kind of URL raises its own types
            error = _network_failure(raised) or raised
            reason = printable(" ".join(str(getattr(error, "strerror", None) or error).split())[:200])
            reason = reason or type(error).__name__
            if isinstance(error, FileNotFoundError):
                reason = "it does not exist"
            if wait is None or isinstance(error, permanent):
                attempts = "" if wait is not None else f" after {len(WAITS) + 1} attempts"
                raise Unreachable(
                    f"{printable(name)} cannot be read{attempts}: {reason}; check that it exists and can be reached"
                ) from error
            _log.warning("%s cannot be read (%s): trying again in %g s", printable(name), reason, wait)
            time.sleep(wait)
    raise AssertionError  # the last attempt returns or raises


def _network_failure(error: Exception) -> BaseException | None:
    """Return what went wrong if fsspec took a failure of the network, or of a server, for a missing file."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or cause is None or isinstance(cause, FileNotFoundError):
        return None
    status = getattr(cause, "status", 500)
    of_network = isinstance(cause, OSError | TimeoutError) or type(cause).__module__.startswith("aiohttp")
    return cause if of_network and status >= 500 else None


def _system(name: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise UserError(
            f"{printable(name)} is a URL: reading it needs fsspec: pip install 'sagan-torch[remote]'"
        ) from None
    options: dict[str, Any] = {}
    try:
        if name.startswith(("http://", "https://")):
            from aiohttp import ClientTimeout

            timeout = ClientTimeout(total=_LONGEST, sock_connect=_TIMEOUT, sock_read=_TIMEOUT)
            options = {"client_kwargs": {"timeout": timeout}}
        system, path = url_to_fs(name, **options)
    except ImportError as error:  # fsspec names the package that this kind of URL needs
        raise UserError(f"{printable(name)} cannot be read: {printable(str(error))}; pip install it") from error
    except ValueError as error:
        raise UserError(f"{printable(name)} is not a URL that fsspec can read: {printable(str(error))}") from error
    return system, path


def _serves_ranges(system: Any, name: str, path: str) -> bool:
    """Return whether a range can be read alone. HTTP servers may send the complete file instead; others do not."""
    if not name.startswith(("http://", "https://")):
        return True
    try:
        with system.open(path, block_size=2**12, cache_type="none") as file:
            file.seek(1)
            file.read(1)
    except ValueError:
        return False
    return True


def _split_existing(pattern: str) -> tuple[str, str]:
    """Split a pattern after its longest beginning that exists: there, brackets and braces are a name."""
    end = len(pattern)
    while end and not os.path.exists(pattern[:end]):
        end = pattern.rfind("/", 0, end)
        if end <= 0:
            return "", pattern
    return pattern[:end], pattern[end:]


def _match_wildcards(there: str, pattern: str) -> list[str]:
    if not is_url(pattern):
        return sorted(glob.glob(glob.escape(there) + pattern))
    system, path = _system(pattern)
    return sorted(system.unstrip_protocol(match) for match in _retry(lambda: system.glob(path), pattern))


def _expand_braces(pattern: str) -> list[str]:
    parts = _BRACES.split(pattern)  # even: text; odd: the text inside braces
    choices = [[part] if i % 2 == 0 else _expand_brace(part) for i, part in enumerate(parts)]
    if math.prod(map(len, choices)) > MAX_FILES:
        raise _too_many(pattern)
    return ["".join(combination) for combination in itertools.product(*choices)]


def _expand_brace(inside: str) -> list[str]:
    """Expand '000..012' or 'a,b', the text inside braces. Other braces are not part of a pattern and stay."""
    match = _RANGE.fullmatch(inside)
    if match is None:
        return inside.split(",") if "," in inside else ["{" + inside + "}"]
    first, last = match.groups()
    if max(len(first), len(last)) > 18 or int(last) - int(first) >= MAX_FILES:
        raise _too_many("{" + inside[:60] + "}")
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def _too_many(pattern: str) -> UserError:
    return UserError(f"data source '{printable(pattern)}' names more than {MAX_FILES:,} files: use fewer")
