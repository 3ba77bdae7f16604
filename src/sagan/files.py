"""Files that are whole or not there: atomic writes, and tensors with a checksum."""

import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    # The suffix stays, since it tells writers the format.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
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


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    except (SafetensorError, ValueError) as error:
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
