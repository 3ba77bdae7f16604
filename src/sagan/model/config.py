"""The shape of both networks, once."""

from dataclasses import dataclass, replace
from typing import Literal

# Self-attention, channel attention, or a residual block with as many parameters as self-attention.
AttentionKind = Literal["self", "channel", "residual"]
Variant = Literal["released", "paper", "full", "direct"]
Architecture = Literal["residual", "dcgan"]
Role = Literal["generator", "discriminator"]

RESOLUTIONS = (32, 64, 128, 256)
SIZES = (4, 8, 16, 32, 64, 128, 256)  # sides of feature maps, px
MAX_MULTIPLIER = 16  # of base_channels
MAX_LAYERS = 64  # entries of a field that lists widths or layers


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the generator and the discriminator.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    architecture: Architecture = "residual"
    """residual: the paper's blocks; dcgan: a strided 4x4 convolution for each size, as heykeetae has it."""
    resolution: int = 128
    """Side of the square images, pixels: 32, 64, 128 or 256."""
    num_classes: int = 0
    """Number of classes; 0: unconditional. sagan train takes it from the data."""
    image_channels: int = 3
    """Channels of an image: 1 (grey), 3 (RGB) or 4 (RGB and alpha)."""
    latent_dim: int = 128
    """Length of the latent z, drawn from a standard normal distribution."""
    base_channels: int = 64
    """Width: channels of the layers next to the image; deeper layers have up to 16 times as many."""
    generator_widths: tuple[int, ...] | None = None
    """Channels of the generator's feature maps at 4, 8, ... (without a dcgan's image); None: from base_channels."""
    discriminator_widths: tuple[int, ...] | None = None
    """Channels of the discriminator's blocks, from the image on; None: from base_channels, the last one twice."""
    class_head: Literal["projection", "classifier"] = "projection"
    """How the discriminator learns classes: by the projection, or as an auxiliary classifier (AC-GAN)."""
    upsampling: Literal["nearest", "linear"] = "nearest"
    """How the generator doubles its maps: nearest (released code), or linear, which draws no grids of dots."""
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

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, expected: str) -> None:
            if not ok:
                raise ValueError(f"{field} must be {expected}, got {getattr(self, field)}")

        check(self.resolution in RESOLUTIONS, "resolution", "32, 64, 128 or 256")
        check(self.num_classes >= 0, "num_classes", "0 (no classes) or more")
        check(self.image_channels in (1, 3, 4), "image_channels", "1, 3 or 4")
        check(self.class_head in ("projection", "classifier"), "class_head", "projection or classifier")
        if self.architecture == "residual":
            check(self.upsampling in ("nearest", "linear"), "upsampling", "nearest or linear")
        check(self.latent_dim >= 1, "latent_dim", "1 or more")
        check(self.base_channels >= 1, "base_channels", "1 or more")
        check(self.query_reduction >= 1, "query_reduction", "1 or more")
        check(self.value_reduction is None or self.value_reduction >= 1, "value_reduction", "1 or more")
        all_channels = self.attention_variant != "direct" or self.value_reduction in (None, 1)
        check(all_channels, "value_reduction", "1 with attention_variant direct")

        # Widths: one per feature map of the generator, one per block of the discriminator.
        maps = len(self.generator_sizes)
        for field, least in (("generator_widths", maps), ("discriminator_widths", 2)):
            widths = getattr(self, field)
            fits = widths is None or (least <= len(widths) <= MAX_LAYERS and min(widths) >= 1)
            check(fits, field, f"{least} to {MAX_LAYERS} numbers of 1 or more")
        check(len(self.generator_channels) == maps, "generator_widths", f"{maps} numbers of 1 or more")
        blocks = len(self.discriminator_channels)
        if self.architecture == "dcgan":  # halves down to 4 x 4 and ends there
            check(blocks == maps, "discriminator_widths", f"{maps} of them with architecture dcgan")
        elif self.architecture == "residual":  # halves down to 2 x 2 at most
            check(blocks <= maps + 1, "discriminator_widths", f"2 to {maps + 1} numbers of 1 or more")

        # Attention: at sizes that the networks have. A map of 2 x 2 gets none.
        sizes_with_attention = {
            "generator_attention": self.generator_sizes,
            "discriminator_attention": [size for size in self.discriminator_sizes if size > 2],
        }
        for field, sizes in sizes_with_attention.items():
            layers = getattr(self, field) or ()
            check(len(layers) <= MAX_LAYERS, field, f"{MAX_LAYERS} layers or fewer")
            check(all(size in sizes for size, _ in layers), field, f"at feature-map sizes out of {sorted(sizes)}")

    @property
    def generator_sizes(self) -> tuple[int, ...]:
        """Sides of the generator's feature maps: 4, 8, ..., resolution; a dcgan's end at half the resolution."""
        last = self.resolution // 2 if self.architecture == "dcgan" else self.resolution
        return tuple(size for size in SIZES if size <= last)

    @property
    def generator_channels(self) -> tuple[int, ...]:
        """Channels of the generator's feature maps at `generator_sizes`.

        16ch, 16ch, 8ch, 4ch, 2ch, ch at 128 px; without a dcgan's image 8ch, 4ch, 2ch, ch at 64 px.
        """
        if self.generator_widths is not None:
            return self.generator_widths
        if self.architecture == "dcgan":
            multipliers = [self.resolution // 2 // size for size in self.generator_sizes]
        else:  # the map at 4 x 4 is as wide as that at 8 x 8
            multipliers = [self.resolution // max(size, 8) for size in self.generator_sizes]
        return tuple(self.base_channels * min(MAX_MULTIPLIER, multiplier) for multiplier in multipliers)

    @property
    def discriminator_sizes(self) -> tuple[int, ...]:
        """Sides of the outputs of the discriminator's halving blocks: resolution / 2, resolution / 4, ..."""
        return tuple(self.resolution // 2 ** (i + 1) for i in range(self.halvings))

    @property
    def discriminator_channels(self) -> tuple[int, ...]:
        """Channels of the discriminator's blocks: ch, 2ch, ..., up to 16ch; the last twice, but for a dcgan."""
        if self.discriminator_widths is not None:
            return self.discriminator_widths
        multipliers = [self.resolution // 2 // size for size in reversed(SIZES) if size < self.resolution]
        widths = tuple(self.base_channels * min(MAX_MULTIPLIER, multiplier) for multiplier in multipliers)
        return widths if self.architecture == "dcgan" else (*widths, widths[-1])

    @property
    def halvings(self) -> int:
        """How many of the discriminator's blocks, the first ones, halve the image: all but the last; all of a dcgan."""
        blocks = len(self.discriminator_channels)
        return blocks if self.architecture == "dcgan" else blocks - 1

    def attention_at(self, role: Role) -> tuple[tuple[int, AttentionKind], ...]:
        """Return (feature-map size, kind) of every extra layer of a network, the default resolved."""
        chosen = self.generator_attention if role == "generator" else self.discriminator_attention
        return ((min(32, self.resolution // 2), "self"),) if chosen is None else chosen

    def check_architecture(self, built: str) -> None:
        """Raise ValueError if this is not a configuration of the architecture that is being built."""
        if self.architecture != built:
            raise ValueError(f"architecture is {self.architecture}, not {built}: build it with sagan.model.build")


def baked(config: ModelConfig) -> ModelConfig:
    """Return the configuration of a generator whose spectral norms are folded into its weights."""
    return replace(config, generator_spectral_norm=False)
