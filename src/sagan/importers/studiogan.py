"""Import PyTorch-StudioGAN's SAGAN (backbone 'resnet'): model=G-..., model=G_ema-..., model=D-...-weights-step=N.pth.

The class tables (C, num_classes) are linear layers of one-hot labels without bias, spectrally normalised like all
other layers; they hold the scales less 1. ReLUs work in place, so the discriminator's shortcuts receive rectified
input. Batch norms use an epsilon of 1e-4.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from sagan.errors import UserError
from sagan.importers import torch_layers
from sagan.importers.base import ConvertedNetwork, Kind, Layer
from sagan.importers.state_dict import StateDict


class StudioGAN(torch_layers.TorchCodebase):
    """github.com/POSTECH-CVLab/PyTorch-StudioGAN."""

    name = "studiogan"
    generator_stem = "linear0"
    generator_names: ClassVar[Mapping[str, str]] = {
        "bn1": "bn1",
        "conv1": "conv2d1",
        "bn2": "bn2",
        "conv2": "conv2d2",
        "shortcut": "conv2d0",
    }
    discriminator_names = generator_names
    attention_names: ClassVar[Mapping[str, str]] = {
        "query": "conv1x1_theta",
        "key": "conv1x1_phi",
        "value": "conv1x1_g",
        "output": "conv1x1_attn",
        "gamma": "sigma",
    }
    discriminator_embed = "embedding"
    assumed_fields: ClassVar[Mapping[str, Any]] = {
        "batch_norm_eps": 1e-4,
        "shortcut": "rectified",
        "generator_activation": "relu",
        "discriminator_activation": "relu",
    }

    def recognise(self, keys: set[str]) -> bool:
        return any(key.startswith("blocks.0.0.conv2d1.weight") for key in keys)

    def is_generator(self, keys: set[str]) -> bool:
        return any(key.startswith("linear0.") for key in keys)

    def check_supported(self, state: StateDict) -> None:
        if state.numbers(r"blocks\.\d+\.0\.bn(\d+)\..+") and "linear0.bias" not in state:
            raise UserError(f"{state.path} is a discriminator with batch norms (apply_d_sn: False), not a SAGAN's")
        if "shared.weight" in state or "shared.weight_orig" in state:
            raise UserError(
                f"{state.path} is a BigGAN (backbone big_resnet), not a SAGAN: its class embedding is shared"
            )

    def check_networks(self, path: Path, converted: Mapping[str, ConvertedNetwork]) -> None:
        """Refuse a generator that may be an unconditional BigGAN (big_resnet, g_cond_mtd: W/O).

        Its tables have the same names and map a part of the latent, as long as the first layer's, not one-hot labels.
        A discriminator with an embedding of this many classes shows that there are classes.
        """
        for role, network in converted.items():
            classes = network.fields["num_classes"]
            if role == "discriminator" or not classes or classes != network.fields["latent_dim"]:
                continue
            if "discriminator" not in converted or converted["discriminator"].fields["num_classes"] != classes:
                raise UserError(
                    f"{path} is probably an unconditional BigGAN (backbone big_resnet), which is not supported: its "
                    f"tables and its first layer both have {classes} inputs; if it is a SAGAN of {classes} classes "
                    f"with a latent of {classes}, pass its discriminator too (--discriminator)"
                )

    def class_batch_norm(self, state: StateDict, key: str) -> Layer:
        if f"{key}.weight" in state:  # g_cond_mtd: W/O
            return self.batch_norm(state, key)
        tables = {"scale": f"{key}.gain", "shift": f"{key}.bias"}
        statistics = torch_layers.running_statistics(state, f"{key}.bn")
        return statistics | torch_layers.class_tables(state, tables, transposed=True)

    def generator_stack(self, state: StateDict) -> list[tuple[Kind, str]]:
        return torch_layers.numbered_stack(state, "blocks.{}.0", r"(?:sigma|conv1x1_.+)")

    def generator_end(self, state: StateDict, blocks: int) -> tuple[str, str]:
        return "bn4", "conv2d5"

    def discriminator_end(self, blocks: int) -> str:
        return "linear1"
