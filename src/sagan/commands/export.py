"""The command `sagan export`."""

from dataclasses import dataclass
from typing import Literal

from sagan.commands.arguments import DeviceOption, RunArgument
from sagan.config import FileOption, FloatOption, IntOption, check_ranges


@dataclass(frozen=True)
class Export:
    """Export the generator as ONNX, torch.export or plain safetensors, checked against the run.

    A graph is written and run on the CPU; --device is where the run's own images are drawn for the check.
    """

    run: RunArgument
    """Folder of the run, its generator.safetensors, or a name that sagan list shows."""
    to: Literal["onnx", "safetensors", "torch-export"] = "onnx"
    """onnx, torch-export (.pt2; needs PyTorch but not sagan) or safetensors (plain weights, for sagan.load)."""
    out: FileOption = None
    """File to write; default: generator.onnx, generator.pt2 or generator-plain.safetensors in the run, with other
    options in its name if there are any."""
    truncation: FloatOption = None
    """Build truncation of the latents to this magnitude into the graph, as in sagan sample --truncation."""
    uint8: bool = False
    """Let the graph return uint8 images in [0, 255], as torch-fidelity expects, instead of floats in [-1, 1]."""
    opset: IntOption = None
    """Version of ONNX's operators; default: 18."""
    device: DeviceOption = "auto"

    def __post_init__(self) -> None:
        check_ranges(self, positive=("truncation",))
        if self.to == "safetensors" and (self.truncation is not None or self.uint8):
            raise ValueError("truncation and uint8 require onnx or torch-export: a safetensors file holds only weights")
        if self.to != "onnx" and self.opset is not None:
            raise ValueError(f"opset requires onnx: {self.to} has no opset")


def export(options: Export) -> None:
    """Run `sagan export`."""
    from sagan.device import choose_device, enough_memory
    from sagan.exporters.export import export

    device = choose_device(options.device)
    with enough_memory("try --device cpu"):
        exported = export(
            options.run,
            options.to,
            options.out,
            truncation=options.truncation,
            uint8=options.uint8,
            opset=options.opset,
            device=device,
        )
    print(exported)
