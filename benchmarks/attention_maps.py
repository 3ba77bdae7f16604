"""What do five query points cost, against the whole map? And how exact are their maps?

    python benchmarks/attention_maps.py

Cost: one picture, a feature map of 128 x 128 and 64 channels, all 16,384 keys ('full'; 'paper' differs in its values
only, which maps do not need); each case in a process of its own, on one thread of the CPU. Memory is what the process
needed at its peak beyond what it held before, the feature map included; time is the fastest of several calls. The rows
of 'every row' are the 16,384 x 16,384 map.

Exactness: five points on 64 x 64, against the full softmax of the same layer in float64 by equation 1 in its plain
form (tests/reference.py), queries scaled so that maps are sharp.
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
from sagan import SelfAttention2d
from sagan.model.config import Variant

SIZE, CHANNELS = 128, 64
POINTS = torch.tensor([[0, 5000, 8256, 12345, SIZE**2 - 1]])
CASES = {"five points": (POINTS, 50), "every row": (torch.arange(SIZE**2)[None], 5)}  # locations, calls


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.no_grad()
def cost(case: str) -> dict[str, float]:
    """Milliseconds a call, and MiB at the peak, measured in this process."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    locations, calls = CASES[case]
    layer = SelfAttention2d(CHANNELS, "full").eval()
    layer.attention_rows(torch.randn(1, CHANNELS, 8, 8), torch.tensor([[3]]))  # loads what the first call loads
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
    """Largest difference of the maps from the full softmax and of their sums from 1; the largest weight."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, help="measure one case here, and print JSON")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(cost(arguments.case)))
        return

    print(f"{'128 x 128, all keys, C = 64, fp32':36}{'time':>12}{'peak memory':>16}")
    for case in CASES:
        command = [sys.executable, __file__, "--case", case]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{case:36}{found['ms']:>9.1f} ms{found['mib']:>12.1f} MiB")
    print(f"\n{'64 x 64, against float64':36}{'difference':>12}{'sums from 1':>16}{'largest weight':>18}")
    for variant in ("released", "paper", "full"):
        for dtype in (torch.float32, torch.float64):
            name = f"{variant}, {str(dtype).removeprefix('torch.')}"
            difference, of_sums, largest = differences(variant, dtype)
            print(f"{name:36}{difference:>12.1e}{of_sums:>16.1e}{largest:>18.3f}")


if __name__ == "__main__":
    main()
