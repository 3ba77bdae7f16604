"""Checkpoint files of other codebases: read without running code, and taken apart key by key."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from sagan.errors import UserError
from sagan.files import check_safetensors_header
from sagan.text import printable

Recognised = TypeVar("Recognised")

MAX_KEYS_SHOWN = 5  # in a message
MAX_KEY_LENGTH = 100  # characters of a key, in a message
MAX_DEPTH = 4  # of dictionaries and key prefixes in which networks are searched
MAX_BYTES = 2**32
"""Largest file that is read, unpacked. A large SAGAN with both networks, average and moments has a third of it."""

# What a file is, by its first bytes, where it is not a checkpoint.
OTHER_FILES = {
    b"\x89HDF": "an HDF5 file, such as Keras writes",
    b"\x93NUMPY": "a single NumPy array (.npy)",
    b"\x1f\x8b": "compressed by gzip: decompress it first",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GGUF": "a GGUF file of a language model",
    b"%PDF": "a PDF document",
    b"<": "a web page or XML: download the file itself",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with git lfs pull",
}
TENSORFLOW_NAME = re.compile(r".*\.(index|meta|data-\d{5}-of-\d{5})", re.IGNORECASE)


class StateDict:
    """The tensors of one network under their codebase's keys; it records which of them have been taken.

    Args:
        tensors: key -> tensor.
        path: the file, for messages.
        standing_statistics: whether batch norms with a counter hold sums of statistics; None: the user has not said.
    """

    def __init__(self, tensors: Mapping[str, Tensor], path: Path, *, standing_statistics: bool | None = None):
        self.tensors = dict(tensors)
        self.path = path
        self.standing_statistics = standing_statistics
        self.untaken = set(self.tensors)
        self.notes: list[str] = []
        """Choices that the conversion made and the user should know, a sentence each."""

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def has_keys_below(self, prefix: str) -> bool:
        return any(key.startswith(prefix) for key in self.tensors)

    def take(self, key: str, dims: int | None = None) -> Tensor:
        """Return a tensor of numbers that are finite in float32, converted to float64.

        Args:
            dims: the number of its dimensions; None: any.

        Raises:
            UserError: there is no such key, or the tensor is of another kind, has other dimensions, is empty or is not
                finite.
        """
        if key not in self.tensors:
            raise UserError(f"{self.path} lacks {key}, which this network needs: the file is incomplete")
        self.untaken.discard(key)
        t = self.tensors[key].detach()
        problem = find_problem(t)
        if not problem and dims not in (None, t.dim()):
            problem = f"has the shape {tuple(t.shape)}, expected {dims} dimensions"
        if problem:
            raise UserError(f"{self.path} is not a supported SAGAN or damaged: {key} {problem}")
        return t.double()

    def take_scalar(self, key: str) -> Tensor:
        """Return a tensor of one number, of any number of dimensions, as one without dimensions."""
        t = self.take(key)
        if t.numel() != 1:
            raise UserError(f"{self.path} is not a supported SAGAN: {key} has the shape {tuple(t.shape)}, expected ()")
        return t.reshape(())

    def take_row(self, key: str) -> Tensor:
        """Return the row (n,) of a tensor (1, n)."""
        t = self.take(key, 2)
        if len(t) != 1:
            raise UserError(
                f"{self.path} is not a supported SAGAN: {key} has the shape {tuple(t.shape)}, expected one row"
            )
        return t[0]

    def ignore(self, *keys: str) -> None:
        """Mark keys, present or not, as taken: they do not affect what the network computes."""
        self.untaken -= set(keys)

    def note(self, text: str) -> None:
        """Record a choice that the user should know, once."""
        if text not in self.notes:
            self.notes.append(text)

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


def find_problem(t: Tensor) -> str:
    """Say why a tensor cannot be a network's weights; '' if it can."""
    if t.is_nested or t.layout != torch.strided:
        return "is a sparse or nested tensor, expected a dense one"
    if t.is_quantized:
        return f"is quantised ({t.dtype}): dequantise the network first"
    if t.is_meta:
        return "has a shape but no content (a meta tensor)"
    if not t.is_floating_point():
        return f"holds numbers of {t.dtype}, expected floating-point ones"
    if not t.numel():
        return f"is empty: its shape is {tuple(t.shape)}"
    if t.numel() * t.element_size() > t.untyped_storage().nbytes():  # strides of 0: a huge view of few numbers
        return f"holds fewer numbers than its shape {tuple(t.shape)} has"
    try:
        finite = t.float().isfinite()  # float64 may exceed the range of float32
    except (RuntimeError, NotImplementedError):  # a packed type, such as float4
        return f"holds numbers of {t.dtype}, which cannot be converted to float32"
    if not finite.all():
        return "holds numbers that are not finite in float32 (NaN or inf)"
    return ""


def shorten(keys: Iterable[str]) -> str:
    """List the first few keys, and how many more there are."""
    names = sorted(keys)
    shown = ", ".join(printable(key)[:MAX_KEY_LENGTH] for key in names[:MAX_KEYS_SHOWN])
    return shown + (f" and {len(names) - MAX_KEYS_SHOWN} more" if len(names) > MAX_KEYS_SHOWN else "")


def read_file(path: Path) -> dict[str, Any]:
    """Read a PyTorch, .safetensors or .npz file: names -> tensors, numbers, text and dictionaries.

    The content of the file, not its name, determines the format. Of a pickle only tensors and plain values are read; no
    code in it is run. Archives (.npz and what torch.save writes) hold checksums of their content, which are checked.

    Raises:
        UserError: the file does not exist, is damaged, is not a dictionary, or is a pickle that would run code.
    """
    if path.is_dir():
        if (path / "config.json").is_file():
            raise UserError(f"{path} is a run of sagan already: use it as it is, e.g. sagan sample {path}")
        raise UserError(f"{path} is a folder: pass the file")
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        _check_size(path)
        with open(path, "rb") as file:
            start = file.read(1024)
        if start.startswith(b"PK"):
            checkpoint = _read_archive(path)
        elif start[8:9] == b"{":
            checkpoint = _read_safetensors(path)
        else:
            if not start.startswith(b"\x80"):
                _refuse_other_kind(path, start)
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


def _read_archive(path: Path) -> Any:
    """Read a ZIP archive: arrays (.npz), or a pickle and its tensors as torch.save writes them."""
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is damaged or not a checkpoint: it is truncated")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        file_names = {name.rpartition("/")[2] for name in names}
        refusal = f"{path} is damaged or not a checkpoint: it is"
        if "constants.pkl" in file_names:
            raise UserError(
                f"{refusal} a TorchScript program, which holds code: if you trust it, save its network again: "
                "torch.save(torch.jit.load(FILE).state_dict(), ANOTHER)"
            )
        if "data.pkl" not in file_names and any(name.endswith(".pt2") or "archive_format" in name for name in names):
            raise UserError(f"{refusal} a program of torch.export, not a state dict")
        if "data.pkl" not in file_names and not all(name.endswith(".npy") for name in names):
            raise UserError(f"{refusal} a ZIP archive of other files ({shorten(names)})")
        if any(member.CRC for member in members):  # all 0: torch.save was told not to compute checksums
            damaged = archive.testzip()
            if damaged is not None:
                raise UserError(f"{path} is damaged: {printable(damaged)} does not match its checksum")
    return _read_pickle(path) if "data.pkl" in file_names else _read_arrays(path)


def _read_safetensors(path: Path) -> dict[str, Any]:
    check_safetensors_header(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if "crc32" in metadata:
        raise UserError(f"{path} is a file of sagan already: use it as it is, e.g. sagan sample {path}")
    return dict(load_file(path))


def _refuse_other_kind(path: Path, start: bytes) -> None:
    """Raise UserError for a file that is neither an archive, nor a pickle, nor safetensors: say what it is."""
    refusal = f"{path} is damaged or not a checkpoint: it is"
    if not start:
        raise UserError(f"{refusal} empty")
    if TENSORFLOW_NAME.fullmatch(path.name):
        raise UserError(
            f"{refusal} a part of a TensorFlow checkpoint: docs/import.md says how to make a .npz file of it"
        )
    if path.suffix.lower() == ".onnx":
        raise UserError(f"{refusal} an ONNX graph, not a state dict")
    for magic, kind in OTHER_FILES.items():
        if start.startswith(magic):
            raise UserError(f"{refusal} {kind}")
    if b"\0" not in start:
        text = " ".join(printable(start[:200].decode("utf-8", "replace").splitlines()[0]).split())[:40]
        raise UserError(f"{refusal} text ({text})")


def _read_pickle(path: Path) -> Any:
    # A NumPy number next to the tensors, such as a score, is stored as a call of these; they build nothing else.
    scalar = np.float64(0).__reduce__()[0]
    numbers: list[Any] = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    dtypes = {type(np.dtype(code)) for code in "?bhilqBHILQefdgFDGSUMm"}
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
    if "magic number" in str(error):
        return "it is a pickle that torch.save did not write so"
    return printable(re.split(r"[.\n]", str(error))[0]) or type(error).__name__


def _explain_unpickling_error(path: Path, message: str) -> str:
    """Say in one line why torch.load refused a pickle."""
    call = re.search(r"(?:GLOBAL|Unsupported global: GLOBAL|function|class) ([\w.]+)", message)
    if not call:
        return f"{path} is damaged or not a checkpoint: it is a pickle that torch.save did not write so"
    return (
        f"{path} holds more than tensors: opening it would call {call[1]}, which may run code; if you trust the file, "
        "open it with its own code and save its network again: torch.save(network.state_dict(), FILE)"
    )


def select_tensors(checkpoint: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors among the values, without the parts of keys that wrappers add to them.

    Parallel wrappers add 'module.' to all keys; torch.compile adds '_orig_mod.' wherever a compiled module is.
    """
    tensors = {str(key): value for key, value in checkpoint.items() if isinstance(value, Tensor)}
    while tensors and all(key.startswith(("module.", "_orig_mod.")) for key in tensors):
        unwrapped = {key.partition(".")[2]: value for key, value in tensors.items()}
        if len(unwrapped) < len(tensors):
            break
        tensors = unwrapped
    compiled = {re.sub(r"(^|\.)_orig_mod\.", r"\1", key): value for key, value in tensors.items()}
    return compiled if len(compiled) == len(tensors) else tensors


@dataclass(frozen=True)
class FoundNetwork(Generic[Recognised]):
    """The tensors of one state dict in a file, under its codebase's keys."""

    label: str
    """The names of the dictionaries and the key prefixes that lead to it, joined by points; '' for the file itself."""
    codebase: Recognised
    tensors: dict[str, Tensor]


def find_networks(
    checkpoint: Mapping[Any, Any], recognise: Callable[[set[str]], Recognised | None], label: str = "", depth: int = 0
) -> list[FoundNetwork[Recognised]]:
    """Find all state dicts that `recognise` knows, in dictionaries at any name and under any prefix of keys.

    Args:
        recognise: returns the codebase of a network with these keys, or None.
    """
    tensors = select_tensors(checkpoint)
    codebase = recognise(set(tensors))
    if codebase is not None:
        return [FoundNetwork(label, codebase, tensors)]
    if depth == MAX_DEPTH:
        return []
    inner: dict[str, dict[Any, Any]] = {}
    for key, t in tensors.items():
        prefix, _, rest = key.partition(".")
        if rest:
            inner.setdefault(prefix, {})[rest] = t
    found = []
    named = [*inner.items(), *((str(key), value) for key, value in checkpoint.items() if isinstance(value, Mapping))]
    for name, content in named:
        found += find_networks(content, recognise, f"{label}.{name}".strip("."), depth + 1)
    return found


def list_keys(checkpoint: Mapping[Any, Any]) -> str:
    """Describe in a few words what a dictionary holds, for a message."""
    tensors = select_tensors(checkpoint)
    if tensors:
        return f"tensors {shorten(tensors)}"
    for key, value in checkpoint.items():
        if isinstance(value, Mapping) and select_tensors(value):
            return f"under {shorten([str(key)])}: tensors {shorten(select_tensors(value))}"
    return f"keys {shorten(map(str, checkpoint))}; no tensors" if checkpoint else "nothing"
