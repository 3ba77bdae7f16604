"""Run one of the three measurements on a GPU machine (docs/gpu.md).

    python benchmarks/gpu/run.py check --out FOLDER                         # correctness, and waits for the device
    python benchmarks/gpu/run.py speed --out FOLDER --peers FOLDER          # speed, and where the time goes
    python benchmarks/gpu/run.py train --out FOLDER --images IMAGES.zip     # a training run of some minutes
    python benchmarks/gpu/run.py speed --out FOLDER --device cpu --toy      # a toy size, to see that it runs

A measurement ends within --seconds, and writes FOLDER/NAME.json, NAME.md and NAME.tar.gz. They are updated after every
part.
"""

import argparse
import shlex
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # benchmarks/: machine, peers, operations, and this package

import torch  # noqa: E402

from gpu import check, speed, train  # noqa: E402
from gpu.parts import Part, Report, run_all, run_one  # noqa: E402
from machine import argument_parser, describe  # noqa: E402

MEASUREMENTS: dict[str, tuple[str, list[Part], float]] = {  # by name: title, parts and time limit, s
    "check": ("Is it right on this machine?", check.PARTS, 230),
    "speed": ("How fast is it on this machine?", speed.PARTS, 260),
    "train": ("A training run of a few minutes", train.PARTS, 270),
}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("name", choices=MEASUREMENTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--toy", action="store_true", help="use a toy size, to see that everything runs")
    parser.add_argument("--seconds", type=float, help="time limit")
    parser.add_argument("--only", nargs="+", metavar="PART", help="parts by name; an unknown one lists them")
    parser.add_argument("--peers", type=Path, help="folder of checkouts to compare with (benchmarks/peers.py)")
    parser.add_argument("--images", type=Path, help="a .zip of images to train on; default: the built-in set")
    parser.add_argument("--volume", type=float, default=0, help="maximum MiB per file; a larger archive is split")
    for internal in ("--part", "--work", "--notes"):  # for the process of one part
        parser.add_argument(internal, help=argparse.SUPPRESS)
    parser.add_argument("--end", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    title, parts, seconds = MEASUREMENTS[options.name]
    options.seconds = options.seconds or seconds
    by_name = {part.name: part for part in parts}
    for name in options.only or ():
        if name not in by_name:
            parser.error(f"--only {name}: the parts are {', '.join(by_name)}")
    if options.part:
        sys.exit(run_one(by_name[options.part], options, describe))
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device found: pass --device cpu --toy to try the scripts without one")
    chosen = [p for p in parts if p.name in options.only] if options.only else [p for p in parts if not p.when_asked]
    shown = ["FOLDER" if Path(a).is_absolute() else a for a in sys.argv[1:]]
    command = shlex.join(["python", "benchmarks/gpu/run.py", *shown])
    report = Report(options.name, title, options.out, command, options.volume)
    sys.exit(not run_all(report, chosen, options.seconds, [sys.executable, *sys.argv]))


if __name__ == "__main__":
    main()
