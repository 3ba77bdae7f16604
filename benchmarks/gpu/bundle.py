"""Pack what a GPU machine without a network lacks into gpu-bundle/, which travels with the checkout.

    python benchmarks/gpu/bundle.py --peers FOLDER_OF_CHECKOUTS
    python benchmarks/gpu/bundle.py --python 3.11 --have torch numpy pillow matplotlib --images my-images.zip

wheels/     every package that the tests and the benchmarks need, at the versions of constraints.txt, for Linux on
            x86-64, except those in --have, which the machine has, and robohash, whose images are drawn here.
peers/      the Python files of BigGAN-PyTorch and lightweight-gan, if FOLDER_OF_CHECKOUTS has them.
images.zip  images of the built-in set, drawn here and stored losslessly; or a copy of --images.

start.sh unpacks it there. The environment that runs this needs `pip install -e '.[dev]'`, and a network.
"""

import argparse
import io
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from sagan.data.builtin import robots

ROOT = Path(__file__).parents[2]
EXTRAS = ("metrics", "remote")
ROOTS = ("pytest", "pytest-xdist", "einops")  # added to what pyproject.toml names; einops for lightweight-gan
NEVER = ("robohash", "sagan-torch")  # its images are drawn here; the checkout itself
PEERS = ("BigGAN-PyTorch", "lightweight-gan")
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]


def requirements() -> list[Requirement]:
    """Return what a run, its evaluation and the tests of both require."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = (r for extra in EXTRAS for r in project["optional-dependencies"][extra])
    return [Requirement(r) for r in (*project["dependencies"], *extras, *ROOTS)]


def needed(have: list[str], python: str) -> list[str]:
    """Return the names of all packages that must travel: requirements, their requirements, and so on."""
    known = {canonicalize_name(name) for name in (*have, *NEVER)}
    names: list[str] = []
    waiting = requirements()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in known:
            continue
        known.add(name)
        names.append(name)
        environments = [
            {"python_version": python, "python_full_version": f"{python}.0", "extra": extra}
            for extra in ("", *requirement.extras)
        ]
        for further in map(Requirement, metadata.requires(name) or ()):
            if further.marker is None or any(map(further.marker.evaluate, environments)):
                waiting.append(further)
    return sorted(names)


def pins() -> dict[str, str]:
    """Return name==version by canonical name, from constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(line.partition("==")[0]): line for line in lines if re.match(r"\w", line)}


def download(names: list[str], python: str, folder: Path) -> None:
    """Download the wheels, each by its pin, without their requirements."""
    pinned = pins()
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    done = subprocess.run([*command, "--dest", folder, *(pinned[name] for name in names)])
    if done.returncode:
        raise SystemExit("bundle: pip could not download every wheel (see above)")


def copy_peers(checkouts: Path, folder: Path) -> list[str]:
    """Copy the Python files and licences of the codebases that exist; returns their names."""
    copied = []
    for name in PEERS:
        files = [p for p in (checkouts / name).rglob("*") if p.suffix == ".py" or p.name.startswith("LICENSE")]
        for path in files:
            target = folder / path.relative_to(checkouts)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        if files:
            copied.append(name)
    return copied


def draw(count: int, side: int, path: Path) -> None:
    """Write a .zip of `count` images of the built-in set, one folder per class, as lossless WebP."""
    images, labels = robots.render(count, side, 3, seed=0)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            data = io.BytesIO()
            Image.fromarray(image).save(data, "WEBP", lossless=True, quality=100, method=4)
            file.writestr(f"{robots.CLASS_NAMES[label]}/{i:05d}.webp", data.getvalue())


def size(paths: list[Path]) -> float:
    """Return the size of files and of everything in folders, MiB."""
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    return sum(file.stat().st_size for file in files if file.is_file()) / 2**20


def tracked() -> list[Path]:
    """Return the files of the checkout that git knows, including those not yet committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "gpu-bundle")
    parser.add_argument("--python", default="3.12", help="Python version of the other machine")
    parser.add_argument("--have", nargs="*", default=["torch", "numpy", "pillow"], help="packages of the other machine")
    parser.add_argument("--peers", type=Path, help="folder of checkouts")
    parser.add_argument("--images", type=Path, help="a .zip to train on, instead of drawing one")
    parser.add_argument("--count", type=int, default=3500, help="images to draw")
    parser.add_argument("--side", type=int, default=64, help="side of an image, in pixels")
    parser.add_argument("--limit", type=float, default=64, help="MiB of the bundle and the checkout")
    options = parser.parse_args()
    if options.peers and not options.peers.is_dir():
        parser.error(f"--peers {options.peers}: no such folder")
    shutil.rmtree(options.out, ignore_errors=True)
    wheels, peers, images = (options.out / name for name in ("wheels", "peers", "images.zip"))
    wheels.mkdir(parents=True)
    names = needed(options.have, options.python)
    download(names, options.python, wheels)
    print(f"{len(names)} wheels for Python {options.python}: {size([wheels]):.1f} MiB ({', '.join(names)})")
    copied = copy_peers(options.peers, peers) if options.peers else []
    print(f"other codebases: {', '.join(copied) or 'none'}: {size([peers] if copied else []):.1f} MiB")
    if options.images:
        shutil.copyfile(options.images, images)
    else:
        draw(options.count, options.side, images)
    print(f"images: {size([images]):.1f} MiB")
    total = size([options.out]) + size(tracked())
    print(f"{options.out}: {size([options.out]):.1f} MiB, with the checkout's files {total:.1f} MiB")
    if total > options.limit:
        raise SystemExit(f"bundle: {total:.1f} MiB is more than --limit {options.limit:g}: pass a smaller --count")


if __name__ == "__main__":
    main()
