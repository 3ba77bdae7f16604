"""mimicry's SAGANGenerator32/128 and SAGANDiscriminator32/128: netG_N_steps.pth and netD_N_steps.pth.

Feature maps grow by bilinear interpolation; ReLUs work in place, which the discriminator's shortcuts see; its blocks
after the first are as wide inside as their input. Class scales and shifts lie in one table side by side.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from sagan.errors import UserError
from sagan.importers import torch_layers
from sagan.importers.base import NON_LOCAL, Kind, Layer
from sagan.importers.state_dict import State

ATTENTION_AFTER = {  # blocks, by how many there are: of the generator, of the discriminator
    "generator": {3: 2, 5: 3},
    "discriminator": {4: 2, 6: 2},
}


class Mimicry(torch_layers.TorchCodebase):
    """github.com/kwotsin/mimicry."""

    name = "mimicry"
    generator_stem = "l1"
    generator_names: ClassVar[Mapping[str, str]] = {
        "norm1": "b1",
        "conv1": "c1",
        "norm2": "b2",
        "conv2": "c2",
        "shortcut": "c_sc",
    }
    discriminator_names = generator_names
    attention_names: ClassVar[Mapping[str, str]] = NON_LOCAL
    discriminator_embed = "l_y"
    assumed: ClassVar[Mapping[str, Any]] = {
        "batch_norm_eps": 1e-5,
        "spectral_norm_eps": 1e-12,
        "shortcut": "rectified",
        "discriminator_inner": "in",
        "upsampling": "bilinear",
        **torch_layers.STORED,
    }

    def recognise(self, keys: set[str]) -> bool:
        return any(key.startswith(("block2.c1.", "block1.c1.")) for key in keys)

    def is_generator(self, keys: set[str]) -> bool:
        return any(key.startswith("l1.") for key in keys)

    def refuse(self, state: State) -> None:
        if not any(key.startswith("attn_block.") for key in state.tensors):
            raise UserError(f"{state.path} has no attention layer (attn_block): it is another network of mimicry's")

    def class_norm(self, state: State, key: str) -> Layer:
        scale, shift = state.take(f"{key}.embed.weight").chunk(2, 1)
        return {"scale": scale, "shift": shift} | torch_layers.statistics(state, f"{key}.bn")

    def generator_stack(self, state: State) -> list[tuple[Kind, str]]:
        return _stack(state, "generator")

    def discriminator_stack(self, state: State) -> list[tuple[Kind, str]]:
        return _stack(state, "discriminator")

    def generator_end(self, state: State, blocks: int) -> tuple[str, str]:
        return f"b{blocks + 2}", f"c{blocks + 2}"

    def discriminator_end(self, blocks: int) -> str:
        return f"l{blocks + 1}"


def _stack(state: State, network: str) -> list[tuple[Kind, str]]:
    blocks = state.numbers(r"block(\d+)\..+")
    after = ATTENTION_AFTER[network].get(len(blocks))
    if after is None or blocks != list(range(blocks[0], blocks[0] + len(blocks))):
        raise UserError(f"{state.path} has {len(blocks)} blocks: not those of mimicry's SAGAN for 32 or 128 px")
    stack: list[tuple[Kind, str]] = [("block", f"block{i}") for i in blocks]
    stack.insert(after, ("attention", "attn_block"))
    return stack
