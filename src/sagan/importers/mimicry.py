"""Import mimicry's SAGANGenerator32/128 and SAGANDiscriminator32/128: netG_N_steps.pth and netD_N_steps.pth.

Upsampling is bilinear. ReLUs work in place, so the discriminator's shortcuts receive rectified input; its blocks after
the first are as wide inside as their input. One table holds class scales and shifts side by side.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from sagan.errors import UserError
from sagan.importers import torch_layers
from sagan.importers.base import NON_LOCAL_NAMES, Kind, Layer
from sagan.importers.state_dict import StateDict

ATTENTION_AFTER = {  # number of blocks in the network: number of blocks before the attention layer
    "generator": {3: 2, 5: 3},
    "discriminator": {4: 2, 6: 2},
}


class Mimicry(torch_layers.TorchCodebase):
    """github.com/kwotsin/mimicry."""

    name = "mimicry"
    generator_stem = "l1"
    generator_names: ClassVar[Mapping[str, str]] = {
        "bn1": "b1",
        "conv1": "c1",
        "bn2": "b2",
        "conv2": "c2",
        "shortcut": "c_sc",
    }
    discriminator_names = generator_names
    attention_names: ClassVar[Mapping[str, str]] = NON_LOCAL_NAMES
    discriminator_embed = "l_y"
    assumed_fields: ClassVar[Mapping[str, Any]] = {
        "batch_norm_eps": 1e-5,
        "shortcut": "rectified",
        "discriminator_inner": "in",
        "upsampling": "bilinear",
    }

    def recognise(self, keys: set[str]) -> bool:
        return any(key.startswith(("block2.c1.", "block1.c1.")) for key in keys)

    def is_generator(self, keys: set[str]) -> bool:
        return any(key.startswith("l1.") for key in keys)

    def check_supported(self, state: StateDict) -> None:
        if not state.has_keys_below("attn_block."):
            raise UserError(f"{state.path} has no attention layer (attn_block): it is not mimicry's SAGAN")

    def class_batch_norm(self, state: StateDict, key: str) -> Layer:
        table = state.take(f"{key}.embed.weight", 2)
        if table.shape[1] % 2:
            raise UserError(
                f"{state.path} is not a supported SAGAN: {key}.embed.weight has the shape {tuple(table.shape)}, "
                "expected scales and shifts of equal width"
            )
        scale, shift = table.chunk(2, 1)
        return {"scale": scale, "shift": shift} | torch_layers.running_statistics(state, f"{key}.bn")

    def generator_stack(self, state: StateDict) -> list[tuple[Kind, str]]:
        return _stack(state, "generator")

    def discriminator_stack(self, state: StateDict) -> list[tuple[Kind, str]]:
        return _stack(state, "discriminator")

    def generator_end(self, state: StateDict, blocks: int) -> tuple[str, str]:
        return f"b{blocks + 2}", f"c{blocks + 2}"

    def discriminator_end(self, blocks: int) -> str:
        return f"l{blocks + 1}"


def _stack(state: StateDict, network: str) -> list[tuple[Kind, str]]:
    blocks = state.numbers(r"block(\d+)\..+")
    after = ATTENTION_AFTER[network].get(len(blocks))
    if after is None or blocks != list(range(blocks[0], blocks[0] + len(blocks))):
        raise UserError(f"{state.path} has {len(blocks)} blocks, unlike mimicry's SAGAN for 32 or 128 px")
    stack: list[tuple[Kind, str]] = [("block", f"block{i}") for i in blocks]
    stack.insert(after, ("attention", "attn_block"))
    return stack
