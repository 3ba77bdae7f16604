"""Run one of the three measurements on a GPU machine (docs/gpu.md).

    python benchmarks/gpu/run.py check --out FOLDER                         is it right here, and does anything wait?
    python benchmarks/gpu/run.py speed --out FOLDER --peers FOLDER          how fast is it, and where does time go?
    python benchmarks/gpu/run.py train --out FOLDER --images IMAGES.zip     what does it train to in these minutes?
    python benchmarks/gpu/run.py speed --out FOLDER --device cpu --toy      does all of this run? At a toy size

It ends of itself before --seconds are over, and leaves FOLDER/NAME.json, NAME.md and NAME.tar.gz; after every part of
it they say what was found so far.
"""

import argparse
import shlex
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # benchmarks/: machine, peers, operations, and this package

import torch  # noqa: E402

from gpu import check, speed, train  # noqa: E402
from gpu.parts import Part, Report, run_all, run_one  # noqa: E402
from machine import describe  # noqa: E402

MEASUREMENTS: dict[str, tuple[str, list[Part], float]] = {  # by name: the title, the parts, and seconds in all
    "check": ("Is it right on this machine?", check.PARTS, 150),
    "speed": ("How fast is it on this machine?", speed.PARTS, 240),
    "train": ("A training run of a few minutes", train.PARTS, 270),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=MEASUREMENTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--toy", action="store_true", help="as little as shows that it works")
    parser.add_argument("--seconds", type=float, help="the most it may take in all")
    parser.add_argument("--only", nargs="+", metavar="PART", help="parts by name; an unknown one lists them")
    parser.add_argument("--peers", type=Path, help="folder of checkouts to compare with (benchmarks/peers.py)")
    parser.add_argument("--images", type=Path, help="a .zip of images to train on; without, the built-in set")
    parser.add_argument("--volume", type=float, default=0, help="MiB of a file at most: a larger archive is cut")
    for internal in ("--part", "--work", "--notes"):  # of the process of one part
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
        parser.error("no CUDA device here: --device cpu --toy shows that it works")
    chosen = [p for p in parts if p.name in options.only] if options.only else [p for p in parts if not p.when_asked]
    shown = ["FOLDER" if Path(a).is_absolute() else a for a in sys.argv[1:]]
    command = shlex.join(["python", "benchmarks/gpu/run.py", *shown])
    report = Report(options.name, title, options.out, command, options.volume)
    sys.exit(not run_all(report, chosen, options.seconds, [sys.executable, *sys.argv]))


if __name__ == "__main__":
    main()
