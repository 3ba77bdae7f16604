"""Read latents from a file."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sagan.errors import UserError

_CHECKED = 2**22  # values checked at once
_MAX_IN_MEMORY = 2**28  # bytes of latents; larger files are mapped


def read_latents(path: Path, latent_dim: int) -> NDArray[np.floating]:
    """Map the latents (N, latent_dim) of a .npy file, after checking all of them. Nothing in the file is run.

    Raises:
        UserError: the file is not such an array, or a value is not a finite float32.
    """
    if path.is_dir() or not path.exists():
        raise UserError(f"--latents {path}: {'is a folder' if path.is_dir() else 'does not exist'}; pass a .npy file")
    try:
        latents = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise UserError(f"--latents {path} could not be read: {error.strerror or 'not a .npy file'}") from error
    except Exception as error:  # NumPy parses the header as Python: damage raises SyntaxError, TokenError and others
        raise UserError(f"--latents {path} is not an intact .npy file of numbers") from error
    if not isinstance(latents, np.ndarray):
        latents.close()
        raise UserError(f"--latents {path} is a .npz: pass a .npy file of one array")
    if latents.dtype.kind not in "fiu":
        raise UserError(f"--latents {path} holds {latents.dtype}, not real numbers")
    if latents.ndim != 2 or latents.shape[1] != latent_dim or not len(latents):
        expected = f"(N, {latent_dim}), a latent per row"
        raise UserError(f"--latents {path} has the shape {latents.shape}; this run's latents have {expected}")
    if latents.nbytes <= _MAX_IN_MEMORY:  # a mapped file that is truncated meanwhile kills the process
        latents = np.array(latents)
    rows = max(1, _CHECKED // latent_dim)
    for start in range(0, len(latents), rows):
        with np.errstate(over="ignore"):
            finite = np.isfinite(np.asarray(latents[start : start + rows], np.float32)).all(1)
        if not finite.all():
            raise UserError(f"--latents {path}: row {start + int(finite.argmin())} has a value that is not finite")
    return latents
