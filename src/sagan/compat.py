"""Private APIs of libraries, each called in one place and with the version that it was seen in."""

import torch


def cpu_multiplies_bf16_matrices() -> bool:
    """Return whether the CPU has matrix units for bf16 (Intel's AMX).

    `torch.cpu._is_amx_tile_supported`: PyTorch 2.11 to 2.13. Without it, the answer is no.
    """
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return supported is not None and bool(supported())
