"""Read the arrays of a .npz file, a .zip of .npy files: never unpickled, and checked before memory is spent."""

import io
import math
import tempfile
import threading
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sagan.errors import UserError
from sagan.files import DamagedFile, read_npy_layout
from sagan.text import printable

MAX_ARRAYS = 1000
"""Most arrays in a file."""
BOMB = 2**30, 100
"""An array that unpacks to more than so many bytes may not be so many times as large as in the file."""

_HEADER = 2**14 + 16  # bytes: more than any header that is read
_BLOCK = 2**20  # bytes that are unpacked at once
_LOCAL_HEADER = 30  # bytes of a member's own header in a .zip, without name and extra field


@dataclass(frozen=True)
class ArrayHeader:
    """What the header of an array says; its data were not read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    start: int
    """Where the data begin, in bytes from the start of the .npy."""

    @property
    def size(self) -> int:
        """Bytes of the data."""
        return math.prod(self.shape) * self.dtype.itemsize


class Npz:
    """A .npz file, open for reading.

    Raises:
        DamagedFile: the file is not an intact .zip, or an array in it does not have the size of its header.
        UserError: the file cannot be read, or is built to exhaust memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.title = printable(str(path))
        try:
            self._archive = zipfile.ZipFile(path)
        except OSError as error:
            raise UserError(f"{self.title} cannot be read: {error.strerror or error}") from error
        except Exception as error:  # zipfile raises many types on damaged bytes
            raise self._damaged("it is not an intact .npz") from error
        self._members: dict[str, zipfile.ZipInfo] = {}
        infos = self._archive.infolist()
        if len(infos) > MAX_ARRAYS:
            raise UserError(f"{self.title} holds {len(infos):,} arrays, more than the limit of {MAX_ARRAYS:,}")
        for info in infos:
            name = info.filename.removesuffix(".npy")
            if name in self._members:
                raise self._damaged(f"it holds the array {printable(name)[:40]} twice")
            self._members[name] = info

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def names(self) -> str:
        """Names of the arrays, for messages."""
        return ", ".join(printable(name)[:40] for name in list(self._members)[:8]) or "none"

    def header(self, name: str) -> ArrayHeader:
        """Return the header of an array, which was compared with the size of its data."""
        info = self._members[name]
        what = f"array {printable(name)}"
        # Before it is opened: newer versions of zipfile refuse it in words of their own.
        if info.compress_type == zipfile.ZIP_STORED and info.file_size > self.path.stat().st_size:
            raise self._damaged(f"the {what} is larger than the file")
        try:
            with self._archive.open(info) as member:
                start = io.BytesIO(member.read(_HEADER))
            shape, dtype, fortran_order = read_npy_layout(start)
        except Exception as error:  # zipfile and its decompressors raise many types on damaged bytes
            raise self._damaged(f"the {what} cannot be read") from error
        if dtype.hasobject or dtype.names is not None:
            raise UserError(f"{self.title}: the {what} holds Python objects, which are never read: save plain numbers")
        header = ArrayHeader(shape, dtype, fortran_order, start.tell())
        if header.start + header.size != info.file_size:
            raise self._damaged(f"the {what} does not have the size of its header, {list(shape)}")
        least, times = BOMB
        if info.file_size > least and info.file_size > times * info.compress_size:
            raise UserError(
                f"{self.title}: the {what} unpacks to {info.file_size / 2**30:,.1f} GiB, more than {times} times its "
                "size in the file: save it uncompressed"
            )
        return header

    def load(self, name: str, max_bytes: int) -> NDArray[Any]:
        """Read an array of at most `max_bytes`."""
        header = self.header(name)
        if header.size > max_bytes:
            raise UserError(
                f"{self.title}: the array {printable(name)} has the shape {list(header.shape)}, more than the limit of "
                f"{max_bytes // 2**20:,} MiB"
            )
        buffer = io.BytesIO()
        self._unpack(name, buffer)
        data = np.frombuffer(buffer.getvalue(), header.dtype, offset=header.start)
        return data.reshape(header.shape, order="F" if header.fortran_order else "C")

    def rows(self, name: str) -> "Rows":
        """Open an array in C order whose rows (first axis) are read one by one."""
        header = self.header(name)
        if header.fortran_order:
            raise UserError(f"{self.title}: the array {printable(name)} is in Fortran order: save it in C order")
        return Rows(self, name, header)

    def _unpack(self, name: str, out: BinaryIO | None) -> None:
        """Write a .npy to a file; None: only compare it with its checksum."""
        try:
            with self._archive.open(self._members[name]) as member:
                left = self._members[name].file_size
                while block := member.read(_BLOCK):  # the end compares the checksum
                    left -= len(block)
                    if out is not None:
                        out.write(block)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise self._damaged(f"the array {printable(name)} cannot be read") from error
        if left:
            raise self._damaged(f"the array {printable(name)} is truncated")

    def _open_data(self, name: str) -> tuple[BinaryIO, int]:
        """Return a file that holds a .npy uncompressed, after a comparison with its checksum, and where it begins."""
        info = self._members[name]
        if info.compress_type != zipfile.ZIP_STORED:
            unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - read as long as the rows are
            self._unpack(name, unpacked)
            return unpacked, 0
        self._unpack(name, None)
        file = self.path.open("rb")
        file.seek(info.header_offset)
        local = file.read(_LOCAL_HEADER)
        return file, file.tell() + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")

    def _damaged(self, reason: str) -> DamagedFile:
        return DamagedFile(f"{self.title} is damaged: {reason}")


class Rows:
    """The rows of an array in a .npz file, read one by one, in any order and from many threads.

    Before the first is read, all of the array is compared with its checksum. A compressed array is unpacked to a
    temporary file.
    """

    def __init__(self, npz: Npz, name: str, header: ArrayHeader) -> None:
        self.shape, self.dtype = header.shape, header.dtype
        self._npz, self._name, self._start = npz, name, header.start
        self._bytes = header.size // max(1, header.shape[0])
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()

    def __getitem__(self, number: int) -> NDArray[Any]:
        with self._lock:
            if self._file is None:
                self._file, begin = self._npz._open_data(self._name)
                self._start += begin
            self._file.seek(self._start + number * self._bytes)
            data = self._file.read(self._bytes)
        if len(data) < self._bytes:
            raise DamagedFile(f"{self._npz.title} was truncated while it was read")
        return np.frombuffer(data, self.dtype).reshape(self.shape[1:])
