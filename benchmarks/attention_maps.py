"""Measure the cost of the maps of five query points against the full map, and their accuracy.

    python benchmarks/attention_maps.py [--save attention_maps]

Cost: one image, a feature map of 128 x 128 with 64 channels, all 16,384 keys ('full'; 'paper' differs only in its
values, which maps do not need). Each case runs in its own process, on one CPU thread. Memory is the peak above what the
process held before, including the feature map; time is the fastest of several calls. 'every row' is the 16,384 x
16,384 map.

Accuracy: five points on 64 x 64, against the full softmax of the same layer in float64 by equation 1 in its plain form
(tests/reference.py), with queries scaled so that maps are sharp.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import reference
from machine import Table, argument_parser
from sagan import SelfAttention2d
from sagan.model.config import Variant

SIZE, CHANNELS = 128, 64
POINTS = torch.tensor([[0, 5000, 8256, 12345, SIZE**2 - 1]])
CASES = {"five points": (POINTS, 50), "every row": (torch.arange(SIZE**2)[None], 5)}  # locations, calls


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.no_grad()
def cost(case: str) -> dict[str, float]:
    """Return the milliseconds per call and the peak memory in MiB, measured in this process."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    locations, calls = CASES[case]
    layer = SelfAttention2d(CHANNELS, "full").eval()
    layer.attention_rows(torch.randn(1, CHANNELS, 8, 8), torch.tensor([[3]]))  # the first call loads libraries
    before = peak_mib()
    x = torch.randn(1, CHANNELS, SIZE, SIZE)
    layer.attention_rows(x, locations)
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        layer.attention_rows(x, locations)
        times.append(time.perf_counter() - start)
    return {"ms": 1000 * min(times), "mib": peak_mib() - before}


@torch.no_grad()
def differences(variant: Variant, dtype: torch.dtype) -> tuple[float, float, float]:
    """Return the largest difference of the maps from the full softmax and of their sums from 1; the largest weight."""
    torch.manual_seed(0)
    size = 64
    layer = SelfAttention2d(CHANNELS, variant, spectral_norm=False)
    x = torch.randn(1, CHANNELS, size, size)
    q, k, _ = layer.project(x)
    layer.query.weight *= 3 / (q @ k.transpose(1, 2)).std()
    locations = torch.tensor([[0, 700, 2080, 3333, size**2 - 1]])
    plain = [getattr(layer, name).weight.flatten(1).double() for name in ("query", "key", "value", "output")]
    beta: Tensor = reference.attention(x.double(), *plain, layer.gamma.double(), layer.pooled)[1]
    maps = layer.to(dtype).attention_rows(x.to(dtype), locations).double()
    wanted = beta[:, locations[0]]
    return (
        (maps.flatten(2) - wanted).abs().max().item(),
        (maps.sum((2, 3)) - 1).abs().max().item(),
        wanted.max().item(),
    )


def main() -> None:
    parser = argument_parser(__doc__, save=True)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(cost(options.case)))
        return

    columns = ("maps", "time, ms", "peak memory, MiB")
    table = Table("The cost of maps, 128 x 128, all keys, C = 64, fp32", columns, save=options.save)
    for case in CASES:
        command = [sys.executable, __file__, "--case", case]
        values = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        table.row(case, f"{values['ms']:.1f}", f"{values['mib']:.1f}")
    columns = ("variant", "precision", "difference", "sums from 1", "largest weight")
    save = options.save and f"{options.save}_accuracy"
    table = Table("The accuracy of maps, 64 x 64, against float64", columns, save=save)
    for variant in ("released", "paper", "full"):
        for dtype in (torch.float32, torch.float64):
            difference, of_sums, largest = differences(variant, dtype)
            precision = str(dtype).removeprefix("torch.")
            table.row(variant, precision, f"{difference:.1e}", f"{of_sums:.1e}", f"{largest:.3f}")


if __name__ == "__main__":
    main()
