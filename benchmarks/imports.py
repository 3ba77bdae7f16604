"""Measure the accuracy of imports: each codebase's own networks, run by its own code, against ours after the import.

    python benchmarks/imports.py FOLDER_OF_CHECKOUTS [--record FOLDER]

The folder holds git checkouts of PyTorch-StudioGAN, mmgeneration (which needs mmcv 1.x), BigGAN-PyTorch, mimicry and
Self-Attention-GAN (heykeetae's); missing ones are skipped. Their networks are built at a tiny width (heykeetae's at its
own) with random weights, spectral-norm vectors and batch-norm statistics, saved as that code saves them, and imported.
The table shows the largest difference over 32 inputs, relative to the largest value: of images and logits in evaluation
mode, of the attention maps, and of one forward pass in training mode with the statistics and vectors that it updates.
Differences are measured in float32 and with both networks in float64, which separates rounding from another function.

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
def compare(peer: Peer, dtype: torch.dtype, record: Path | None = None) -> list[float | None]:
    """Return relative differences: images, logits, maps (G, D), outputs in training mode (G, D), state after it."""
    generator, discriminator = peer.generator, peer.discriminator
    for network in (generator, discriminator):
        randomise(network.float())
    count = 3 if record else COUNT
    z, y = torch.randn(count, peer.latent_dim, dtype=dtype), torch.arange(count) % CLASSES
    x = (torch.rand(count, 3, peer.resolution, peer.resolution) * 2 - 1).half().to(dtype)
    with tempfile.TemporaryDirectory() as folder:
        run = imported_run(peer, record or Path(folder), Path(folder) / "run")
        g, d = (network.to(dtype).eval() for network in (read_generator(run)[0], read_discriminator(run)))
        generator.to(dtype).eval(), discriminator.to(dtype).eval()
        before = {network: copy.deepcopy(network.state_dict()) for network in (generator, discriminator)}

        def call(network: nn.Module) -> Tensor:
            """Run a network from its initial state: every forward pass updates heykeetae's vectors."""
            network.load_state_dict(before[network])
            return peer.generate(network, z, y) if network is generator else peer.discriminate(network, x, y)

        images, logits = call(generator), call(discriminator)
        differences: list[float | None] = [relative(g(z, y), images), relative(d(x, y), logits)]
        for ours, network, inputs in ((g, generator, z), (d, discriminator, x)):
            theirs = their_maps(network, peer.attention, lambda n=network: call(n))
            maps = None if theirs is None else attention_maps(ours, inputs, y, queries="all")
            differences.append(None if maps is None else relative(next(iter(maps.values())).flatten(2), theirs))
        for network in (g, d, generator, discriminator):
            network.train()
        trained = call(generator), call(discriminator)
        differences += [relative(g(z, y), trained[0]), relative(d(x, y), trained[1])]
        if record:
            arrays = {"z": z, "y": y, "x": x.half(), "pictures": images, "logits": logits}
            arrays |= {"training_pictures": trained[0], "training_logits": trained[1]}
            np.savez_compressed(record / "expected.npz", **{name: t.numpy() for name, t in arrays.items()})
        after = imported_run(peer, Path(folder), Path(folder) / "after")
        states = ((g, read_generator(after)[0]), (d, read_discriminator(after)))
        differences.append(max(relative(t, b.state_dict()[k]) for a, b in states for k, t in a.state_dict().items()))
    return differences


def imported_run(peer: Peer, folder: Path, out: Path) -> Path:
    """Save the networks as their codebase does, import the files and return the run's folder."""
    files = peer.save(peer, folder)
    path = files.pop("path")
    write_import(out, import_networks(path, **files), path)
    return out


def main() -> None:
    parser = argument_parser(__doc__, save=True)
    parser.add_argument("peers", type=Path)
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    titles = ("images", "logits", "G maps", "D maps", "G training", "D training", "state after")
    keep_memory()
    torch.set_num_threads(1)
    columns = ("networks", "bits", *titles)
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
            for dtype in (torch.float32,) if record else (torch.float32, torch.float64):
                differences = compare(peer, dtype, record)
                values = ["-" if v is None else f"{v:.1e}" for v in differences]
                table.row(f"{peer.codebase}, {peer.about}", str(dtype).removeprefix("torch.float"), *values)


if __name__ == "__main__":
    main()
