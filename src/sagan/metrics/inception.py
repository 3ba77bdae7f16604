"""Find the weights of the original FID network: a file of the user, the cache, or a download."""

from pathlib import Path

import torch

from sagan.errors import UserError
from sagan.files import sha256

URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
"""TensorFlow's graph of December 2015 as TorchScript, 96 MB, as used by StyleGAN, EDM and clean-fid."""
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"


def find(path: Path | None, cache: Path) -> Path:
    """Return the verified file: the given one, the one in the cache folder, or a new download with a progress bar.

    Raises:
        UserError: the file cannot be downloaded, or is not the published one.
    """
    if path is not None:
        _check(path, f"give the file of {URL}")
        return path
    path = place_in(cache)
    if not path.exists():
        _fetch(path)
    _check(path, "delete it to download it again")
    return path


def place_in(cache: Path) -> Path:
    """Return the path of the file in the cache folder."""
    return cache / URL.rsplit("/", 1)[1]


def _fetch(path: Path) -> None:
    print(f"downloading the Inception network (96 MB, once) to {path.parent}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(URL, str(path), hash_prefix=SHA256)
    except (OSError, RuntimeError) as error:  # no network, a full disk; another content than was published
        reason = getattr(getattr(error, "reason", error), "strerror", None) or " ".join(str(error).split())
        raise UserError(
            f"the Inception network could not be downloaded ({reason}): get {URL} elsewhere and pass it with "
            "--inception FILE, or use --features efficientnet-lite0 (whose distance is not FID)"
        ) from error


def _check(path: Path, advice: str) -> None:
    try:
        found = sha256(path)
    except OSError as error:
        raise UserError(f"{path} could not be read: {error.strerror}; {advice}") from error
    if found != SHA256:
        raise UserError(f"{path} is not the published Inception network (its SHA-256 differs): {advice}")
