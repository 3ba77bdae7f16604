"""Tables of the images of shards, and scans of single shards, in the cache."""

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sagan.data.shards import remote
from sagan.data.shards.index import ROW, UNCHECKED_ROW, scan
from sagan.data.source import Skipped
from sagan.errors import UserError
from sagan.files import (
    DamagedFile,
    digest_of,
    map_array,
    read_npy_header,
    sha256,
    write_array,
    write_atomically,
)
from sagan.text import printable

SCAN_FORMAT = 3
"""Version of the scans in the cache."""
INDEX, TABLE = "index.json", "index.npy"
"""Files that `sagan data pack` writes next to its shards."""
_MAX_IN_MEMORY = 2**26  # bytes of a table of images; a larger one is mapped
_BLOCK = 2**22  # bytes of a table that are read at once


def scan_shard(name: str, folder: Path) -> Path:
    """Return the path of a shard's scan in the cache; scan the shard if the file does not exist."""
    stamp = remote.stamp(name)
    path = folder / f"{digest_of([SCAN_FORMAT, name, stamp])}.npz"
    if not _is_intact(path):
        block = 2**20 if remote.is_url(name) else 2**13
        scanned = scan(name, stamp[0], lambda start, stop: remote.read(name, start, stop), block)
        problems = json.dumps([(one.name, one.reason) for one in scanned.problems]).encode()
        buffer = io.BytesIO()
        np.savez(buffer, rows=scanned.rows, problems=np.frombuffer(problems, np.uint8))
        write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))
    return path


def _is_intact(path: Path) -> bool:
    """Return whether a scan can be read; its .npz is an archive with checksums."""
    try:
        read_scan(path)
    except Exception:  # NumPy raises SyntaxError, BadZipFile and others on damage
        return False
    return True


def read_scan(path: Path) -> tuple[NDArray[Any], list[Skipped]]:
    """Read the images of a shard, as ROW, and what was skipped, from its scan."""
    with np.load(path, allow_pickle=False) as content:
        return content["rows"], [Skipped(*pair) for pair in json.loads(content["problems"].tobytes())]


def cached_table(path: Path, count: int, rows: Callable[[], Iterator[NDArray[Any]]]) -> NDArray[Any]:
    """Open a table of `count` images in the cache; write it from `rows` if it does not exist or is damaged."""

    if not count:
        return np.zeros(0, ROW)
    for _ in range(2):
        with contextlib.suppress(OSError, ValueError, DamagedFile):
            table = map_array(path)
            if table.dtype == ROW and table.shape == (count,):
                # Read into memory if it is small: a mapped file that is truncated meanwhile kills the process.
                return np.array(table) if table.nbytes <= _MAX_IN_MEMORY else np.asarray(table)
        write_atomically(path, lambda temporary: write_array(temporary, ROW, (count,), rows()))
    raise OSError(f"{path} cannot be read back")


def fetch_table(name: str, max_bytes: int, checksum: str, cache: Path) -> NDArray[Any]:
    """Map the table next to the shards, of ROW or UNCHECKED_ROW. One at a URL is copied into the cache first."""
    path = Path(name)
    size = remote.size(name)
    if remote.is_url(name):
        path = cache / f"fetched-{checksum}.npy"

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for start in range(0, size, _BLOCK):
                file.write(remote.read(name, start, min(start + _BLOCK, size)))

    try:
        if size > max_bytes:
            raise ValueError(f"it has {size:,} bytes, more than the index lists")
        if remote.is_url(name) and not path.is_file():
            write_atomically(path, write)
        if sha256(path) != checksum:
            raise ValueError("its checksum does not match")
        with path.open("rb") as file:
            shape, dtype = read_npy_header(file)
        if dtype not in (ROW, UNCHECKED_ROW) or len(shape) != 1:
            raise ValueError("it is not a table of images")
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        if isinstance(error, UserError) and not isinstance(error, DamagedFile):  # out of reach, not damaged
            raise
        if remote.is_url(name):
            path.unlink(missing_ok=True)
        raise UserError(
            f"{printable(name)} does not match the {INDEX} next to it ({error}): copy both again, or remove both"
        ) from error
    return np.asarray(table)


def convert(table: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a copy of a table as ROW or UNCHECKED_ROW; checksums that it does not have are 0."""
    rows = np.zeros(len(table), dtype)
    fields = table.dtype.names or ()
    for field in dtype.names or ():
        if field in fields:
            rows[field] = table[field]
    return rows


def blocks(table: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield a table in parts: it may be larger than memory."""
    for start in range(0, len(table), 2**16):
        yield table[start : start + 2**16]
