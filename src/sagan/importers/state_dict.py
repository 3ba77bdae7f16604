"""A file of tensors as another codebase saved it: opened without running code, and taken apart key by key."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from sagan.errors import UserError

SHOWN = 5  # keys in a message
MOST_BYTES = 2**32
"""Largest file that is opened, unpacked: with both networks, averages and moments a large SAGAN has a third of it."""


class State:
    """The tensors of one network under their codebase's names, and which of them have been taken already.

    Args:
        tensors: by their keys.
        path: the file, for messages.
    """

    def __init__(self, tensors: Mapping[str, Tensor], path: Path):
        self.tensors, self.path = dict(tensors), path
        self.left = set(self.tensors)

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def take(self, key: str) -> Tensor:
        """A tensor, as float32 if it holds numbers with a point. Raises UserError if there is none of this name."""
        if key not in self.tensors:
            raise UserError(f"{self.path} lacks {key}, which this network needs: the file is not whole")
        self.left.discard(key)
        t = self.tensors[key].detach()
        if t.numel() * t.element_size() > t.untyped_storage().nbytes():  # few numbers that pose as many
            raise UserError(f"{self.path} is damaged: {key} holds fewer numbers than its shape {tuple(t.shape)} has")
        return t.float() if t.is_floating_point() else t

    def ignore(self, *keys: str) -> None:
        """Keys that may be there and say nothing about what the network computes."""
        self.left -= set(keys)

    def numbers(self, pattern: str) -> list[int]:
        """The whole numbers that stand, in some key, for the group of a regular expression; in order."""
        found = {int(match[1]) for key in self.tensors if (match := re.fullmatch(pattern, key))}
        return sorted(found)

    def finish(self) -> None:
        """Raises UserError if a tensor has not been taken: the network computes something that was not understood."""
        if self.left:
            raise UserError(
                f"{self.path} holds more than this network needs: {listed(self.left)}; it is of another architecture"
            )


def listed(keys: set[str]) -> str:
    """The first few keys, and how many more there are."""
    first = sorted(keys)[:SHOWN]
    return ", ".join(first) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")


def read_file(path: Path) -> dict[str, Any]:
    """What a .pth, .pt, .ckpt, .safetensors or .npz file holds: names to tensors, numbers, text and dictionaries.

    A pickle is opened only as far as it holds tensors and plain values; no code in it is run.

    Raises:
        UserError: no such file, damaged, something else, or a pickle that would run code.
    """
    if not path.is_file():
        raise UserError(f"{path} is a folder: give the file" if path.is_dir() else f"{path} does not exist")
    try:
        _check_size(path)
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        if path.suffix == ".npz":
            return _read_arrays(path)
        found = _read_pickle(path)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(_why(path, str(error))) from None
    except PermissionError as error:
        raise UserError(f"{path} could not be read: {error.strerror or error}") from None
    except Exception as error:  # what a damaged file does to its reader is anybody's guess
        raise UserError(f"{path} is damaged, or no file of tensors: {_first(error)}") from None
    if not isinstance(found, Mapping):
        raise UserError(f"{path} holds no dictionary of tensors, but a {type(found).__name__}")
    return dict(found)


def _check_size(path: Path) -> None:
    """Raises UserError for a file that is too large, or an archive that would be (.npz, .pth)."""
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = max(size, sum(member.file_size for member in archive.infolist()))
    if size > MOST_BYTES:
        raise UserError(f"{path} unpacks to {size / 2**30:,.0f} GiB, more than the limit of {MOST_BYTES >> 30} GiB")


def _read_pickle(path: Path) -> Any:
    # A number of numpy's beside the tensors, such as a score, is stored as a call of these; they build nothing else.
    scalar = np.float64(0).__reduce__()[0]
    numbers: list[Any] = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    types = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)]
    with warnings.catch_warnings(), torch.serialization.safe_globals([*numbers, np.dtype, *types]):
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_arrays(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}


def _first(error: Exception) -> str:
    """The first sentence of a message, or what there is."""
    if isinstance(error, OSError):  # what the reader ran into, searching for the end of a file that has none
        return "it breaks off"
    return re.split(r"[.\n]", str(error))[0] or type(error).__name__


def _why(path: Path, message: str) -> str:
    """torch.load's reason for opening no further, in a line."""
    call = re.search(r"(?:GLOBAL|Unsupported global: GLOBAL|function|class) ([\w.]+)", message)
    if not call:
        return f"{path} is damaged, or no file of tensors"
    return (
        f"{path} holds more than tensors: opening it would call {call[1]}, which may run code; where you trust it, "
        "open it with its own code and save its network anew: torch.save(network.state_dict(), FILE)"
    )


def tensors_of(found: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors among the values, without the prefix 'module.' that parallel wrappers put before all of them."""
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    if tensors and all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def dictionaries(found: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The file's dictionary, and those that it holds under the names that codebases keep a state dict under."""
    yield found
    for key in ("state_dict", "model_state_dict"):
        if isinstance(found.get(key), Mapping):
            yield found[key]
