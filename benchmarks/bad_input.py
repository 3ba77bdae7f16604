"""Run the command line on bad input, and print its messages and exit status.

    python benchmarks/bad_input.py

The last three cases need root and are skipped without it: their disks are small tmpfs, mounted by this script.
"""

import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from machine import argument_parser
from pages import serve_page
from sagan.files import load_tensors, save_tensors
from sagan.run import lock_for_training

TINY = (
    "--resolution 32 --base-channels 4 --batch-size 4 --steps 6 --checkpoint-every 3 --evaluate-every 0 --device cpu"
).split()


def show(what: str, *arguments: object, prefix: tuple[str, ...] = ()) -> None:
    """Run a command of sagan, and print its errors and the notes among its output."""
    command = [*prefix, sys.executable, "-m", "sagan", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    lines = [line for line in done.stderr.splitlines() if line.strip() and "images/s" not in line]
    show_command(what, arguments, done.returncode)
    for line in lines:
        print("  " + line.split("\r")[-1])
    for line in done.stdout.splitlines():
        if line.startswith("note: ") or "more than the limit" in line:
            print("  " + line)


def show_command(what: str, arguments: Sequence[object], status: int) -> None:
    print(f"\n{what}\n  $ sagan {' '.join(map(str, arguments[:4]))} ...   exit status {status}")


def write_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(abs(hash(path.name)) % 2**32).integers(256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def huge_png(side: int) -> bytes:
    """Return a PNG whose header claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def show_evaluations(folder: Path) -> None:
    """Show the messages of `sagan evaluate`, for the run that exists by now."""
    run, images, device = folder / "run", folder / "images", ("--device", "cpu")
    os.environ["https_proxy"] = "http://localhost:1"  # no network, wherever this script runs
    show("Evaluation with Inception, offline, without its weights in the cache",
         "evaluate", run, "--features", "inception", *device)  # fmt: skip
    del os.environ["https_proxy"]
    show("Evaluation of a folder alone", "evaluate", images, *device)
    write_image(folder / "one" / "0.png")
    show("Evaluation of too few images", "evaluate", folder / "one", images, *device)
    for i in range(8):
        Image.open(write_image(folder / "grey" / f"{i}.png")).convert("L").save(folder / "grey" / f"{i}.png")
    show("Evaluation of grey images against coloured ones", "evaluate", folder / "grey", images, *device)
    nan = np.full((64, 64), np.nan, np.float32)
    (folder / "nan").mkdir()
    Image.fromarray(nan, mode="F").save(folder / "nan" / "nan.tif")
    show("Evaluation of images that are not numbers", "evaluate", folder / "nan", images, *device)
    tensors, metadata = load_tensors(run / "generator.safetensors")
    tensors["head.bias"].fill_(float("nan"))
    save_tensors(folder / "diverged.safetensors", tensors, metadata)
    show("Evaluation of a generator that diverged", "evaluate", folder / "diverged.safetensors", images, *device)


def show_hostile_files(folder: Path) -> None:
    """Show what happens to files that are made to do harm."""
    marker = folder / "harmed"

    class Evil:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {marker}",)

    torch.save({"state_dict": Evil()}, folder / "evil.pth")
    show("A pickle that would run a command", "import", folder / "evil.pth", "--out", folder / "evil")
    (folder / "evil.safetensors").write_bytes((folder / "evil.pth").read_bytes())
    show("The same under another name", "sample", folder / "evil.safetensors")
    np.savez(folder / "evil.npz", weights=np.array([Evil()], object))
    show("The same in an archive of arrays", "import", folder / "evil.npz", "--out", folder / "evil")
    bomb = zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED)
    with bomb as archive, archive.open("w.npy", "w", force_zip64=True) as file:
        for _ in range(5 * 2**10):
            file.write(bytes(2**20))
    show("5 MB of .npz that unpack to 5 GiB", "import", folder / "bomb.npz", "--out", folder / "evil")

    good = write_image(folder / "0.png").read_bytes()
    with zipfile.ZipFile(folder / "evil.zip", "w") as archive:
        for name in ("cats/0.png", "../../harmed"):
            archive.writestr(name, good)
    show("A .zip with a member ../../harmed", "data", folder / "evil.zip", "--out", folder / "sheet.png")
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", good)
        with archive.open("1.png", "w") as file:
            for _ in range(600):
                file.write(bytes(2**20))
    show("A .zip of 600 KB that unpacks to 600 MB", "data", folder / "bomb.zip", "--out", folder / "sheet.png")
    with tarfile.open(folder / "evil.tar", "w") as tar:
        link = tarfile.TarInfo("cats/0.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    show("A .tar with a link to /etc/passwd", "data", folder / "evil.tar", "--out", folder / "sheet.png")
    (folder / "claims").mkdir()
    (folder / "claims" / "claims.png").write_bytes(huge_png(50_000))
    show("A image that claims 50,000 x 50,000 pixels", "data", folder / "claims", "--out", folder / "sheet.png")
    print(f"  the same on the page: {upload(folder / 'run', huge_png(50_000))}")
    print(f"  harm done: {'yes' if marker.exists() or (folder.parent / 'harmed').exists() else 'none'}")

    shutil.copytree(folder / "run", folder / "vast")
    with open(folder / "vast" / "config.json", "r+b") as file:
        file.truncate(2**30)
    show("A configuration of 1 GiB", "sample", folder / "vast")
    text = (folder / "run" / "config.json").read_text()
    (folder / "vast" / "config.json").write_text(text.replace('"base_channels": 4', '"base_channels": 400000000'))
    checkpoint = max((folder / "vast" / "checkpoints").iterdir())
    show("A configuration that asks for 400,000,000 channels", "sample", checkpoint)


def upload(run: Path, data: bytes) -> str:
    """Return the answer of a run's page to an uploaded image."""
    with serve_page(run, "--device", "cpu") as (_, address):
        request = urllib.request.Request(f"{address}/api/upload", data, {"Content-Type": "application/octet-stream"})
        try:
            return urllib.request.urlopen(request).read().decode()
        except urllib.error.HTTPError as error:
            return f"{error.code} {error.read().decode()}"


def show_faults(folder: Path, data: tuple) -> None:
    """Show the messages of training when something goes wrong."""
    rates = ("--generator-lr", "1e30", "--discriminator-lr", "1e30", "--discriminator-spectral-norm", "False")
    show("Learning rates of 1e30", "train", *data, *rates, "--out", folder / "nan")
    with lock_for_training(folder / "busy"):
        show("A folder that another process trains in", "train", *data, "--out", folder / "busy")
    show_during_training(
        "The run's folder moved away", folder / "gone", data, lambda run: run.rename(folder / "elsewhere")
    )
    show("A run to resume", "train", *data, "--out", folder / "changed")
    cats = folder / "images" / "cats"
    (cats / "1.png").unlink()
    write_image(cats / "new.png")
    (cats / "2.png").write_bytes((cats / "3.png").read_bytes())
    show("Images changed before it is resumed", "train", "--resume", folder / "changed", "--device", "cpu")


def show_during_training(what: str, run: Path, data: tuple, act: Callable[[Path], object]) -> None:
    """Start a long run, call `act` on its folder after the first checkpoint, and show the last message."""
    arguments = ["train", *map(str, data), "--steps", "100000", "--out", str(run)]
    with subprocess.Popen([sys.executable, "-m", "sagan", *arguments], stderr=subprocess.PIPE, text=True) as process:
        while not list(run.glob("checkpoints/step-*")):
            time.sleep(0.05)
        act(run)
        _, errors = process.communicate(timeout=300)
    show_command(what, arguments, process.returncode)
    print("  " + errors.splitlines()[-1].split("\r")[-1])


def main() -> None:
    argument_parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SAGAN_CACHE"] = str(folder / "cache")
        (folder / "empty").mkdir()
        show("An empty folder", "train", "--data", folder / "empty")

        for i in range(8):
            write_image(folder / "images" / "cats" / f"{i}.png")
        (folder / "images" / "dogs").mkdir()
        cats = folder / "images" / "cats"
        (cats / "text.jpg").write_text("This is not an image.")
        intact = write_image(cats / "intact.jpg").read_bytes()
        (cats / "truncated.jpg").write_bytes(intact[: len(intact) // 2])
        (cats / "huge.png").write_bytes(huge_png(30_000))
        show(
            "A class folder that is empty; a text file named .jpg; a truncated JPEG; a 30,000 x 30,000 PNG",
            "train", "--data", folder / "images", *TINY, "--out", folder / "run",
        )  # fmt: skip
        (folder / "bad").mkdir()
        (folder / "bad" / "text.jpg").write_text("This is not an image.")
        show("Nothing but a text file named .jpg", "train", "--data", folder / "bad")

        show_evaluations(folder)

        show_hostile_files(folder)

        checkpoints = sorted((folder / "run" / "checkpoints").iterdir())
        checkpoints[-1].write_bytes(checkpoints[-1].read_bytes()[:5000])
        show("The newest checkpoint truncated", "train", "--resume", folder / "run", "--device", "cpu")
        for path in checkpoints:
            path.write_bytes(b"not a checkpoint")
        show("Every checkpoint corrupt", "train", "--resume", folder / "run", "--device", "cpu")
        (folder / "run" / "generator.safetensors").write_bytes(b"not weights")
        show("Corrupt inference weights", "sample", folder / "run")

        show("A preset misspelt", "train", "--preset", "smal")
        show("An unknown option", "train", "--learning-rate", "1e-4")
        show("A value out of range", "train", "--resolution", "100")

        data = ("--data", folder / "images", *TINY)
        show_faults(folder, data)
        if os.geteuid() == 0:
            disk = folder / "disk"
            disk.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=True)
            try:
                show(
                    "A disk that fills up while saving", "train", *data, "--base-channels", "16", "--out", disk / "run"
                )
                left = [str(p.relative_to(disk)) for p in disk.rglob("*") if p.is_file()]
                print(f"  left on it: {', '.join(sorted(left))}")
            finally:
                subprocess.run(["umount", disk], check=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=99m", "tmpfs", disk], check=True)
            show_during_training(
                "A disk that is unmounted",
                disk / "run",
                data,
                lambda run: subprocess.run(["umount", "--lazy", disk], check=True),
            )
            print(f"  left where it was: {sorted(path.name for path in disk.iterdir()) or 'nothing'}")
            locked = folder / "locked"
            locked.mkdir()
            os.chown(locked, 65534, 65534)
            as_others = ("setpriv", "--bounding-set=-dac_override")  # root that obeys permissions
            show("No write permission", "train", *data, "--out", locked / "run", prefix=as_others)
        else:
            print("\nThe full disk, the unmounted one and the missing permission were skipped: they need root.")


if __name__ == "__main__":
    main()
