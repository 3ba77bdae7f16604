"""File access: atomic writes, locks that end with their process, JSON, digests, and tensors with a checksum."""

import contextlib
import errno
import glob
import hashlib
import io
import json
import math
import os
import re
import secrets
import shutil
import socket
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sagan.errors import UserError
from sagan.formats import from_disk, to_disk

MAX_JSON_BYTES = 2**24
"""Largest JSON file, and largest line of a JSON Lines file, that is read."""

_NPY_CHECKSUM = b"sagan crc32 "


class DamagedFile(UserError):
    """Report a file of tensors or arrays that is truncated, changed, or belongs to another network."""


def write_atomically(path: Path, write: Callable[[Path], object], *, sync: bool = True) -> None:
    """Write a file next to `path` with `write`, then move it to `path` in one step.

    `path` holds either its previous content or all of the new content, whatever happens. Without `sync` a power cut
    may leave it empty: for one of many files that can be made again.

    Raises:
        UserError: the file cannot be written, e.g. the disk is full or the folder is read-only. No half-written
            file remains.
    """
    temporary = temporary_path(path)
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            if sync:
                with open(temporary, "rb+") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path} could not be written: {reason}; its previous content is untouched") from error


def temporary_path(path: Path) -> Path:
    """Return a new hidden name in the folder of `path`, which tells `sweep` the process that owns it."""
    # The suffix stays: writers choose the format by it.
    return path.with_name(f"{_temporary_prefix()}{os.getpid()}-{secrets.token_hex(4)}-{path.stem[:32]}{path.suffix}")


def sweep(folder: Path, *, alone: bool = False) -> None:
    """Remove temporary files and folders that killed processes left in a folder (not in its subfolders).

    Those of running processes stay. Those of other machines stay too, since their processes are not visible here.

    Args:
        folder: where to look.
        alone: the caller is the only writer in this folder: remove all of them.
    """
    if os.name == "nt" and not alone:  # on Windows, os.kill(pid, 0) would end the process
        return
    for path in folder.glob(".tmp-*" if alone else f"{glob.escape(_temporary_prefix())}*"):
        owner = re.fullmatch(r"(\d+)-[0-9a-f]{8}(-.*)?", path.name.removeprefix(_temporary_prefix()))
        if alone or (owner and not _is_running(int(owner[1]))):
            shutil.rmtree(path, ignore_errors=True)  # a folder
            with contextlib.suppress(OSError):
                path.unlink()


def _temporary_prefix() -> str:
    return f".tmp-{socket.gethostname()}-"


def _is_running(process: int) -> bool:
    """Return whether a process id exists on this machine; True if the system does not say."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


@contextlib.contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock file for the duration of the context.

    The system releases the lock when the process ends, however it ends. The file is removed afterwards; a file that a
    killed process left is not a lock. The lock also holds between machines that share a folder over NFS. On a file
    system without locks nothing is locked.

    Raises:
        UserError: another process holds the lock; the message is `busy`.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(busy) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise UserError(f"{path} could not be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        if lock.is_locked:
            with contextlib.suppress(OSError):  # before the release: no process may lock a file that is about to vanish
                path.unlink(missing_ok=True)
            lock.release()


def expand_home(path: str | Path) -> Path:
    """Replace a leading '~' or '~USER' by the home folder. A path whose home is not known stays as it is."""
    return Path(os.path.expanduser(path))  # Path.expanduser would raise RuntimeError


def read_bytes(path: Path, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """Read a file.

    Raises:
        ValueError: the file is larger than `max_bytes`.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"more than {max_bytes // 2**20} MiB")
    return data


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically. Raises UserError if that fails."""
    text = json.dumps(value, indent=2) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text))


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Parse a JSON file.

    Raises:
        ValueError: the file is not JSON, or larger than `max_bytes`.
        OSError: the file cannot be read.
    """
    data = read_bytes(path, max_bytes)
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def write_npy_header(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Write the header of a .npy file, whose data follow in C order.

    NumPy pads the header so that the first dimension can grow: writing it again at the start of the file, with the
    final shape, does not overwrite data.
    """
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as a .npy file with a checksum behind its data, atomically. NumPy ignores the checksum."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    data = buffer.getvalue()
    write_atomically(path, lambda temporary: temporary.write_bytes(data + _npy_checksum(data)))


def load_array(path: Path) -> NDArray[Any]:
    """Read a .npy file that `save_array` or `np.save` wrote.

    Raises:
        DamagedFile: the file is not intact. Without a checksum (`np.save`) only its length and header are checked.
        OSError: the file cannot be read.
    """
    data = path.read_bytes()
    content, checksum = data[: -len(_npy_checksum(b""))], data[-len(_npy_checksum(b"")) :]
    if checksum.startswith(_NPY_CHECKSUM):
        if checksum != _npy_checksum(content):
            raise DamagedFile(f"{path} is damaged: its checksum does not match its content")
        data = content
    file = io.BytesIO(data)
    shape, dtype = read_npy_header(file)
    if len(data) - file.tell() != math.prod(shape) * dtype.itemsize:
        raise DamagedFile(f"{path} is damaged: its length does not match its header")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape).copy()


def write_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], parts: Iterable[NDArray[Any]]) -> None:
    """Write an array in parts, in C order, as `save_array` would write all of it; not atomically."""
    with path.open("wb") as file:
        write_npy_header(file, dtype, shape)
        file.flush()
        checksum = zlib.crc32(path.read_bytes())
        for part in parts:
            data = np.ascontiguousarray(part).view(np.uint8).data
            checksum = zlib.crc32(data, checksum)
            file.write(data)
        file.write(_NPY_CHECKSUM + checksum.to_bytes(4, "little"))


def map_array(path: Path) -> NDArray[Any]:
    """Map an array that `save_array` or `write_array` wrote, after reading all of it once to check it.

    Raises:
        DamagedFile: the file is not intact, or has no checksum.
        OSError: the file cannot be read.
    """
    data = np.memmap(path, np.uint8, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)
    content, checksum = data[: -len(_npy_checksum(b""))], data[-len(_npy_checksum(b"")) :].tobytes()
    if checksum != _npy_checksum(content.data):
        raise DamagedFile(f"{path} is damaged: its checksum does not match its content")
    with path.open("rb") as file:
        shape, dtype = read_npy_header(file)
        start = file.tell()
    if len(content) - start != math.prod(shape) * dtype.itemsize:
        raise DamagedFile(f"{path} is damaged: its length does not match its header")
    return content[start:].view(dtype).reshape(shape)


def read_npy_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read the header of a .npy file in C order; return the shape and the dtype. The data follow.

    Raises:
        DamagedFile: it is not such a header.
    """
    shape, dtype, fortran_order = read_npy_layout(file)
    if fortran_order or dtype.hasobject:
        raise DamagedFile("the header of a .npy file is damaged (not plain values in C order)")
    return shape, dtype


def read_npy_layout(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Read the header of a .npy file; return the shape, the dtype, and whether the data are in Fortran order.

    Raises:
        DamagedFile: it is not such a header.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read(file, max_header_size=2**14)
        if any(length < 0 for length in shape):
            raise ValueError("negative length")
    except Exception as error:  # NumPy parses the header as Python: damage raises SyntaxError, TokenError and others
        raise DamagedFile(f"the header of a .npy file is damaged ({type(error).__name__})") from error
    return tuple(map(int, shape)), dtype, fortran_order


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Digest:
    """Compute the SHA-256 of a sequence of JSON values."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, value: object) -> None:
        self._hash.update(json.dumps(value).encode() + b"\n")

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def digest_of(value: object, more: Iterable[object] = ()) -> str:
    """Return the SHA-256 of one or several JSON values, in hexadecimal."""
    digest = Digest()
    for item in (value, *more):
        digest.add(item)
    return digest.hexdigest()


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write networks' tensors and metadata (JSON values) as a safetensors file with a checksum of both, atomically.

    The file names them as `sagan.formats.to_disk` does, and its checksum is over those names.
    """
    tensors = {to_disk(name): t.detach().cpu().contiguous() for name, t in tensors.items()}
    text = {key: json.dumps(value) for key, value in metadata.items()}
    data = save(tensors, text | {"crc32": str(_checksum(tensors, text))})
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors, under the names that networks have for them, and the metadata that `save_tensors` wrote.

    A file that another tool saved again may lack the checksum, or all of the metadata.

    Raises:
        DamagedFile: the file is not intact: it is no safetensors file, or its checksum is of another content.
        UserError: the file cannot be read.
    """
    with _damage_named(path):
        check_safetensors_header(path)
        with safe_open(path, framework="pt") as file:
            text = file.metadata() or {}
            crc32 = text.pop("crc32", None)
            text.pop("format", None)  # "pt", as other tools state the framework
            # Cloned: `get_tensor` returns a view of the mapped file, which would change with the file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        metadata = {key: json.loads(value) for key, value in text.items()}
    if crc32 is not None and crc32 != str(_checksum(tensors, text)):
        raise DamagedFile(f"{path} is damaged: its checksum does not match its content")
    return {from_disk(name): t for name, t in tensors.items()}, metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata that `save_tensors` wrote, without the tensors or a look at the checksum.

    Raises:
        DamagedFile: the file is no safetensors file.
        UserError: the file cannot be read.
    """
    with _damage_named(path):
        check_safetensors_header(path)
        with safe_open(path, framework="pt") as file:
            text = file.metadata() or {}
        return {key: json.loads(value) for key, value in text.items() if key != "format"}


def check_safetensors_header(path: Path) -> None:
    """Check the length of a safetensors file's header, JSON which takes many times its size when it is parsed.

    Raises:
        ValueError: it is longer than `MAX_JSON_BYTES`.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_JSON_BYTES:
        raise ValueError(f"its header claims {length:,} bytes, more than the limit of {MAX_JSON_BYTES // 2**20} MiB")


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Raise what goes wrong with a safetensors file as a UserError of one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except OSError as error:
        raise UserError(f"{path} could not be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError, TypeError, RuntimeError) as error:  # RuntimeError includes RecursionError
        raise DamagedFile(f"{path} is damaged: {error}") from error


def load_into(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy tensors into a module with the same names and shapes.

    Raises:
        DamagedFile: names or shapes differ.
    """
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n", 1)[-1].split())
        raise DamagedFile(f"{path} does not fit its configuration: {reason[:300]}") from error


def _npy_checksum(data: bytes | memoryview) -> bytes:
    return _NPY_CHECKSUM + zlib.crc32(data).to_bytes(4, "little")


def _checksum(tensors: dict[str, Tensor], text: dict[str, str]) -> int:
    checksum = zlib.crc32(json.dumps(text, sort_keys=True).encode())
    for name in sorted(tensors):
        data = tensors[name].reshape(-1).view(torch.uint8).numpy().data
        checksum = zlib.crc32(data, zlib.crc32(name.encode(), checksum))
    return checksum
