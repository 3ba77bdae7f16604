"""Build the SAGAN of other codebases from checkouts, and ours: networks, training step and sampling, one interface.

    python benchmarks/peers.py FOLDER_OF_CHECKOUTS     # lists them with parameter counts, after a step of each

Nothing here changes what their code computes. Settings that their command lines do not have are made in their own
tables or with their own blocks: at 32 px all three have networks of one constant width, whereas ours grow narrower
towards the image, and at 64 px theirs are wider than ours at 4 x 4. To compare at equal widths, BigGAN-PyTorch gets our
numbers in its architecture tables, and the others get their own blocks in our widths.
"""

import argparse
import contextlib
import functools
import importlib
import importlib.util
import io
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from machine import Table, argument_parser
from sagan import PRESETS, ModelConfig, TrainingConfig
from sagan.training.step import Trainer

SIZES: dict[str, ModelConfig] = {
    "128": ModelConfig(resolution=128, num_classes=1000),
    "demo": PRESETS["demo"].model,
}
RATES = (1e-4, 4e-4)  # of G and D, in each codebase's SAGAN configuration


@dataclass
class Contender:
    """A codebase's networks, and how to train them and sample from them."""

    about: str
    """What one step does, and what was set."""
    generator: nn.Module
    discriminator: nn.Module
    step: Callable[[Tensor, Tensor], object]
    """One update of D and one of G (and of the average, if it keeps one) on real images and labels."""
    average: nn.Module
    """The network to sample from: the averaged generator, or the generator."""
    draw: Callable[[nn.Module, Tensor, Tensor], Tensor]
    latent_dim: int | None = None
    """Length of a latent; None: the model's."""

    @property
    def parameters(self) -> tuple[int, int]:
        """Return the parameter counts of G and D."""
        g, d = (sum(p.numel() for p in n.parameters()) for n in (self.generator, self.discriminator))
        return g, d


# Importing their modules.


def modules(folder: Path, *prefixes: str) -> None:
    """Make a checkout importable, and forget modules of the previous one with the same names."""
    for name in list(sys.modules):
        if name.split(".")[0] in prefixes:
            del sys.modules[name]
    sys.path.insert(0, str(folder))


def stub(name: str, path: Path | None = None, **contents: Any) -> types.ModuleType:
    """Register an empty module in place of one of theirs that is not needed."""
    module = types.ModuleType(name)
    if path:
        module.__path__ = [str(path)]
    for key, value in contents.items():
        setattr(module, key, value)
    sys.modules[name] = module
    return module


class _Meta(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class Anything(metaclass=_Meta):
    """Replace what is imported and not used; each of its attributes is itself."""


# Their networks.


def biggan_code(root: Path) -> types.ModuleType:
    modules(root, "layers", "utils", "sync_batchnorm")
    return importlib.import_module("BigGAN")


def studiogan_networks(
    root: Path, resolution: int, widths: tuple[int, int], at: tuple[int, int], classes: int, latent_dim: int
) -> tuple[nn.Module, nn.Module]:
    """Build G and D of the given widths, with attention after the blocks `at`, counted from 1."""
    code, _, layers = studiogan_code(root)
    model = types.SimpleNamespace(info_type="N/A", g_info_injection="N/A")
    generator = code.Generator(
        z_dim=latent_dim,
        g_shared_dim=None,
        img_size=resolution,
        g_conv_dim=widths[0],
        apply_attn=True,
        attn_g_loc=[at[0]],
        g_cond_mtd="cBN",
        num_classes=classes,
        g_init="ortho",
        g_depth=None,
        mixed_precision=False,
        MODULES=layers,
        MODEL=model,
    )
    discriminator = code.Discriminator(
        img_size=resolution,
        d_conv_dim=widths[1],
        apply_d_sn=True,
        apply_attn=True,
        attn_d_loc=[at[1]],
        d_cond_mtd="PD",
        aux_cls_type="W/O",
        d_embed_dim=None,
        normalize_d_embed=False,
        num_classes=classes,
        d_init="ortho",
        d_depth=None,
        mixed_precision=False,
        MODULES=layers,
        MODEL=model,
    )
    return generator, discriminator


@functools.cache
def studiogan_code(root: Path) -> tuple[types.ModuleType, types.ModuleType, types.SimpleNamespace]:
    """Import their networks, their layers, and the choice of layers that their configuration makes for SAGAN."""
    modules(root / "src", "utils", "models")
    stub("utils", root / "src/utils")
    sys.modules["utils"].misc = stub("utils.misc", dummy_context_mgr=contextlib.nullcontext)
    code, ops = importlib.import_module("models.resnet"), importlib.import_module("utils.ops")
    normed = {"conv2d": ops.snconv2d, "linear": ops.snlinear, "embedding": ops.sn_embedding}
    layers = types.SimpleNamespace(
        **{f"{network}_{kind}": layer for network in "gd" for kind, layer in normed.items()},
        g_bn=ops.ConditionalBatchNorm2d,
        g_act_fn=nn.ReLU(inplace=True),
        d_act_fn=nn.ReLU(inplace=True),
    )
    return code, ops, layers


def mimicry_code(root: Path, resolution: int) -> types.ModuleType:
    modules(root, "torch_mimicry")
    stub("torch_mimicry", root / "torch_mimicry")
    for package in ("nets", "training"):
        stub(f"torch_mimicry.{package}", root / "torch_mimicry" / package)
    return importlib.import_module(f"torch_mimicry.nets.sagan.sagan_{resolution}")


# Their training.


def ours(root: Path | None, model: ModelConfig, training: TrainingConfig) -> Contender:
    trainer = Trainer(model, training, torch.get_default_device())
    count = 0

    def step(images: Tensor, labels: Tensor) -> None:
        nonlocal count
        trainer.train_step(count, lambda _: (images, labels))
        count += 1

    return Contender(
        "one pass of D over real and generated images; EMA; its images are bytes",
        trainer.generator,
        trainer.discriminator,
        step,
        trainer.ema.network,
        lambda g, z, y: g(z, y),
    )


def biggan(
    root: Path,
    model: ModelConfig,
    training: TrainingConfig,
    *,
    attention: int = 64,
    rates: tuple[float, float] = RATES,
) -> Contender:
    """Build BigGAN-PyTorch as in scripts/launch_SAGAN_bs128x2_ema.sh, without accumulation over two half batches."""
    if "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is None:  # for their data
        stub("torchvision", transforms=Anything)
        stub("torchvision.transforms")
    stub("datasets", **dict.fromkeys(("ImageFolder", "ILSVRC_HDF5", "CIFAR10", "CIFAR100"), Anything))
    stub("animal_hash")
    code = biggan_code(root)
    fns, utils = importlib.import_module("train_fns"), importlib.import_module("utils")
    # Their Distribution is a subclass of Tensor; in the PyTorch of that time its operations returned plain tensors.
    utils.Distribution.__torch_function__ = torch._C._disabled_torch_function_impl
    set_here = f"attention at {attention}x{attention}"
    if model.resolution < 128:
        attention = model.resolution // 2
        set_here = f"our widths in its tables, attention at {attention}x{attention}"
        _set_tables(code, model)
    config = {
        "resolution": model.resolution,
        "n_classes": model.num_classes,
        "dim_z": model.latent_dim,
        "G_ch": model.base_channels,
        "D_ch": model.base_channels,
        "G_attn": str(attention),
        "D_attn": str(attention),
        "G_shared": False,
        "G_lr": rates[0],
        "D_lr": rates[1],
        "G_B2": 0.999,
        "D_B2": 0.999,
        "SN_eps": 1e-8,
        "BN_eps": 1e-5,
        "adam_eps": 1e-8,
        "G_init": "xavier",
        "D_init": "xavier",
        "batch_size": training.batch_size,
        "num_D_steps": 1,
        "num_D_accumulations": 1,
        "num_G_accumulations": 1,
        "toggle_grads": True,
        "split_D": False,
        "G_ortho": 0.0,
        "D_ortho": 0.0,
        "ema": True,
    }
    generator, discriminator = code.Generator(**config), code.Discriminator(**config)
    averaged = code.Generator(**{**config, "skip_init": True, "no_optim": True})
    ema = utils.ema(generator, averaged, 0.9999, 2000)
    z, y = utils.prepare_z_y(
        training.batch_size, model.latent_dim, model.num_classes, device=torch.get_default_device()
    )
    state = {"itr": 0}
    pair = code.G_D(generator, discriminator)
    train = fns.GAN_training_function(generator, discriminator, pair, z, y, ema, state, config)

    def step(images: Tensor, labels: Tensor) -> object:
        state["itr"] += 1
        for network in (generator, discriminator, averaged):
            network.train()
        return train(images, labels)

    about = f"its train_fns.GAN_training_function: one pass of D over both, EMA; {set_here}"
    return Contender(about, generator, discriminator, step, averaged, lambda g, z, y: g(z, g.shared(y)))


def _set_tables(code: types.ModuleType, model: ModelConfig) -> None:
    """Set our widths, and attention where ours is, in its architecture tables."""
    up, down = model.generator_channels, model.discriminator_channels
    sizes, at = model.generator_sizes, model.resolution // 2
    attention = {size: size == at for size in sizes}
    g = {
        "in_channels": list(up[:-1]),
        "out_channels": list(up[1:]),
        "upsample": [True] * (len(sizes) - 1),
        "resolution": list(sizes[1:]),
        "attention": attention,
    }
    d = {
        "in_channels": [3, *down[:-1]],
        "out_channels": list(down),
        "downsample": [True] * model.halvings + [False],
        "resolution": [*model.discriminator_sizes, model.discriminator_sizes[-1]],
        "attention": attention,
    }
    code.G_arch, code.D_arch = lambda ch, attention: {sizes[-1]: g}, lambda ch, attention: {sizes[-1]: d}


def studiogan(root: Path, model: ModelConfig, training: TrainingConfig, *, mixed: bool = False) -> Contender:
    """Build PyTorch-StudioGAN as in configs/ImageNet/SAGAN-256.yaml, with its worker's train_discriminator and
    train_generator.

    `mixed` is its mixed precision (-mpc), fp16 with scaled losses; CUDA only.
    """
    widths, at = (model.base_channels, model.base_channels), (4, 1)
    if model.resolution < 128:
        # By its multiples of a width, the linear layers and the embedding get ours; the blocks are set below.
        first, last, at = {32: (4, 2, (2, 1)), 64: (16, 16, (3, 1))}[model.resolution]
        widths = model.generator_channels[0] // first, model.discriminator_channels[-1] // last
    generator, discriminator = studiogan_networks(
        root, model.resolution, widths, at, model.num_classes, model.latent_dim
    )
    set_here = "attention at 64x64"
    if model.resolution < 128:
        side = model.resolution // 2
        set_here = f"our widths, of its blocks, attention at {side}x{side}"
        _set_studiogan_widths(root, generator, discriminator, model)
    adams = [
        torch.optim.Adam(network.parameters(), rate, (0.0, 0.999), eps=1e-6)
        for network, rate in zip((generator, discriminator), RATES, strict=True)
    ]

    device, scaler = torch.get_default_device(), torch.amp.GradScaler("cuda", enabled=mixed)

    def update(adam: torch.optim.Optimizer, loss: Tensor) -> None:
        scaler.scale(loss).backward()
        scaler.step(adam)
        scaler.update()

    def fake(count: int) -> tuple[Tensor, Tensor]:
        y = torch.randint(model.num_classes, (count,), device=device)
        return generator(torch.randn(count, model.latent_dim, device=device), y), y

    def choose(trained: nn.Module, other: nn.Module) -> None:
        for network in (generator, discriminator):
            network.train()
        trained.requires_grad_(True)
        other.requires_grad_(False)
        for norm in generator.modules():
            if isinstance(norm, nn.BatchNorm2d):  # their (un)track_bn_statistics
                norm.track_running_stats = trained is generator

    def step(images: Tensor, labels: Tensor) -> None:
        choose(discriminator, generator)
        adams[1].zero_grad()
        with torch.autocast("cuda", torch.float16, enabled=mixed):
            fakes, y = fake(len(images))
            on_real = discriminator(images, labels)["adv_output"]
            on_fake = discriminator(fakes, y)["adv_output"]
            loss = F.relu(1.0 - on_real).mean() + F.relu(1.0 + on_fake).mean()
        update(adams[1], loss)
        choose(generator, discriminator)
        adams[0].zero_grad()
        with torch.autocast("cuda", torch.float16, enabled=mixed):
            loss = -discriminator(*fake(len(images)))["adv_output"].mean()
        update(adams[0], loss)

    about = f"its worker's two steps written out: D over real, then over generated images; {set_here}"
    return Contender(about, generator, discriminator, step, generator, lambda g, z, y: g(z, y))


def _set_studiogan_widths(root: Path, generator: Any, discriminator: Any, model: ModelConfig) -> None:
    """Rebuild their blocks in our widths; the linear layers and the embedding have these widths already."""
    code, ops, layers = studiogan_code(root)
    up, down = model.generator_channels, model.discriminator_channels
    block = functools.partial(code.GenBlock, g_cond_mtd="cBN", g_info_injection="N/A", MODULES=layers)
    blocks = [[block(*pair, affine_input_dim=model.num_classes)] for pair in pairwise(up)]
    blocks.insert(-1, [ops.SelfAttention(up[-2], is_generator=True, MODULES=layers)])  # at half the resolution
    generator.blocks = nn.ModuleList(map(nn.ModuleList, blocks))
    generator.bn4 = ops.batchnorm_2d(in_features=up[-1])
    generator.conv2d5 = layers.g_conv2d(in_channels=up[-1], out_channels=3, kernel_size=3, stride=1, padding=1)
    first = code.DiscOptBlock(3, down[0], apply_d_sn=True, MODULES=layers)
    attention = ops.SelfAttention(down[0], is_generator=False, MODULES=layers)
    others = [
        code.DiscBlock(*pair, apply_d_sn=True, MODULES=layers, downsample=i < model.halvings)
        for i, pair in enumerate(pairwise(down), 1)
    ]
    discriminator.blocks = nn.ModuleList(nn.ModuleList([b]) for b in (first, attention, *others))
    for network in (generator, discriminator):
        ops.init_weights(network.modules, "ortho")


def mimicry(root: Path, model: ModelConfig, training: TrainingConfig) -> Contender:
    """Build mimicry's SAGAN, trained by its own train_step methods, with the paper's Adam (0, 0.9)."""
    code = mimicry_code(root, model.resolution)
    device, log = torch.get_default_device(), importlib.import_module("torch_mimicry.training.metric_log").MetricLog()
    widest = model.generator_channels[0]
    generator = getattr(code, f"SAGANGenerator{model.resolution}")(model.num_classes, nz=model.latent_dim, ngf=widest)
    discriminator = getattr(code, f"SAGANDiscriminator{model.resolution}")(model.num_classes, ndf=widest)
    if model.resolution == 32:
        _set_mimicry_widths(code, generator, discriminator, model)
    adams = [
        torch.optim.Adam(network.parameters(), rate, (0.0, 0.9))
        for network, rate in zip((generator, discriminator), RATES, strict=True)
    ]

    def step(images: Tensor, labels: Tensor) -> None:
        for network in (generator, discriminator):
            network.train()
        common = {"real_batch": (images, labels), "log_data": log, "device": device}
        discriminator.train_step(netG=generator, optD=adams[1], **common)
        generator.train_step(netD=discriminator, optG=adams[0], **common)

    set_here = "our widths, of its blocks, attention at 16x16" if model.resolution == 32 else "attention at 32x32"
    about = f"its train_step methods: D over real, then over generated images, D narrower in its blocks; {set_here}"
    return Contender(about, generator, discriminator, step, generator, lambda g, z, y: g(z, y))


def _set_mimicry_widths(code: Any, generator: Any, discriminator: Any, model: ModelConfig) -> None:
    """Rebuild their blocks in our widths at 32 px; the linear layers and the embedding have these widths already."""
    up, down = model.generator_channels, model.discriminator_channels
    for name, (c_in, c_out) in zip(("block2", "block3", "block4"), pairwise(up), strict=True):
        block = code.GBlock(c_in, c_out, upsample=True, num_classes=model.num_classes, spectral_norm=True)
        setattr(generator, name, block)
    generator.attn_block = code.SelfAttention(up[2], spectral_norm=True)
    generator.b5, generator.c5 = nn.BatchNorm2d(up[-1]), code.SNConv2d(up[-1], 3, 3, 1, padding=1)
    nn.init.xavier_uniform_(generator.c5.weight)
    attention = code.SelfAttention(down[0], spectral_norm=True)
    discriminator.block1 = nn.Sequential(code.DBlockOptimized(3, down[0]), attention)
    discriminator.attn_block = nn.Identity()
    for i, pair in enumerate(pairwise(down), 1):
        setattr(discriminator, f"block{i + 1}", code.DBlock(*pair, downsample=i < model.halvings))


OURS = "ours"
CONTENDERS: dict[str, tuple[str, Callable[..., Contender]]] = {  # by name: the checkout's folder and the builder
    OURS: ("", ours),
    "BigGAN-PyTorch": ("BigGAN-PyTorch", biggan),
    "BigGAN-PyTorch, attention as ours": ("BigGAN-PyTorch", functools.partial(biggan, attention=32)),
    "PyTorch-StudioGAN": ("PyTorch-StudioGAN", studiogan),
    "mimicry": ("mimicry", mimicry),
}


def names(folder: Path, size: str) -> list[str]:
    """Return the contenders that differ at this size and whose checkout exists, ours first."""
    chosen = [n for n in CONTENDERS if size == "128" or not n.endswith("as ours")]
    return [name for name in chosen if (folder / CONTENDERS[name][0]).is_dir()]


def build(name: str, folder: Path, model: ModelConfig, training: TrainingConfig, **options: Any) -> Contender:
    """Build a contender on the default device; output of its code is discarded."""
    torch.manual_seed(training.seed)
    checkout, builder = CONTENDERS[name]
    with contextlib.redirect_stdout(io.StringIO()):
        return builder(folder / checkout, model, training, **options)


def add_diffaugment(one: Contender, folder: Path) -> None:
    """Augment every image before D in training by PyTorch-StudioGAN's DiffAugment: color, translation, cutout.

    Its worker applies it there, and so does the BigGAN-PyTorch of mit-han-lab/data-efficient-gans, whose code it is.
    """
    path = folder / "PyTorch-StudioGAN/src/utils/diffaug.py"
    spec = importlib.util.spec_from_file_location("diffaug", path)
    assert spec
    assert spec.loader
    code = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    one.discriminator.register_forward_pre_hook(lambda _, inputs: (code.apply_diffaug(inputs[0]), *inputs[1:]))


def real_batch(name: str, model: ModelConfig, batch_size: int) -> tuple[Tensor, Tensor]:
    """Return random images and labels, the same for all: bytes for ours, floats in [-1, 1] for the others."""
    noise = torch.Generator().manual_seed(0)
    shape = (batch_size, model.resolution, model.resolution, model.image_channels)
    images = torch.randint(256, shape, generator=noise, dtype=torch.uint8).permute(0, 3, 1, 2)
    labels = torch.randint(max(1, model.num_classes), (batch_size,), generator=noise)
    return (images if name == OURS else (images / 127.5 - 1).contiguous()), labels


def comparison_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of the scripts that compare codebases, each in a worker process."""
    parser = argument_parser(description, save=True)
    parser.add_argument("folder", type=Path, help="folder of checkouts")
    parser.add_argument("--size", choices=SIZES, default="128")
    parser.add_argument("--only", nargs="+", help="these codebases (ours always)")
    parser.add_argument("--work", help=argparse.SUPPRESS)  # the codebase of a worker process
    return parser


def chosen_names(options: argparse.Namespace) -> list[str]:
    """Return the contenders that the options of `comparison_parser` choose, ours first."""
    ours_first = names(options.folder, options.size)
    return [name for name in ours_first if name == OURS or not options.only or name in options.only]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    model = SIZES[options.size]
    table = Table("Codebases that are compared", ("codebase", "parameters of G", "of D", "image, px", "a step"))
    for name in names(options.folder, options.size):
        one = build(name, options.folder, model, TrainingConfig(batch_size=options.batch))
        one.step(*real_batch(name, model, options.batch))
        with torch.no_grad():
            z, y = torch.randn(2, model.latent_dim), torch.arange(2)
            side = one.draw(one.average.eval(), z, y).shape[-1]
        g, d = one.parameters
        table.row(name, f"{g:,}", f"{d:,}", side, one.about)


if __name__ == "__main__":
    main()
