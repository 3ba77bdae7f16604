"""The self-attention layer (paper section 3, equations 1-3) and its relatives."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan.model.autocast import as_dtype_of, without_autocast
from sagan.model.config import MAX_LAYERS, AttentionKind, ModelConfig, Variant
from sagan.model.spectral_norm import SNConv2d
from sagan.model.tiled_attention import TiledAttention

VALUE_REDUCTION: dict[Variant, int] = {"released": 2, "paper": 8, "full": 1, "direct": 1}


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute softmax(q k^T) v without storing the map, whose rows sum to 1 (equation 1; no 1/sqrt(d) scaling).

    Shapes: q (N, Q, D), k (N, K, D), v (N, K, E) to (N, Q, E).

    Implementation: on the CPU our own tiles, which do less work than PyTorch's fused kernel. That kernel serves the
    rest: other devices, exported programs, and bf16, which it sums in fp32. It needs D = E, or it would store the map;
    padding the shorter of the two with zeros changes nothing.
    """
    full_precision = q.dtype in (torch.float32, torch.float64)
    if q.device.type == "cpu" and full_precision and not torch.compiler.is_compiling():
        return TiledAttention.apply(q, k, v)
    value_width = v.shape[-1]
    width = max(q.shape[-1], value_width)
    q, k, v = (F.pad(t, (0, width - t.shape[-1]))[:, None] for t in (q, k, v))  # one head: (N, 1, Q or K, width)
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)[:, 0, :, :value_width]


def add_scaled(x: Tensor, gamma: Tensor, o: Tensor) -> Tensor:
    """Compute y = gamma * o + x (equation 3) in x's dtype: gamma, in fp32, would lift a bf16 map to it."""
    return torch.addcmul(x, as_dtype_of(gamma, x), as_dtype_of(o, x))  # gamma * o + x, fused


class SelfAttention2d(nn.Module):
    """Let every location of a feature map attend to every other: y = gamma * o + x (equation 3).

    Maps (N, C, H, W) to (N, C, H, W), any H and W (2 or more for 'released', which pools keys and values 2x2).
    gamma is 0 at the start, so the layer starts as the identity. It depends on no network: use it in any.

    Args:
        channels: C.
        variant: 'released' (pooled keys and values, values of C/2 channels, the default), 'paper' (all keys, values
            of C/8), 'full' (all keys, values of C, projected as well) or 'direct' (as 'full' without the last 1x1
            convolution, and with biases: heykeetae's Self-Attention-GAN).
        query_reduction: C / channels of queries and keys.
        value_reduction: C / channels of values; None: the variant's.
        spectral_norm: normalise the four 1x1 convolutions.

    Raises:
        ValueError: unknown variant, or value_reduction != 1 with 'direct'.
    """

    def __init__(
        self,
        channels: int,
        variant: Variant = "released",
        *,
        query_reduction: int = 8,
        value_reduction: int | None = None,
        spectral_norm: bool = True,
    ):
        super().__init__()
        if variant not in VALUE_REDUCTION:
            raise ValueError(f"variant must be one of {', '.join(VALUE_REDUCTION)}, got {variant!r}")
        self.pooled = variant == "released"
        query_channels = max(1, channels // query_reduction)
        value_channels = max(1, channels // (value_reduction or VALUE_REDUCTION[variant]))
        direct = variant == "direct"
        if direct and value_channels != channels:
            raise ValueError(f"value_reduction must be 1 with variant 'direct', got {value_reduction}")

        def conv1x1(c_in: int, c_out: int) -> SNConv2d:
            return SNConv2d(c_in, c_out, 1, spectral_norm=spectral_norm, bias=direct)

        self.query = conv1x1(channels, query_channels)  # g in the paper
        self.key = conv1x1(channels, query_channels)  # f
        self.value = conv1x1(channels, value_channels)  # h
        self.output = nn.Identity() if direct else conv1x1(value_channels, channels)  # v
        self.gamma = nn.Parameter(torch.zeros(()))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (N, H·W, D), keys (N, K, D), values (N, K, E); K = H·W, or floor(H/2)·floor(W/2) if pooled."""
        q, k, v = self.query(x), self.key(x), self.value(x)
        if self.pooled:
            k, v = F.max_pool2d(k, 2), F.max_pool2d(v, 2)
        q, k, v = (t.flatten(2).transpose(1, 2) for t in (q, k, v))
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        o = attend(*self.project(x))  # (N, H·W, E)
        o = self.output(o.transpose(1, 2).unflatten(2, x.shape[2:]))  # equation 2
        return add_scaled(x, self.gamma, o)  # y = gamma * o + x (equation 3)

    def attention_rows(self, x: Tensor, locations: Tensor) -> Tensor:
        """Return rows of the map beta (equation 1): exactly those of the given queries, without computing the rest.

        Shapes: x (N, C, H, W), locations (N, Q) int64, w + h·W for column w and row h, to (N, Q, H', W'). Every row
        sums to 1 over the keys' grid, which is H x W, or floor(H/2) x floor(W/2) if keys are pooled.
        """
        x_query = x.flatten(2).gather(2, locations[:, None].expand(-1, x.shape[1], -1))  # (N, C, Q)
        q = self.query(x_query[..., None]).squeeze(3)  # (N, D, Q): a 1x1 convolution sees each location on its own
        k = self.key(x)
        if self.pooled:
            k = F.max_pool2d(k, 2)
        beta = torch.softmax(q.transpose(1, 2) @ k.flatten(2), dim=-1)  # (N, Q, K)
        return beta.unflatten(2, k.shape[2:])


class ChannelAttention2d(nn.Module):
    """Let every channel attend to every other: softmax(X X^T) X over a C x C map (DANet, Fu et al. 2019, section 3.3).

    Maps (N, C, H, W) to (N, C, H, W); gamma is 0 at the start. The map is computed without autocast: its energies are
    sums over all locations, of which bf16 would keep too few digits for the exponential.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)  # (N, C, H·W)
        with without_autocast(x.device):
            rows = as_dtype_of(flat, self.gamma)
            beta = torch.softmax(rows @ rows.transpose(1, 2), dim=-1)  # (N, C, C)
        return add_scaled(x, self.gamma, (beta @ flat).view_as(x))


class MatchedResidual2d(nn.Module):
    """A residual block with as many parameters as self-attention: the control of the paper's Table 1.

    Computes x + conv1x1(relu(conv3x3(relu(x)))) without biases. The inner width is chosen to match `parameters`: C/8
    for the released variant, where 10 C · C/8 weights equal the attention's (C/8 + C/8 + C/2 + C/2) C exactly (but for
    the scalar gamma).
    """

    def __init__(self, channels: int, parameters: int, *, spectral_norm: bool = True):
        super().__init__()
        inner = max(1, round(parameters / (10 * channels)))
        self.conv1 = SNConv2d(channels, inner, 3, spectral_norm=spectral_norm, bias=False)
        self.conv2 = SNConv2d(inner, channels, 1, spectral_norm=spectral_norm, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


def build_attention(kind: AttentionKind, channels: int, config: ModelConfig, *, spectral_norm: bool) -> nn.Module:
    """Build a layer of a kind for a feature map of `channels`, with the options that a configuration holds."""
    if kind == "channel":
        return ChannelAttention2d()

    def build_self_attention() -> SelfAttention2d:
        return SelfAttention2d(
            channels,
            config.attention_variant,
            query_reduction=config.query_reduction,
            value_reduction=config.value_reduction,
            spectral_norm=spectral_norm,
        )

    if kind == "self":
        return build_self_attention()
    with torch.device("meta"):  # its parameters are only counted
        parameters = sum(p.numel() for p in build_self_attention().parameters())
    return MatchedResidual2d(channels, parameters, spectral_norm=spectral_norm)


@contextmanager
def own_random_numbers(number: int) -> Iterator[None]:
    """Draw PyTorch's random numbers on the CPU from another stream inside, and resume the old one afterwards.

    The stream is a function of the old one's state and of `number`.
    """
    with torch.random.fork_rng(devices=[]):
        drawn = int(torch.randint(2**32, (), device="cpu"))
        # PyTorch reads 32 bits of a seed on the CPU. Multiples of 2^32 / golden ratio set streams far apart.
        torch.default_generator.manual_seed((drawn + number * 2_654_435_769) % 2**32)
        yield


def build_attention_stacks(
    channels: Mapping[int, int],
    layers: Iterable[tuple[int, AttentionKind]],
    config: ModelConfig,
    *,
    spectral_norm: bool,
) -> nn.ModuleDict:
    """Build the layers that follow each feature map of a network, by its size; an empty nn.Sequential where none does.

    Their initial weights come from random streams of their own: a seed gives all other weights of the network the same
    values whichever layers it has, and a layer the same values whichever other layers there are.

    Args:
        channels: channels of the feature map of each size.
        layers: size and kind of every layer, in the order in which they apply.
    """
    stacks = {size: nn.Sequential() for size in channels}
    for size, kind in layers:
        with own_random_numbers(size * MAX_LAYERS + len(stacks[size])):
            stacks[size].append(build_attention(kind, channels[size], config, spectral_norm=spectral_norm))
    return nn.ModuleDict({str(size): stack for size, stack in stacks.items()})
