"""Checkpoint files of other codebases: read without running code, and taken apart key by key."""

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

MAX_KEYS_SHOWN = 5  # in a message
MAX_BYTES = 2**32
"""Largest file that is read, unpacked. A large SAGAN with both networks, average and moments has a third of it."""


class StateDict:
    """The tensors of one network under their codebase's keys; it records which of them have been taken.

    Args:
        tensors: key -> tensor.
        path: the file, for messages.
    """

    def __init__(self, tensors: Mapping[str, Tensor], path: Path):
        self.tensors = dict(tensors)
        self.path = path
        self.untaken = set(self.tensors)

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def has_keys_below(self, prefix: str) -> bool:
        return any(key.startswith(prefix) for key in self.tensors)

    def take(self, key: str) -> Tensor:
        """Return a tensor, converted to float32 if it is floating-point.

        Raises:
            UserError: there is no such key, or the tensor's storage is smaller than its shape.
        """
        if key not in self.tensors:
            raise UserError(f"{self.path} lacks {key}, which this network needs: the file is incomplete")
        self.untaken.discard(key)
        t = self.tensors[key].detach()
        if t.numel() * t.element_size() > t.untyped_storage().nbytes():  # strides of 0: a huge view of few numbers
            raise UserError(f"{self.path} is damaged: {key} holds fewer numbers than its shape {tuple(t.shape)} has")
        return t.float() if t.is_floating_point() else t

    def ignore(self, *keys: str) -> None:
        """Mark keys, present or not, as taken: they do not affect what the network computes."""
        self.untaken -= set(keys)

    def numbers(self, pattern: str) -> list[int]:
        """Return the integers that the group of a regular expression matches in the keys, distinct and sorted."""
        matches = (re.fullmatch(pattern, key) for key in self.tensors)
        return sorted({int(match[1]) for match in matches if match})

    def check_all_taken(self) -> None:
        """Raise UserError if a tensor was not taken: the network then computes something that was not converted."""
        if self.untaken:
            raise UserError(
                f"{self.path} holds more than this network needs: {shorten(self.untaken)}; "
                "it has an unsupported architecture"
            )


def shorten(keys: set[str]) -> str:
    """List the first few keys, and how many more there are."""
    shown = ", ".join(sorted(keys)[:MAX_KEYS_SHOWN])
    return shown + (f" and {len(keys) - MAX_KEYS_SHOWN} more" if len(keys) > MAX_KEYS_SHOWN else "")


def read_file(path: Path) -> dict[str, Any]:
    """Read a .pth, .pt, .ckpt, .safetensors or .npz file: names -> tensors, numbers, text and dictionaries.

    Of a pickle only tensors and plain values are read; no code in it is run.

    Raises:
        UserError: the file does not exist, is damaged, is not a dictionary, or is a pickle that would run code.
    """
    if not path.is_file():
        raise UserError(f"{path} is a folder: pass the file" if path.is_dir() else f"{path} does not exist")
    try:
        _check_size(path)
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        if path.suffix == ".npz":
            return _read_arrays(path)
        checkpoint = _read_pickle(path)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(_explain_unpickling_error(path, str(error))) from None
    except PermissionError as error:
        raise UserError(f"{path} could not be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged file can make its reader raise anything
        raise UserError(f"{path} is damaged or not a checkpoint: {_first_sentence(error)}") from None
    if not isinstance(checkpoint, Mapping):
        raise UserError(f"{path} must hold a dictionary of tensors, but holds a {type(checkpoint).__name__}")
    return dict(checkpoint)


def _check_size(path: Path) -> None:
    """Raise UserError if the file, or the unpacked content of an archive (.npz, .pth), is too large."""
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = max(size, sum(member.file_size for member in archive.infolist()))
    if size > MAX_BYTES:
        raise UserError(
            f"{path} unpacks to {size / 2**30:,.0f} GiB, more than the limit of {MAX_BYTES / 2**30:.0f} GiB"
        )


def _read_pickle(path: Path) -> Any:
    # A NumPy number next to the tensors, such as a score, is stored as a call of these; they build nothing else.
    scalar = np.float64(0).__reduce__()[0]
    numbers: list[Any] = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    dtypes = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)]
    with warnings.catch_warnings(), torch.serialization.safe_globals([*numbers, np.dtype, *dtypes]):
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_arrays(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}


def _first_sentence(error: Exception) -> str:
    """Return the first sentence of an error's message, or the error's type if it has none."""
    if isinstance(error, OSError):  # the reader seeks the end of a file that was cut off
        return "it is truncated"
    return re.split(r"[.\n]", str(error))[0] or type(error).__name__


def _explain_unpickling_error(path: Path, message: str) -> str:
    """Say in one line why torch.load refused a pickle."""
    call = re.search(r"(?:GLOBAL|Unsupported global: GLOBAL|function|class) ([\w.]+)", message)
    if not call:
        return f"{path} is damaged or not a checkpoint"
    return (
        f"{path} holds more than tensors: opening it would call {call[1]}, which may run code; if you trust the file, "
        "open it with its own code and save its network again: torch.save(network.state_dict(), FILE)"
    )


def select_tensors(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors among the values, without the prefix 'module.' that parallel wrappers add to all keys."""
    tensors = {str(key): value for key, value in checkpoint.items() if isinstance(value, Tensor)}
    if tensors and all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def candidate_state_dicts(checkpoint: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the file's dictionary, then the dictionaries in it under the names that codebases use for a state dict."""
    yield checkpoint
    for key in ("state_dict", "model_state_dict"):
        if isinstance(checkpoint.get(key), Mapping):
            yield checkpoint[key]
