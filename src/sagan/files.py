"""Files that are whole or not there: atomic writes, locks that die with their owner, and tensors with a checksum."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sagan.errors import UserError


class DamagedFile(UserError):
    """A file of tensors that is cut off, changed, or of another network."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a new file beside `path`, then puts it in the place of `path` in one step.

    Whatever happens, `path` holds either what it held or all of the new content.

    Raises:
        UserError: the disk is full, the folder is not writable, or the like. The half-written file is gone.
    """
    temporary = beside(path)
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path} could not be written: {reason}; what was there before is untouched") from error


def beside(path: Path) -> Path:
    """A name for what is to become `path`: hidden, in the same folder, and telling `sweep` whose it is."""
    # The suffix stays, since it tells writers the format.
    return path.with_name(f"{_mine()}{os.getpid()}-{secrets.token_hex(4)}-{path.stem[:32]}{path.suffix}")


def sweep(folder: Path, *, alone: bool = False) -> None:
    """Removes what processes that were killed left half-written in a folder (not in its folders).

    That of living processes stays, and that of other machines, whose processes cannot be seen from here; all of it
    goes if the caller is `alone` in writing there.
    """
    if os.name == "nt" and not alone:  # where asking for a process by signal 0 would end it
        return
    for path in folder.glob(".tmp-*" if alone else f"{glob.escape(_mine())}*"):
        owner = re.fullmatch(r"(\d+)-[0-9a-f]{8}(-.*)?", path.name.removeprefix(_mine()))
        if alone or (owner and not _lives(int(owner[1]))):
            shutil.rmtree(path, ignore_errors=True)  # a folder
            with contextlib.suppress(OSError):
                path.unlink()


def _mine() -> str:
    return f".tmp-{socket.gethostname()}-"


def _lives(process: int) -> bool:
    """Whether a process of this machine is there; also if that cannot be known."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


@contextlib.contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Holds a lock file as long as the context lasts; the system lets go of it when the process dies, however.

    The file is gone afterwards; one that a killed process left is no lock. Between machines that share a folder over
    NFS it holds as well. Where the system or the file system knows no locks, nothing is locked.

    Raises:
        UserError: another process holds it. The message is `busy`, `{owner}` in it replaced by who that is.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = open(path, "a+")  # noqa: SIM115 - closed below; NFS wants it open for writing
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    file.seek(0)
                    owner = file.read(200).strip() or "another process"
                    file.close()
                    raise UserError(busy.replace("{owner}", owner)) from None
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    break
            file.close()  # its owner has just finished and removed it: once more
    except OSError as error:
        raise UserError(f"{path} could not be written: {error.strerror or error}") from error
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # while it is held, so that nobody locks a file that is about to go
        with contextlib.suppress(OSError):
            file.close()


def read_json(path: Path, most: int = 2**24) -> Any:
    """What a JSON file holds. Raises ValueError if it is none, or larger than `most` bytes."""
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"more than {most >> 20} MiB")
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Digest:
    """SHA-256 over a sequence of JSON values."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, value: object) -> None:
        self._hash.update(json.dumps(value).encode() + b"\n")

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def digest_of(value: object, more: Iterable[object] = ()) -> str:
    """The SHA-256 of one JSON value, or of several."""
    digest = Digest()
    for item in (value, *more):
        digest.add(item)
    return digest.hexdigest()


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Writes tensors and metadata (JSON values) as safetensors, with a checksum of both, atomically."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    text = {key: json.dumps(value) for key, value in metadata.items()}
    data = save(tensors, text | {"crc32": str(_checksum(tensors, text))})
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_tensors` wrote. Raises DamagedFile if it is not that, UserError if it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            text = file.metadata() or {}
            crc32 = text.pop("crc32", "none")
            # Cloned, since a tensor as it comes is a window on the file, and changes with it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        metadata = {key: json.loads(value) for key, value in text.items()}
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except OSError as error:
        raise UserError(f"{path} could not be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError, TypeError, RuntimeError) as error:  # also JSON nested too deeply
        raise DamagedFile(f"{path} is damaged: {error}") from error
    if crc32 != str(_checksum(tensors, text)):
        raise DamagedFile(f"{path} is damaged: its checksum does not match its content")
    return tensors, metadata


def load_into(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copies tensors into a module of the same names and shapes. Raises DamagedFile where they differ."""
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n", 1)[-1].split())
        raise DamagedFile(f"{path} does not fit its configuration: {reason[:300]}") from error


def _checksum(tensors: dict[str, Tensor], text: dict[str, str]) -> int:
    checksum = zlib.crc32(json.dumps(text, sort_keys=True).encode())
    for name in sorted(tensors):
        data = tensors[name].reshape(-1).view(torch.uint8).numpy().data
        checksum = zlib.crc32(data, zlib.crc32(name.encode(), checksum))
    return checksum
