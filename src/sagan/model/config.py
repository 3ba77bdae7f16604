"""The shape of both networks, once."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

# Self-attention, channel attention, or a residual block with as many parameters as self-attention.
AttentionKind = Literal["self", "channel", "residual"]
Variant = Literal["released", "paper", "full", "direct"]
Architecture = Literal["residual", "dcgan"]
ActivationName = Literal["relu", "leaky-relu", "elu"]
# Where the spectral norm of the generator's class tables starts its power iteration: nowhere, as there is none.
ClassNorm = Literal["none", "classes", "channels"]

RESOLUTIONS = (32, 64, 128, 256)
MAX_MULTIPLIER = 16
MAX_LAYERS = 64  # in a row, of what a configuration may list


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the generator and the discriminator.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    architecture: Architecture = "residual"
    """residual: the paper's blocks; dcgan: a strided 4x4 convolution for each size, as heykeetae has it."""
    resolution: int = 128
    """Side of the square pictures, pixels: 32, 64, 128 or 256."""
    num_classes: int = 0
    """Number of classes; 0: unconditional. sagan train takes it from the data."""
    image_channels: int = 3
    """Channels of a picture: 1 (grey), 3 (RGB) or 4 (RGB and alpha)."""
    latent_dim: int = 128
    """Length of the latent z, drawn from a standard normal distribution."""
    base_channels: int = 64
    """Width: channels of the layers next to the picture; deeper layers have up to 16 times as many."""
    generator_widths: tuple[int, ...] | None = None
    """Channels of the generator's feature maps at 4, 8, ... (all but a dcgan's picture); None: from base_channels."""
    discriminator_widths: tuple[int, ...] | None = None
    """Channels of the discriminator's blocks, from the picture on; None: from base_channels, the last one twice."""
    discriminator_halvings: int | None = None
    """How many of the discriminator's blocks, the first ones, halve the picture; None: all but the last."""
    discriminator_inner: Literal["out", "in"] = "out"
    """Width inside of the discriminator's blocks after the first: that of their output, or of their input."""
    shortcut: Literal["plain", "rectified"] = "plain"
    """What the discriminator's shortcuts start from: the block's input, or its ReLU (as in-place ReLUs make it)."""
    generator_activation: ActivationName = "relu"
    """Activation of the generator's blocks; leaky-relu has a slope of 0.1 for negative numbers."""
    discriminator_activation: ActivationName = "relu"
    """The same for the discriminator."""
    class_head: Literal["projection", "classifier"] = "projection"
    """How the discriminator learns of classes: by the projection, or as an auxiliary classifier (AC-GAN)."""
    upsampling: Literal["nearest", "bilinear"] = "nearest"
    """How the generator doubles the size of its feature maps."""
    generator_attention: tuple[tuple[int, AttentionKind], ...] | None = None
    """Extra layers: feature-map size and kind. None: self-attention at min(32, resolution / 2)."""
    discriminator_attention: tuple[tuple[int, AttentionKind], ...] | None = None
    """The same for the discriminator."""
    attention_variant: Variant = "released"
    """released: 2x2 pooled keys, values of C/2; paper: all keys, values of C/8; full: all, C; direct: no last 1x1."""
    query_reduction: int = 8
    """C / channels of the attention's queries and keys."""
    value_reduction: int | None = None
    """C / channels of the attention's values; None: as the variant says (2, 8 or 1)."""
    generator_spectral_norm: bool = True
    """Spectral norm on every convolution and linear layer of the generator."""
    discriminator_spectral_norm: bool = True
    """Spectral norm on every convolution, linear layer and embedding of the discriminator."""
    spectral_norm_eps: float = 1e-8
    """Least norm that the power iteration divides by."""
    spectral_norm_in_evaluation: Literal["iterate", "stored"] = "iterate"
    """Evaluation divides by u'Wv after one more iteration, or of the stored u and v (as torch.nn.utils does)."""
    class_spectral_norm: ClassNorm = "none"
    """Spectral norm on the tables of class shifts and scales (less 1), iterated from this side of the tables."""
    batch_norm_eps: float = 1e-5
    """Added to the variance in the generator's batch norms."""
    output_norm_eps: float | None = None
    """The same of the generator's last batch norm, before the image; None: batch_norm_eps."""

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, expected: str) -> None:
            if not ok:
                raise ValueError(f"{field} must be {expected}, got {getattr(self, field)}")

        check(self.resolution in RESOLUTIONS, "resolution", "32, 64, 128 or 256")
        check(self.num_classes >= 0, "num_classes", "0 (no classes) or more")
        check(self.image_channels in (1, 3, 4), "image_channels", "1, 3 or 4")
        check(self.class_head in ("projection", "classifier"), "class_head", "projection or classifier")
        check(self.latent_dim >= 1, "latent_dim", "1 or more")
        check(self.base_channels >= 1, "base_channels", "1 or more")
        check(self.query_reduction >= 1, "query_reduction", "1 or more")
        check(self.value_reduction is None or self.value_reduction >= 1, "value_reduction", "1 or more")
        check(0 < self.spectral_norm_eps < math.inf, "spectral_norm_eps", "above 0 and finite")
        check(0 < self.batch_norm_eps < math.inf, "batch_norm_eps", "above 0 and finite")
        last_eps = self.output_norm_eps
        check(last_eps is None or 0 < last_eps < math.inf, "output_norm_eps", "above 0 and finite")
        dcgan = self.architecture == "dcgan"
        for field in ("generator_activation", "discriminator_activation"):
            check(not dcgan or getattr(self, field) == "relu", field, "relu with architecture dcgan, which has its own")
        wide = self.attention_variant != "direct" or self.value_reduction in (None, 1)
        check(wide, "value_reduction", "1 with attention_variant direct")
        maps = (self.resolution // 4).bit_length() - dcgan  # 4, 8, ..., resolution, or half of it
        at_least = {"generator_widths": maps, "discriminator_widths": 2}
        for field, count in at_least.items():
            widths = getattr(self, field)
            fits = widths is None or (count <= len(widths) <= MAX_LAYERS and min(widths) >= 1)
            check(fits, field, f"{count} to {MAX_LAYERS} numbers of 1 or more")
        check(len(self.generator_channels) == maps, "generator_widths", f"{maps} numbers of 1 or more")
        blocks = len(self.discriminator_channels)
        most = min(blocks, maps)
        # A dcgan halves down to 4 x 4 and ends there: there is nothing to choose.
        for field, found in (("discriminator_widths", blocks), ("discriminator_halvings", self.halvings)):
            check(not dcgan or found == maps, field, f"{maps} of them with architecture dcgan")
        check(1 <= self.halvings <= most, "discriminator_halvings", f"from 1 to {most} with {blocks} blocks")
        sizes_of = {
            "generator_attention": {4 << i for i in range(maps)},
            "discriminator_attention": {self.resolution >> i for i in range(1, self.halvings + 1)} - {2},
        }
        for field, sizes in sizes_of.items():
            at = getattr(self, field) or ()
            check(len(at) <= MAX_LAYERS, field, f"{MAX_LAYERS} layers or fewer")
            check(all(size in sizes for size, _ in at), field, f"at feature-map sizes out of {sorted(sizes)}")

    @property
    def generator_channels(self) -> tuple[int, ...]:
        """Channels of the generator's feature maps at 4, 8, ..., resolution (16ch, 16ch, 8ch, ..., ch).

        Of a dcgan at 4, 8, ..., half the resolution (8ch, 4ch, 2ch, ch at 64 pixels).
        """
        if self.generator_widths is not None:
            return self.generator_widths
        sizes = self.resolution // 4
        multipliers = [min(MAX_MULTIPLIER, sizes >> (i + 1)) for i in range(sizes.bit_length() - 1)]
        widths = tuple(self.base_channels * m for m in multipliers)
        return widths if self.architecture == "dcgan" else (widths[0], *widths)

    @property
    def discriminator_channels(self) -> tuple[int, ...]:
        """Channels of the discriminator's blocks (ch, 2ch, ..., 16ch at 4 x 4, and 16ch again but for a dcgan)."""
        if self.discriminator_widths is not None:
            return self.discriminator_widths
        blocks = (self.resolution // 4).bit_length() - 1
        widths = tuple(self.base_channels * min(MAX_MULTIPLIER, 1 << i) for i in range(blocks))
        return widths if self.architecture == "dcgan" else (*widths, widths[-1])

    @property
    def halvings(self) -> int:
        """How many of the discriminator's blocks halve the picture."""
        blocks = len(self.discriminator_channels)
        usual = blocks if self.architecture == "dcgan" else blocks - 1
        return usual if self.discriminator_halvings is None else self.discriminator_halvings

    def spectral_norm(self, network: Literal["generator", "discriminator"]) -> dict[str, Any]:
        """The options of a network's convolutions, linear layers and embeddings."""
        return {
            "norm": self.generator_spectral_norm if network == "generator" else self.discriminator_spectral_norm,
            "eps": self.spectral_norm_eps,
            "stored": self.stored,
        }

    @property
    def stored(self) -> bool:
        """Whether spectral norms keep both of their vectors."""
        return self.spectral_norm_in_evaluation == "stored"

    def attention_at(self, network: Literal["generator", "discriminator"]) -> tuple[tuple[int, AttentionKind], ...]:
        """(feature-map size, kind) of every extra layer of a network, the default resolved."""
        chosen = self.generator_attention if network == "generator" else self.discriminator_attention
        return ((min(32, self.resolution // 2), "self"),) if chosen is None else chosen


def baked(config: ModelConfig) -> ModelConfig:
    """The configuration of a generator whose spectral norms have been worked into its weights."""
    return replace(config, generator_spectral_norm=False, class_spectral_norm="none")
