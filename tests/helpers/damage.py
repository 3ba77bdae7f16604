"""Files as a broken disk, a broken network or an enemy leaves them: seeded, so that every one can be made again."""

import json
import struct
import zipfile
import zlib
from io import BytesIO

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
WRITTEN = (("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("WEBP", "RGB"),
           ("GIF", "P"), ("BMP", "RGB"), ("TIFF", "RGB"), ("TIFF", "I;16"))  # fmt: skip
SUFFIXES = (".png", ".jpg", ".webp", ".gif", ".bmp", ".tif")
HOSTILE = (None, True, -1, 0, 2**31, 2**63, 10**30, -(10**400), 1e308, float("nan"), float("inf"), "", "x" * 5000,
           "../../etc/passwd", "\x00\x1b[2J", [], [[]] * 300, {}, {"__reduce__": "os.system"})  # fmt: skip


def make_image(rng, kind="PNG", mode="RGB"):
    """The bytes of a whole image of random size and content."""
    width, height = rng.integers(8, 60, 2)
    pixels = rng.integers(256, size=(height, width, 4), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("RGB").convert(mode) if mode != "I;16" else (
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257))  # fmt: skip
    image = Image.fromarray(pixels) if mode == "RGBA" else image
    file = BytesIO()
    image.save(file, format=kind)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(width, height, *, mode=2, interlaced=0, data=bytes(1000)):
    """A PNG whose header claims width x height pixels, whatever its data hold."""
    header = struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, interlaced)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def hostile_image(rng):
    """An image whose header lies."""
    size = [int(n) for n in rng.choice([0, 1, 7, 5000, 9_999, 50_000, 2**31 - 1], 2)]
    which = rng.integers(7)
    if which < 2:
        return huge_png(*size, mode=int(rng.choice([0, 2, 3, 4, 6])), interlaced=int(rng.integers(2)))
    if which == 2:  # text that unpacks to 64 MB
        text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(64_000_000)))
        whole = make_image(rng)
        return whole[:33] + text + whole[33:]
    if which == 3:  # a colour profile that unpacks to 64 MB
        profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(64_000_000)))
        whole = make_image(rng)
        return whole[:33] + profile + whole[33:]
    if which == 4:
        return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 1000, 0, 0, 54, 40, size[0] % 2**31, -(size[1] % 2**31), 1, 24,
                                   0, 0, 0, 0, 0, 0) + bytes(900)  # fmt: skip
    if which == 5:
        return b"GIF89a" + struct.pack("<HHBBB", size[0] % 65536, size[1] % 65536, 0xF7, 0, 0) + rng.bytes(900)
    # A TIFF whose directory names itself as the next one, and strips far away.
    entries = [(256, 4, 1, size[0] % 2**32), (257, 4, 1, size[1] % 2**32), (258, 3, 1, 8), (259, 3, 1, 1),
               (262, 3, 1, 2), (273, 4, 1, 2**31), (277, 3, 1, 3), (279, 4, 1, 2**32 - 1)]  # fmt: skip
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", 8)


def damaged(rng, data):
    """Bytes with a few bits flipped, cut off, a part repeated, zeroed or replaced."""
    data = bytearray(data)
    which, at = rng.integers(6), int(rng.integers(max(1, len(data))))
    length = int(rng.integers(1, 64))
    if which <= 1:
        head = 64 if which else len(data)  # the header decides more than the rest
        for place in rng.integers(min(head, len(data)), size=int(rng.integers(1, 9))):
            data[place] ^= 1 << int(rng.integers(8))
    elif which == 2:
        del data[at:]
    elif which == 3:
        data[at:at] = data[at : at + length] * int(rng.integers(1, 20))
    elif which == 4:
        data[at : at + length] = bytes(length)
    else:
        data[at : at + length] = rng.bytes(length)
    return bytes(data)


def damaged_images(count, seed=0):
    """Name and bytes of `count` damaged images, one in ten with another format's ending."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        kind, mode = WRITTEN[number % len(WRITTEN)]
        ending = {"JPEG": ".jpg", "TIFF": ".tif"}.get(kind, f".{kind.lower()}")
        if number % 10 == 3:
            ending = str(rng.choice(SUFFIXES))
        data = hostile_image(rng) if number % 5 == 4 else damaged(rng, make_image(rng, kind, mode))
        yield f"{number:04d}{ending}", data


def hostile_json(rng, text):
    """JSON in which one or two values, wherever they stand, are something else."""
    content = json.loads(text)
    for _ in range(int(rng.integers(1, 3))):
        place = content
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = keys[int(rng.integers(len(keys)))]
            if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.9:
                place = place[key]
                continue
            if isinstance(place, dict) and rng.random() < 0.2:
                del place[key]
            else:
                place[key] = HOSTILE[int(rng.integers(len(HOSTILE)))]
            break
    return json.dumps(content).encode()


def plain_zip(rng):
    """An archive of two class folders, nothing wrong with it."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("a/0.png", "b/1.png"):
            archive.writestr(name, make_image(rng))
    return file.getvalue()


def hostile_zip(rng, names=("a/0.png", "b/1.png")):
    """An archive whose members lie about their names, sizes or content."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, make_image(rng))
        for name in ("/escaped.png", "C:\\escaped.png", "a/0.png"):
            if rng.random() < 0.5:
                archive.writestr(name, make_image(rng))
        if rng.random() < 0.2:  # not in more of them: such archives are refused before anything else is looked at
            archive.writestr(
                str(rng.choice(["../escaped.png", "a/../../escaped.png", "a\\..\\e.png"])), make_image(rng)
            )
        if rng.random() < 0.3:
            archive.writestr("a/bomb.png", bytes(20_000_000))
        if rng.random() < 0.3:
            archive.writestr("dataset.json", hostile_json(rng, '{"labels": [["a/0.png", 0], ["b/1.png", 1]]}'))
        if rng.random() < 0.2:
            link = zipfile.ZipInfo("a/link.png")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "/etc/passwd")
    data = file.getvalue()
    return damaged(rng, data) if rng.random() < 0.7 else data


def hostile_safetensors(rng, data):
    """A safetensors file with a header of any content, or with one that does not fit what follows."""
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    which = rng.integers(4)
    if which == 0:
        header = hostile_json(rng, header)
    elif which == 1:
        return int(rng.choice([0, 1, 2**31, 2**62])).to_bytes(8, "little") + header + rest
    elif which == 2:
        header = b"[" * 100_000
    else:
        rest = rest[: int(rng.integers(len(rest)))]
    return len(header).to_bytes(8, "little") + header + rest
