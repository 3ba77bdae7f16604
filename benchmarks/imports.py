"""Measure the accuracy of imports: each codebase's own networks, run by its own code, against ours after the import.

    python benchmarks/imports.py FOLDER_OF_CHECKOUTS [--record FOLDER]

The folder holds git checkouts of PyTorch-StudioGAN, mmgeneration (which needs mmcv 1.x), BigGAN-PyTorch, mimicry and
Self-Attention-GAN (heykeetae's); missing ones are skipped. Their networks are built at a tiny width (heykeetae's at its
own) with random weights, spectral-norm vectors and batch-norm statistics, saved as that code saves them, and imported.
The table shows the largest difference over 32 inputs, relative to the largest value, in evaluation mode: of images,
logits and attention maps. It has four rows for each network, of which the third and fourth are to be compared:

    float64   import and both networks in float64: whether the function is the same
    float32   the imported run and their network, both in float32
    stored    the imported run, whose weights are of float32, computed in float64, against their network in float64
    theirs    their own network in float32 against itself in float64

--record writes the small files that the tests use (tests/importers/data).
"""

import contextlib
import copy
import importlib
import importlib.util
import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from machine import Table, argument_parser
from peers import Anything, biggan_code, mimicry_code, modules, stub, studiogan_networks
from sagan import attention_maps
from sagan.device import keep_memory
from sagan.importers.importer import import_networks, write_import
from sagan.run import read_discriminator, read_generator

COUNT = 32  # inputs
CLASSES = 5


@dataclass
class Peer:
    """The networks of another codebase, and how to call and save them."""

    codebase: str
    about: str
    generator: nn.Module
    discriminator: nn.Module
    resolution: int
    latent_dim: int
    generate: Callable[[nn.Module, Tensor, Tensor], Tensor]
    discriminate: Callable[[nn.Module, Tensor, Tensor], Tensor]
    save: Callable[["Peer", Path], dict[str, Path]]
    attention: str
    """The name of the attention layer's class."""


def randomise(network: nn.Module) -> None:
    """Randomise weights, gains, tables, statistics and vectors; the vectors stay close to convergence."""
    for name, p in network.named_parameters():
        if name.endswith(("gamma", "sigma")):
            nn.init.constant_(p, 0.7)
        elif name.endswith(("weight_u", "weight_v")):  # heykeetae's vectors, which are parameters
            p.data = F.normalize(torch.randn_like(p), dim=0)
        elif p.dim() > 1:
            nn.init.normal_(p, std=p[0].numel() ** -0.5)
        else:
            nn.init.normal_(p, mean=1.0 if name.endswith(("gain", "weight")) else 0.0, std=0.3)
    buffers = dict(network.named_buffers())
    for name, b in buffers.items():
        if name.endswith("mean"):
            nn.init.normal_(b, std=0.3)
        elif name.endswith("var"):
            nn.init.uniform_(b, 0.5, 1.5)
        elif name.rpartition(".")[2] in ("u0", "weight_u"):
            nn.init.normal_(b)
            if name.endswith("weight_u"):
                b /= b.norm()
                w = dict(network.named_parameters())[name[:-1] + "orig"].detach().flatten(1)
                v = w.T @ b
                noise = torch.randn_like(v)
                buffers[name[:-1] + "v"].copy_(F.normalize(v / v.norm() + 0.3 * noise / noise.norm(), dim=0))


def biggan(root: Path, tiny: bool) -> Iterator[Peer]:
    code = biggan_code(root)

    def save(peer: Peer, folder: Path) -> dict[str, Path]:
        torch.save(peer.generator.state_dict(), folder / "G_ema.pth")
        torch.save(peer.discriminator.state_dict(), folder / "D.pth")
        return {"path": folder / "G_ema.pth", "discriminator": folder / "D.pth"}

    for resolution, ch, attention, options in (
        (
            (128, 8, "64", {}),
            (64, 8, "16", {"mybn": True}),
            (32, 8, "0", {}),
            (256, 8, "64", {}),
        )
        if not tiny
        else ((32, 2, "16", {}),)
    ):
        common = {"resolution": resolution, "n_classes": CLASSES, "SN_eps": 1e-8}
        generator = code.Generator(ch, 20, G_attn=attention, G_shared=False, BN_eps=1e-5, **common, **options)
        discriminator = code.Discriminator(ch, D_attn=attention if resolution > 32 else "0", **common)
        yield Peer(
            "biggan-pytorch",
            f"{resolution} px{', mybn' * bool(options)}",
            generator,
            discriminator,
            resolution,
            20,
            lambda g, z, y: g(z, g.shared(y)),
            lambda d, x, y: d(x, y).squeeze(1),
            save,
            "Attention",
        )


def studiogan(root: Path, tiny: bool) -> Iterator[Peer]:
    def save(peer: Peer, folder: Path) -> dict[str, Path]:
        scores = {"seed": 1, "run_name": "SAGAN", "step": 7, "best_fid": np.float64(34.7), "best_step": 7}
        torch.save({"state_dict": peer.generator.state_dict(), "optimizer": {}}, folder / "G.pth")
        torch.save({"state_dict": peer.discriminator.state_dict(), "optimizer": {}, **scores}, folder / "D.pth")
        return {"path": folder / "G.pth", "discriminator": folder / "D.pth"}

    for resolution, width, at in ((128, 8, 4), (64, 8, 3), (32, 8, 2)) if not tiny else ((32, 2, 2),):
        generator, discriminator = studiogan_networks(root, resolution, (width, 2 * width), (at, 1), CLASSES, 20)
        for norm in generator.modules():
            if type(norm).__name__ == "ConditionalBatchNorm2d":  # casts labels to float32, whatever the weights' dtype
                norm.register_forward_pre_hook(lambda _, inputs: (inputs[0], inputs[1].to(inputs[0])))
        yield Peer(
            "studiogan",
            f"{resolution} px",
            generator,
            discriminator,
            resolution,
            20,
            lambda g, z, y: g(z, y),
            lambda d, x, y: d(x, y)["adv_output"],
            save,
            "SelfAttention",
        )


def mmgeneration(root: Path, tiny: bool) -> Iterator[Peer]:
    modules(root, "mmgen")
    if importlib.util.find_spec("torchvision") is None:  # only their metrics need it
        stub("torchvision", models=Anything)
        stub("torchvision.models", inception=Anything)
    # Their packages import everything, including compiled operators: replace them by bare folders.
    for package in ("mmgen.models", "mmgen.models.architectures"):
        stub(package, root / package.replace(".", "/"))
    code = importlib.import_module("mmgen.models.architectures.sngan_proj")

    for resolution, width, at, options in (
        (128, 8, (4, 1), {"norm_eps": 1e-5, "with_embedding_spectral_norm": False, "sn_eps": 1e-8}),
        (128, 8, (4, 1), {}),
        (64, 8, (3, 1), {}),
        (32, 8 if tiny else 16, (2, 1), {"act_cfg": {"type": "ReLU", "inplace": True}, "init_cfg": {"type": "studio"}}),
    )[3 * tiny :]:
        act = {key: value for key, value in options.items() if key in ("act_cfg", "init_cfg")}
        generator = code.SNGANGenerator(
            resolution,
            CLASSES,
            width,
            noise_size=20,
            attention_after_nth_block=at[0],
            with_spectral_norm=True,
            **options,
        )
        discriminator = code.ProjDiscriminator(resolution, CLASSES, width, attention_after_nth_block=at[1], **act)

        def save(peer: Peer, folder: Path, options=options) -> dict[str, Path]:
            networks = {
                "generator": peer.generator,
                "generator_ema": peer.generator,
                "discriminator": peer.discriminator,
            }
            state = {f"{name}.{key}": t for name, n in networks.items() for key, t in n.state_dict().items()}
            act = {key: value for key, value in options.items() if key == "act_cfg"}
            config = f"model = dict(type='BasiccGAN', generator={options!r}, discriminator={act!r})\ntotal_iters = 9\n"
            torch.save({"meta": {"config": config, "iter": 9}, "state_dict": state}, folder / "iter_9.pth")
            return {"path": folder / "iter_9.pth"}

        yield Peer(
            "mmgeneration",
            f"{resolution} px{', BigGAN schedule' if 'sn_eps' in options else ', in-place ReLU' if act else ''}",
            generator,
            discriminator,
            resolution,
            20,
            lambda g, z, y: g(z, label=y),
            lambda d, x, y: d(x, y).squeeze(1),
            save,
            "SelfAttentionBlock",
        )


def mimicry(root: Path, tiny: bool) -> Iterator[Peer]:
    def save(peer: Peer, folder: Path) -> dict[str, Path]:
        peer.generator.save_checkpoint(str(folder), 11, name="netG.pth")
        peer.discriminator.save_checkpoint(str(folder), 11, name="netD.pth")
        return {"path": folder / "netG.pth", "discriminator": folder / "netD.pth"}

    for resolution, ngf, ndf in ((128, 256, 256), (32, 16, 16)) if not tiny else ((32, 8, 8),):
        code = mimicry_code(root, resolution)
        yield Peer(
            "mimicry",
            f"{resolution} px",
            getattr(code, f"SAGANGenerator{resolution}")(CLASSES, nz=20, ngf=ngf),
            getattr(code, f"SAGANDiscriminator{resolution}")(CLASSES, ndf=ndf),
            resolution,
            20,
            lambda g, z, y: g(z, y),
            lambda d, x, y: d(x, y).squeeze(1),
            save,
            "SelfAttention",
        )


def heykeetae(root: Path, tiny: bool) -> Iterator[Peer]:
    modules(root, "sagan_models", "spectral")
    code = importlib.import_module("sagan_models")

    def save(peer: Peer, folder: Path) -> dict[str, Path]:
        torch.save(peer.generator.state_dict(), folder / "7_G.pth")
        torch.save(peer.discriminator.state_dict(), folder / "7_D.pth")
        return {"path": folder / "7_G.pth", "discriminator": folder / "7_D.pth"}

    width, latent_dim = (8, 6) if tiny else (64, 128)
    generator = code.Generator(1, 64, latent_dim, width)
    discriminator = code.Discriminator(1, 64, width // 2 if tiny else width)
    if tiny:  # their attention layers have the channels of a width of 64, whatever the width
        generator.attn1, generator.attn2 = (code.Self_Attn(c * width, "relu") for c in (2, 1))
        discriminator.attn1, discriminator.attn2 = (code.Self_Attn(c * width, "relu") for c in (2, 4))
    yield Peer(
        "heykeetae",
        "64 px",
        generator,
        discriminator,
        64,
        latent_dim,
        lambda g, z, y: g(z)[0],
        lambda d, x, y: d(x)[0],
        save,
        "Self_Attn",
    )


PEERS = {
    "BigGAN-PyTorch": biggan,
    "PyTorch-StudioGAN": studiogan,
    "mmgeneration": mmgeneration,
    "mimicry": mimicry,
    "Self-Attention-GAN": heykeetae,
}


def relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30)).item()


def their_maps(network: nn.Module, kind: str, run: Callable[[], Any]) -> Tensor | None:
    """Return the attention layer's softmax output (N, H·W, K), or None without such a layer."""
    layers = [m for m in network.modules() if type(m).__name__ == kind]
    if not layers:
        return None
    maps: list[Tensor] = []
    softmax = F.softmax

    def keep(x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        maps.append(softmax(x, *arguments, **options))
        return maps[-1]

    with mock.patch.object(F, "softmax", keep):
        run()
    return maps[0]


@torch.no_grad()
def compare(peer: Peer, record: Path | None = None) -> dict[str, list[float | None]]:
    """Return for each row of the table the relative differences: images, logits, maps (G, D)."""
    for network in (peer.generator, peer.discriminator):
        randomise(network.float())
    count = 3 if record else COUNT
    z, y = torch.randn(count, peer.latent_dim), torch.arange(count) % CLASSES
    x = (torch.rand(count, 3, peer.resolution, peer.resolution) * 2 - 1).half().float()
    their32, their64 = outputs_of(peer, z, x, y, torch.float32), outputs_of(peer, z, x, y, torch.float64)
    if record:
        arrays = {"z": z, "y": y, "x": x.half(), "images": their32[0], "logits": their32[1]}
        arrays |= {"images64": their64[0], "logits64": their64[1]}
        np.savez_compressed(record / "expected.npz", **{name: t.numpy() for name, t in arrays.items()})

    with tempfile.TemporaryDirectory() as folder:
        peer.generator.float(), peer.discriminator.float()
        files = peer.save(peer, record or Path(folder))
        path = files.pop("path")
        run = write_import(Path(folder) / "run", import_networks(path, **files), path).path

        def ours(dtype: torch.dtype) -> list[Tensor | None]:
            g, d = read_generator(run)[0].to(dtype), read_discriminator(run).to(dtype)
            return our_outputs(g, d, z.to(dtype), x.to(dtype), y)

        def imported_in_float64() -> list[Tensor | None]:
            networks = import_networks(path, **files, dtype=torch.float64)
            return our_outputs(networks.average, networks.discriminator, z.double(), x.double(), y)

        # Maps of 32 inputs take gigabytes: those of a row are freed before the next row is computed.
        return {
            "float64": differences(imported_in_float64(), their64),
            "float32": differences(ours(torch.float32), their32),
            "stored": differences(ours(torch.float64), their64),
            "theirs": differences(their32, their64),
        }


def differences(ours: list[Tensor | None], theirs: list[Tensor | None]) -> list[float | None]:
    """Return the largest relative difference of each output; None where there is none."""
    return [None if a is None or b is None else relative(a, b) for a, b in zip(ours, theirs, strict=True)]


def our_outputs(g: nn.Module, d: nn.Module, z: Tensor, x: Tensor, y: Tensor) -> list[Tensor | None]:
    """Return images, logits and the maps of the first attention layer of G and D (N, H·W, K)."""
    outputs: list[Tensor | None] = [g.eval()(z, y), d.eval()(x, y)]
    for network, inputs in ((g, z), (d, x)):
        if not network.config.attention_at(network.role):
            outputs.append(None)
            continue
        maps = attention_maps(network, inputs, y, queries="all")
        outputs.append(next(iter(maps.values())).flatten(2))
    return outputs


def outputs_of(peer: Peer, z: Tensor, x: Tensor, y: Tensor, dtype: torch.dtype) -> list[Tensor | None]:
    """Return the same of their networks, each call from their initial state: heykeetae's vectors change in each."""
    outputs, maps = [], []
    for network, run, inputs in (
        (peer.generator, peer.generate, z.to(dtype)),
        (peer.discriminator, peer.discriminate, x.to(dtype)),
    ):
        before = copy.deepcopy(network.state_dict())
        network.to(dtype).eval()
        outputs.append(run(network, inputs, y))
        network.load_state_dict(before)
        maps.append(their_maps(network, peer.attention, lambda n=network, r=run, i=inputs: r(n, i, y)))
        network.load_state_dict(before)
    return [*outputs, *maps]


def main() -> None:
    parser = argument_parser(__doc__, save=True)
    parser.add_argument("peers", type=Path)
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    titles = ("images", "logits", "G maps", "D maps")
    keep_memory()
    torch.set_num_threads(1)
    columns = ("networks", "arithmetic", *titles)
    table = Table("Largest relative differences of imported networks", columns, save=options.save)
    for name, peers in PEERS.items():
        if not (options.peers / name).is_dir():
            table.note(f"{name}: skipped, no such folder.")
            continue
        torch.manual_seed(0)
        with contextlib.redirect_stdout(io.StringIO()):  # some of them print
            built = list(peers(options.peers / name, options.record is not None))
        for peer in built:
            record = options.record and options.record / peer.codebase
            if record:
                record.mkdir(parents=True, exist_ok=True)
            for row, values in compare(peer, record).items():
                shown = ["-" if value is None else f"{value:.1e}" for value in values]
                table.row(f"{peer.codebase}, {peer.about}", row, *shown)


if __name__ == "__main__":
    main()
