"""What the command line prints for bad input: runs each case for real and shows the line and the exit status.

    python benchmarks/bad_input.py

The last two cases need root and are left out without it: the full disk is a small tmpfs, mounted for the purpose.
"""

import os
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from sagan.files import load_tensors, save_tensors

TINY = (
    "--resolution 32 --base-channels 4 --batch-size 4 --steps 6 --checkpoint-every 3 --evaluate-every 0 --device cpu"
).split()


def show(what: str, *arguments: object, prefix: tuple[str, ...] = ()) -> None:
    command = [*prefix, sys.executable, "-m", "sagan", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    lines = [line for line in done.stderr.splitlines() if line.strip() and "images/s" not in line]
    print(f"\n{what}\n  $ sagan {' '.join(map(str, arguments[:4]))} ...   exit status {done.returncode}")
    for line in lines:
        print("  " + line.split("\r")[-1])
    for line in done.stdout.splitlines():
        if line.startswith("note: "):
            print("  " + line)


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(abs(hash(path.name)) % 2**32).integers(256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def huge_png(side: int) -> bytes:
    """A PNG whose header claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def show_evaluations(folder: Path) -> None:
    """What `sagan evaluate` says; the run is there already."""
    run, pictures, device = folder / "run", folder / "pictures", ("--device", "cpu")
    os.environ["https_proxy"] = "http://localhost:1"  # no network, wherever this runs
    show("Evaluation with Inception, offline, its weights not in the cache",
         "evaluate", run, "--features", "inception", *device)  # fmt: skip
    del os.environ["https_proxy"]
    show("Evaluation of a folder alone", "evaluate", pictures, *device)
    picture(folder / "one" / "0.png")
    show("Evaluation of too few pictures", "evaluate", folder / "one", pictures, *device)
    for i in range(8):
        Image.open(picture(folder / "grey" / f"{i}.png")).convert("L").save(folder / "grey" / f"{i}.png")
    show("Evaluation of grey pictures against coloured ones", "evaluate", folder / "grey", pictures, *device)
    nan = np.full((64, 64), np.nan, np.float32)
    (folder / "nan").mkdir()
    Image.fromarray(nan, mode="F").save(folder / "nan" / "nan.tif")
    show("Evaluation of pictures that are not numbers", "evaluate", folder / "nan", pictures, *device)
    tensors, metadata = load_tensors(run / "generator.safetensors")
    tensors["head.bias"].fill_(float("nan"))
    save_tensors(folder / "came-apart.safetensors", tensors, metadata)
    show("Evaluation of a generator that came apart", "evaluate", folder / "came-apart.safetensors", pictures, *device)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SAGAN_CACHE"] = str(folder / "cache")
        (folder / "empty").mkdir()
        show("An empty folder", "train", "--data", folder / "empty")

        for i in range(8):
            picture(folder / "pictures" / "cats" / f"{i}.png")
        (folder / "pictures" / "dogs").mkdir()
        cats = folder / "pictures" / "cats"
        (cats / "text.jpg").write_text("This is no picture.")
        whole = picture(cats / "whole.jpg").read_bytes()
        (cats / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
        (cats / "huge.png").write_bytes(huge_png(30_000))
        show(
            "A class folder that is empty; a text file named .jpg; a truncated JPEG; a 30,000 x 30,000 PNG",
            "train", "--data", folder / "pictures", *TINY, "--out", folder / "run",
        )  # fmt: skip
        (folder / "bad").mkdir()
        (folder / "bad" / "text.jpg").write_text("This is no picture.")
        show("Nothing but a text file named .jpg", "train", "--data", folder / "bad")

        show_evaluations(folder)

        checkpoints = sorted((folder / "run" / "checkpoints").iterdir())
        checkpoints[-1].write_bytes(checkpoints[-1].read_bytes()[:5000])
        show("The newest checkpoint cut off", "train", "--resume", folder / "run", "--device", "cpu")
        for path in checkpoints:
            path.write_bytes(b"not a checkpoint")
        show("Every checkpoint corrupt", "train", "--resume", folder / "run", "--device", "cpu")
        (folder / "run" / "generator.safetensors").write_bytes(b"not weights")
        show("Corrupt inference weights", "sample", folder / "run")

        show("A preset misspelt", "train", "--preset", "smal")
        show("An unknown option", "train", "--learning-rate", "1e-4")
        show("A value out of range", "train", "--resolution", "100")

        if os.geteuid() == 0:
            disk = folder / "disk"
            disk.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=True)
            try:
                data = ("--data", folder / "pictures", *TINY)
                show(
                    "A disk that fills up while saving", "train", *data, "--base-channels", "16", "--out", disk / "run"
                )
                left = [str(p.relative_to(disk)) for p in disk.rglob("*") if p.is_file()]
                print(f"  left on it: {', '.join(sorted(left))}")
            finally:
                subprocess.run(["umount", disk], check=True)
            locked = folder / "locked"
            locked.mkdir()
            os.chown(locked, 65534, 65534)
            as_others = ("setpriv", "--bounding-set=-dac_override")  # root that obeys permissions
            show("No write permission", "train", *data, "--out", locked / "run", prefix=as_others)
        else:
            print("\nThe full disk and the missing permission were left out: they need root.")


if __name__ == "__main__":
    main()
