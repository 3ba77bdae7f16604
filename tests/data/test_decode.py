"""Every kind of image file against NumPy on the pixels that went in."""

import contextlib
import io
import struct
import threading
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from sagan.data.budget import Budget
from sagan.data.decode import MAX_PIXELS, Unreadable, decode
from sagan.data.png import keep_pixels

WHITE, RED = (255, 255, 255), (255, 0, 0)
SIDE = 16
RAMP = np.add.outer(np.arange(SIDE), np.arange(SIDE)).astype(np.float64) * (255 / (2 * SIDE - 2))
GREY = RAMP.round().astype(np.uint8)
RGB = np.stack([GREY, GREY.T[::-1], 255 - GREY], -1)


def file(image, kind, **options):
    buffer = BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def pixels(data, channels=3, resolution=SIDE, background=WHITE):
    image, _ = decode(data, resolution=resolution, image_channels=channels, background=background)
    assert image.dtype == np.uint8
    assert image.shape == (resolution, resolution, channels)
    return image.astype(int)


def rgb(grey):
    return np.repeat(grey[..., None], 3, -1)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width, height):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})]
)
def test_lossless_formats_come_back_exactly(kind, options):
    data = file(Image.fromarray(RGB), kind, **options)
    np.testing.assert_array_equal(pixels(data), RGB)
    np.testing.assert_array_equal(pixels(data, 4), np.dstack([RGB, np.full_like(GREY, 255)]))


@pytest.mark.parametrize(("kind", "tolerance"), [("JPEG", 6), ("WEBP", 12), ("GIF", 12)])
def test_lossy_formats_come_back_nearly(kind, tolerance):
    smooth = rgb(GREY)
    data = file(Image.fromarray(smooth), kind, **({"quality": 95} if kind != "GIF" else {}))
    assert abs(pixels(data) - smooth).max() <= tolerance


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_grey_and_black_and_white(kind):
    np.testing.assert_array_equal(pixels(file(Image.fromarray(GREY), kind)), rgb(GREY))
    np.testing.assert_array_equal(pixels(file(Image.fromarray(GREY), kind), 1)[..., 0], GREY)
    np.testing.assert_array_equal(pixels(file(Image.fromarray(GREY > 99), kind)), rgb(255 * (GREY > 99)))


def test_colour_to_grey_has_the_luma_weights():
    grey = pixels(file(Image.fromarray(RGB), "PNG"), 1)[..., 0]
    assert abs(grey - RGB @ [0.299, 0.587, 0.114]).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_transparency_is_composited_over_the_background_or_kept(kind):
    rgba = np.dstack([RGB, GREY.T])
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = file(Image.fromarray(rgba), kind, **options)
    alpha = GREY.T[..., None] / 255
    assert abs(pixels(data, background=RED) - (RGB * alpha + np.array(RED) * (1 - alpha))).max() <= 1.5
    kept = pixels(data, 4)
    np.testing.assert_array_equal(kept[..., 3], GREY.T)
    solid = GREY.T > 127
    assert abs(kept[solid][:, :3] - RGB[solid]).max() <= 1


def test_grey_with_alpha():
    image = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(GREY.T)])
    alpha = rgb(GREY.T) / 255
    expected = rgb(GREY) * alpha + np.array(RED) * (1 - alpha)
    assert abs(pixels(file(image, "PNG"), background=RED) - expected).max() <= 1.5


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_a_transparent_colour(kind):
    image = Image.fromarray((GREY // 128).astype(np.uint8))
    image = image.convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    data = file(image, kind, transparency=0)
    expected = np.where((GREY >= 128)[..., None], [200, 100, 50], [0, 0, 255])
    np.testing.assert_array_equal(pixels(data, background=(0, 0, 255)), expected)
    np.testing.assert_array_equal(pixels(data, 4)[..., 3], 255 * (GREY >= 128))


def test_rgb_with_a_transparent_colour():
    image = RGB.copy()
    image[:4] = (1, 2, 3)
    expected = image.copy()
    expected[:4] = RED
    np.testing.assert_array_equal(
        pixels(file(Image.fromarray(image), "PNG", transparency=(1, 2, 3)), background=RED), expected
    )


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((SIDE, SIDE), value, np.uint8)) for value in (200, 10)]
    data = file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(pixels(data), 200)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    cmyk = np.zeros((SIDE, SIDE, 4), np.uint8)
    cmyk[..., 1] = cmyk[..., 2] = 255  # magenta and yellow ink make red
    colour = pixels(file(Image.fromarray(cmyk, "CMYK"), kind)).reshape(-1, 3)
    assert (abs(colour - [255, 0, 0]) <= 8).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_clipped(kind):
    deep = (RAMP * 257).round().astype(np.uint16)
    np.testing.assert_allclose(pixels(file(Image.fromarray(deep), kind), 1)[..., 0], deep / 257, atol=0.51)
    dark = np.full((SIDE, SIDE), 256 * 10, np.uint16)
    np.testing.assert_array_equal(pixels(file(Image.fromarray(dark), kind)), 10)


def test_16_bits_of_the_other_byte_order():
    deep = (RAMP * 257).round().astype(np.uint16)
    tags = [(256, 4, SIDE), (257, 4, SIDE), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, SIDE), (279, 4, 2 * SIDE * SIDE)]
    body = deep.astype(">u2").tobytes()
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in tags
    )
    data = b"MM\0*" + struct.pack(">I", 8 + len(body)) + body + struct.pack(">H", len(tags)) + entries + bytes(4)
    assert Image.open(BytesIO(data)).mode == "I;16B"
    np.testing.assert_allclose(pixels(data, 1)[..., 0], deep / 257, atol=0.51)


@pytest.mark.parametrize("white", [1, 255])
def test_floating_point_of_a_known_scale(white):
    values = (RAMP / 255 * white).astype(np.float32)
    np.testing.assert_allclose(pixels(file(Image.fromarray(values), "TIFF"), 1)[..., 0], RAMP, atol=0.51)


@pytest.mark.parametrize("bad", [-1.0, 1000.0, float("nan"), float("inf")])
def test_floating_point_of_an_unknown_scale_is_refused(bad):
    values = (RAMP / 255).astype(np.float32)
    values[3, 3] = bad
    with pytest.raises(Unreadable, match=r"floating-point\b.*\bscale\b"):
        pixels(file(Image.fromarray(values), "TIFF"))


UPRIGHT = {  # what a viewer does, by the EXIF standard, in NumPy
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_orientation(kind, orientation):
    wide = np.repeat(np.repeat(RGB[:2, :3], 8, 0), 8, 1)  # 16 high, 24 wide
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    data = file(Image.fromarray(wide), kind, exif=exif, **options)
    image, size = decode(data, resolution=16, image_channels=3, background=WHITE)
    upright = UPRIGHT[orientation](wide)
    assert size == (upright.shape[1], upright.shape[0])
    top, left = (upright.shape[0] - 16) // 2, (upright.shape[1] - 16) // 2
    assert abs(image.astype(int) - upright[top : top + 16, left : left + 16]).max() <= (8 if kind == "JPEG" else 0)


def test_central_square():
    wide = np.zeros((10, 31, 3), np.uint8)
    wide[:, 10:20] = np.arange(10)[:, None, None] * 20
    image, size = decode(file(Image.fromarray(wide), "PNG"), resolution=10, image_channels=3, background=WHITE)
    np.testing.assert_array_equal(image, wide[:, 10:20])
    assert size == (31, 10)


def test_shrinking_is_antialiased():
    stripes = np.zeros((512, 512), np.uint8)
    stripes[:, ::2] = 255
    inner = pixels(file(Image.fromarray(stripes), "PNG"), 1, resolution=32)
    assert abs(inner - 127.5).max() <= 4


def test_transparent_pixels_do_not_bleed():
    """A white disc whose invisible surroundings are black stays white at its rim: no dark fringe."""
    rows, columns = np.ogrid[:200, :200]
    disc = (rows - 100) ** 2 + (columns - 100) ** 2 < 80**2
    rgba = np.zeros((200, 200, 4), np.uint8)
    rgba[disc] = 255
    data = file(Image.fromarray(rgba), "PNG")
    np.testing.assert_array_equal(pixels(data, 3, 32, background=WHITE), 255)
    kept = pixels(data, 4, 32)
    assert (kept[kept[..., 3] > 8][:, :3] >= 250).all()


def test_large_jpegs_are_unpacked_small_and_look_the_same():
    rows, columns = np.ogrid[:1024, :1024]
    smooth = (127 + 60 * np.sin(rows / 90) + 60 * np.cos(columns / 70)).astype(np.uint8)
    data = file(Image.fromarray(smooth).convert("RGB"), "JPEG", quality=95)
    plain = Image.open(BytesIO(data)).resize((64, 64), Image.Resampling.LANCZOS)
    assert abs(pixels(data, resolution=64) - np.asarray(plain).astype(int)).max() <= 4
    assert decode(data, resolution=64, image_channels=3, background=WHITE)[1] == (1024, 1024)


def test_embedded_profile_is_converted():
    """Grey 128 of a profile with linear light is 188 in sRGB."""
    lab = ImageCms.createProfile("LAB")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    flat = Image.fromarray(np.full((SIDE, SIDE, 3), 128, np.uint8))
    assert abs(pixels(file(flat, "PNG", icc_profile=srgb)) - 128).max() <= 1
    linear = _with_gamma_one(srgb)
    assert abs(pixels(file(flat, "PNG", icc_profile=linear)) - 188).max() <= 2
    assert abs(pixels(file(flat, "PNG", icc_profile=linear), 4)[..., :3] - 188).max() <= 2
    for useless in (ImageCms.ImageCmsProfile(lab).tobytes(), b"nonsense"):
        np.testing.assert_array_equal(pixels(file(flat, "PNG", icc_profile=useless)), 128)


def _with_gamma_one(profile):
    """Replace the profile's tone curves by the identity."""
    (count,) = struct.unpack(">I", profile[128:132])
    data = bytearray(profile)
    for entry in range(132, 132 + 12 * count, 12):
        name, at, _ = struct.unpack(">4sII", profile[entry : entry + 12])
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            data[at : at + 12] = b"curv" + bytes(8)
            data[entry + 8 : entry + 12] = struct.pack(">I", 12)
    return bytes(data)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("side", [30_000, 12_000, 2**31 - 1])
def test_bombs_are_refused_by_their_header(side):
    with pytest.raises(Unreadable, match=r"\b100 megapixels\b"):
        pixels(png_claiming(side, side))
    assert MAX_PIXELS == 100_000_000


@pytest.mark.filterwarnings("ignore")
def test_a_refused_size_is_named():
    with pytest.raises(Unreadable, match="12000 x 12000 pixels"):
        pixels(png_claiming(12_000, 12_000))
    with pytest.raises(Unreadable, match="900 megapixels"):
        pixels(png_claiming(30_000, 30_000))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, this is text\n" * 9, "format"),
        (b"%PDF-1.7", "format"),
        (b"\xff\xd8", "damaged"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "format"),  # no PostScript is run
    ],
)
def test_not_an_image(data, reason):
    with pytest.raises(Unreadable, match=reason):
        pixels(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_truncated_files_are_refused(kind):
    random_image = Image.fromarray(np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8))
    data = file(random_image, kind)
    with pytest.raises(Unreadable, match="damaged"):
        pixels(data[: len(data) // 2])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_no_bytes_crash_it(kind):
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if kind in ("BMP", "GIF") else {"exif": exif}
    good = np.frombuffer(file(Image.fromarray(RGB), kind, **options), np.uint8)
    for _ in range(300):
        bad = good.copy()
        bad[rng.integers(len(bad), size=rng.integers(1, 9))] = rng.integers(256)
        try:
            pixels(bad[: rng.integers(1, len(bad) + 1)].tobytes())
        except Unreadable:
            continue


def png_chunk(kind, content, *, intact=True):
    return (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content) ^ (not intact))
    )


PROFILE = zlib.compress(bytes(2**21))
BROKEN_CHUNKS = {
    "text": png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2**21)),
    "texts": png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 1_000_000)) * 70,
    "international text": png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"x" * 2**21)),
    "profile": png_chunk(b"iCCP", b"name\0\0" + PROFILE),
    "damaged text": png_chunk(b"tEXt", b"Comment\0hello", intact=False),
    "damaged time": png_chunk(b"tIME", b"1234567", intact=False),
}


@pytest.mark.parametrize("name", BROKEN_CHUNKS)
@pytest.mark.parametrize("at", ["before", "after"])
def test_a_png_with_intact_pixels_is_decoded_whatever_lies_around_them(name, at):
    image = Image.fromarray(np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    data = buffer.getvalue()
    place = 33 if at == "before" else data.index(b"IEND") - 4
    spoilt = data[:place] + BROKEN_CHUNKS[name] + data[place:]
    found, size = decode(spoilt, resolution=16, image_channels=3, background=(0, 0, 0))
    np.testing.assert_array_equal(found, np.asarray(image.rotate(-90)))
    assert size == (16, 16)


def test_a_large_profile_is_handed_over():
    """Larger than what Pillow unpacks: it is taken out of the file, and still used."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(2**21)
    data = file(Image.new("RGB", (8, 8)), "PNG")
    plain, found = keep_pixels(data[:33] + png_chunk(b"iCCP", b"name\0\0" + zlib.compress(profile)) + data[33:])
    assert (plain, found) == (data, profile)


def test_large_images_wait_for_one_another(monkeypatch):
    """Many threads decode, but the memory of those at work is limited."""
    budget = Budget(40 * 40 * 8 * 2)  # two images
    monkeypatch.setattr("sagan.data.decode.DECODING", budget)
    spent, load = [], ImageFile.ImageFile.load
    barrier = threading.Barrier(2)

    def watched(image):
        spent.append(budget.spent)
        with contextlib.suppress(threading.BrokenBarrierError):
            barrier.wait(0.2)  # both are inside at the same time
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", watched)
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "PNG")
    with ThreadPoolExecutor(6) as pool:
        results = [
            pool.submit(decode, buffer.getvalue(), resolution=8, image_channels=3, background=(0, 0, 0))
            for _ in range(12)
        ]
        assert all(result.result()[1] == (40, 40) for result in results)
    assert max(spent) == budget.limit
    assert budget.spent == 0


def test_one_image_above_the_budget_is_decoded_alone(monkeypatch):
    monkeypatch.setattr("sagan.data.decode.DECODING", Budget(10))
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "PNG")
    assert decode(buffer.getvalue(), resolution=8, image_channels=3, background=(0, 0, 0))[1] == (40, 40)


def test_16_bits_of_a_large_image_take_little_memory():
    """NumPy's share; with Pillow's own, a pixel takes less than decode._BYTES_PER_NUMBER."""
    side = 3000
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.uint16)).save(buffer, "PNG", compress_level=1)
    tracemalloc.start()
    decode(buffer.getvalue(), resolution=8, image_channels=3, background=(0, 0, 0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * side * side
