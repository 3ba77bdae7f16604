"""What the page shows, against the functions that everything else uses."""

import base64
import io
import re
import struct
import threading
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.runs import NAMES, make_run
from sagan import UserError, attention_maps, draw_latents, load, resize_maps
from sagan.attention_maps import attention_layers
from sagan.cli import main
from sagan.explorer import engine as module
from sagan.explorer.engine import Explorer, to_base64, to_png
from sagan.explorer.networks import read_networks
from sagan.explorer.point_maps import MapStyle
from sagan.explorer.schemas import Grid, Look, Sample, Strip, Upload, Walk, parse_request
from sagan.figures.attention import choose_points, draw_maps
from sagan.figures.interpolation import slerp
from sagan.figures.map_colours import paint_map
from sagan.run import read_discriminator
from sagan.sampling import sample

ROUNDING = 3  # a step of the colour ramp
CELLS = MapStyle(smooth=False)
POINTS = [(3.0, 4.0), (20.0, 31.0), (31.0, 0.0)]


def image_of(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.mark.parametrize("labels", [(0, 1, 2), (2, 0)])
@pytest.mark.parametrize("truncation", [None, 0.5])
def test_a_grid_is_that_of_sagan_sample(run, explorer, tmp_path, labels, truncation):
    asked = Grid(labels=labels, count=5, seed=9, truncation=truncation)
    options = ["--classes", *(NAMES[i] for i in labels), "--count", "5", "--seed", "9"]
    options += ["--truncation", str(truncation)] if truncation else []
    for name in ("x.npz", "x.png"):
        assert main(["sample", str(run), "--out", str(tmp_path / name), *options]) == 0
    assert np.array_equal(explorer.grid(asked), np.load(tmp_path / "x.npz")["images"])
    assert np.array_equal(explorer.grid_page(asked), Image.open(tmp_path / "x.png"))


def test_an_opened_image_is_that_of_the_grid(explorer):
    grid = explorer.grid(Grid(labels=(0, 1, 2), count=4, seed=1))
    for index in (0, 5, 11):
        view = explorer.view(Sample(seed=1, index=index % 4, label=index // 4))
        assert np.abs(view.image.astype(int) - grid[index]).max() <= 1  # batches of other sizes round differently
    assert np.abs(explorer.view(Sample(seed=1, index=0, label=1)).image.astype(int) - grid[0]).max() > 20


def test_maps_are_those_of_attention_maps_in_both_networks(run, explorer):
    spec = Sample(seed=4, index=2, label=1, truncation=0.8)
    found = {(layer.network, layer.name): layer.maps for layer in explorer.maps(spec, POINTS, style=CELLS)}
    generator, discriminator = load(run), read_discriminator(run).eval().requires_grad_(False)
    z, y = draw_latents(3, 8, seed=4, truncation=0.8, label=1)[2:], torch.tensor([1])
    x = generator(z, y)
    wanted = {("generator", n): m for n, m in attention_maps(generator, z, y, queries=POINTS).items()}
    wanted |= {("discriminator", n): m for n, m in attention_maps(discriminator, x, y, queries=POINTS).items()}
    assert list(found) == [("generator", "16.0"), ("discriminator", "16.0"), ("discriminator", "4.0")] == list(wanted)
    for layer, maps in wanted.items():
        laid = resize_maps(maps, 32).numpy()[0]
        for i in range(3):
            shown = found[layer][i]
            assert np.abs(shown.painted.astype(int) - paint_map(laid[i] * 32**2)).max() <= ROUNDING
            assert shown.peak == pytest.approx(maps[0, i].max().item() * maps[0, i].numel(), rel=1e-4)


def test_smooth_and_only_are_heeded(explorer):
    spec = Sample(seed=0, index=0)
    whole = explorer.maps(spec, POINTS)[0].maps
    assert list(explorer.maps(spec, POINTS, [2])[0].maps) == [2]
    assert np.array_equal(explorer.maps(spec, POINTS, [2])[0].maps[2].painted, whole[2].painted)
    assert not np.array_equal(explorer.maps(spec, POINTS, style=CELLS)[0].maps[2].painted, whole[2].painted)
    assert explorer.maps(spec, [])[0].maps == {}
    with pytest.raises(UserError, match=r"\b3 points\b"):
        explorer.maps(spec, POINTS, [3])
    with pytest.raises(UserError, match=r"point 32,1\b.*\b32 x 32\b"):
        explorer.maps(spec, [(32.0, 1.0)])


def test_maps_on_their_own_scale_and_over_the_image(explorer):
    spec = Sample(seed=0, index=0)
    image = explorer.view(spec).image
    z, y = explorer.generator_inputs(spec)
    maps = attention_maps(explorer.networks.generator, z, y, queries=POINTS)["16.0"]
    weights = resize_maps(maps, 32).numpy()[0, 0] * 32**2
    for style, options in (
        (MapStyle(False, own_scale=True), {"top": None}),
        (MapStyle(False, over_image=True), {"image": image}),
    ):
        shown = explorer.maps(spec, POINTS, style=style)[0].maps[0].painted
        assert np.abs(shown.astype(int) - paint_map(weights, **options)).max() <= ROUNDING


def test_scaled_gammas_reach_everything_and_are_taken_back(run, explorer):
    spec, gammas = Sample(seed=3, index=1), {"generator/16.0": 0.0, "discriminator/4.0": 2.0}
    trained, score = explorer.view(spec).image, explorer.view(spec).scores
    changed = explorer.view(spec, gammas)
    off, discriminator = load(run), read_discriminator(run).eval().requires_grad_(False)
    with torch.no_grad():
        off.attention["16"][0].gamma.zero_()
        discriminator.attention["4"][0].gamma.mul_(2)
    z, y = draw_latents(2, 8, seed=3, label=0)[1:], torch.tensor([0])
    wanted = sample(off, z, y)[0]
    assert np.abs(changed.image.astype(int) - wanted).max() <= 1
    assert np.abs(wanted.astype(int) - trained).max() > 3
    scores = discriminator(off(z, y).expand(3, -1, -1, -1), torch.arange(3))
    assert changed.scores.by_class == pytest.approx(scores.tolist(), rel=1e-4)
    grid = explorer.grid(Grid(labels=(0,), count=2, seed=3, gammas=gammas))
    assert np.abs(grid[1].astype(int) - wanted).max() <= 1
    walk = Walk(start=spec, end=spec, latent=0.0, label=0.0)
    assert np.abs(explorer.strip(Strip(walk=walk, steps=2, gammas=gammas))[0].astype(int) - wanted).max() <= 1
    first, *_, last = explorer.maps(spec, POINTS, gammas=gammas)
    assert (first.strength, first.maps[0].share) == (0, 0)
    usual = explorer.maps(spec, POINTS)
    assert usual[0].strength > 0.05
    assert last.strength > usual[-1].strength
    assert np.array_equal(explorer.view(spec).image, trained)
    assert explorer.view(spec).scores == score

    effect = explorer.effect(spec, {"generator/16.0": 0.5})
    assert np.array_equal(effect.on, trained)
    assert np.abs(effect.off.astype(int) - wanted).max() <= 1
    apart = np.abs(effect.on.astype(int) - effect.off)
    assert effect.difference.mean == pytest.approx(apart.mean())
    assert np.array_equal(effect.amplified, np.minimum(apart * effect.gain, 255))
    assert 0 < effect.now.mean < effect.difference.mean
    assert explorer.effect(spec, {}).now.largest == 0

    for unknown in ("generator/32.0", "other/16.0", "generator"):
        with pytest.raises(UserError, match=r"layer\b"):
            explorer.view(spec, {unknown: 0.5})
    own = Upload(png=to_base64(trained))
    with pytest.raises(UserError, match="generator"):
        explorer.effect(own, {})


def test_the_distance_of_a_known_map(explorer):
    """A layer without queries attends evenly: the distance is the mean over all keys' centres."""
    layer = explorer.networks.generator.attention["16"][0]
    kept = layer.query.weight.clone()
    try:
        with torch.no_grad():
            layer.query.weight.zero_()
        shown = explorer.maps(Sample(seed=77, index=0), [(5.0, 9.0)])[0].maps[0]
    finally:
        with torch.no_grad():
            layer.query.weight.copy_(kept)
    centres = np.arange(8) * 4 + 2
    assert shown.distance == pytest.approx(np.hypot(centres[:, None] - 9, centres[None] - 5).mean(), rel=1e-5)
    assert shown.peak == pytest.approx(1, rel=1e-5)


def test_scores_are_the_discriminators_logits_for_each_class(run, explorer):
    discriminator = read_discriminator(run).eval().requires_grad_(False)
    z, y = draw_latents(1, 8, seed=4, label=1), torch.tensor([1])
    x = load(run)(z, y).expand(3, -1, -1, -1)
    wanted = discriminator(x, torch.arange(3)).tolist()
    assert explorer.view(Sample(seed=4, index=0, label=1)).scores.by_class == pytest.approx(wanted, rel=1e-4)


def test_a_walk_is_between_its_ends(run, explorer):
    start, end = Sample(seed=1, index=0, label=0), Sample(seed=2, index=3, label=2, truncation=1.5)
    walk = Walk(start=start, end=end, latent=0.0, label=0.0)
    assert np.abs(explorer.view(walk).image.astype(int) - explorer.view(start).image).max() <= 1
    whole = walk.model_copy(update={"latent": 1.0, "label": 1.0})
    assert np.abs(explorer.view(whole).image.astype(int) - explorer.view(end).image).max() <= 1
    z_start, z_end = draw_latents(1, 8, seed=1, label=0), draw_latents(4, 8, seed=2, truncation=1.5, label=2)[3:]
    z = slerp(z_start, z_end, torch.tensor([0.25]))
    wanted = sample(load(run), z, torch.tensor([[0.4, 0, 0.6]]))[0]
    part = walk.model_copy(update={"latent": 0.25, "label": 0.6})
    assert np.abs(explorer.view(part).image.astype(int) - wanted).max() <= 1

    strip = explorer.strip(Strip(walk=walk, steps=5))
    for i, t in enumerate((0, 0.25, 0.5, 0.75, 1)):
        at = explorer.view(walk.model_copy(update={"latent": t, "label": t})).image
        assert np.abs(strip[i].astype(int) - at).max() <= 1
    still = explorer.strip(Strip(walk=walk, steps=3, label=0.6))
    at = explorer.view(walk.model_copy(update={"latent": 0.5, "label": 0.6})).image
    assert np.abs(still[1].astype(int) - at).max() <= 1


def test_an_image_of_ones_own_goes_to_the_discriminator_alone(run, explorer):
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(rng.integers(256, size=(40, 60, 3), dtype=np.uint8)).save(file, "PNG")
    image, size = explorer.read_upload(file.getvalue())
    assert (image.shape, size) == ((32, 32, 3), (60, 40))
    own = Upload(png=to_base64(image))
    assert np.array_equal(explorer.view(own).image, image)  # there and back again unchanged
    found = explorer.maps(own, POINTS)
    assert [(layer.network, layer.name) for layer in found] == [("discriminator", "16.0"), ("discriminator", "4.0")]
    x = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    discriminator = read_discriminator(run).eval().requires_grad_(False)
    wanted = discriminator(x.expand(3, -1, -1, -1), torch.arange(3)).tolist()
    assert explorer.view(own).scores.by_class == pytest.approx(wanted, rel=1e-4)


def test_an_image_sent_back_larger_than_it_was_given_is_not_unpacked(explorer):
    with pytest.raises(UserError, match=r"^png\b.*\b32 x 32\b"):
        explorer.view(Upload(png=to_base64(np.zeros((33, 32, 3), np.uint8))))


def test_chosen_points_are_those_of_sagan_attend(explorer):
    spec = Sample(seed=0, index=1)
    found = explorer.points(Look(image=spec, choose=True))
    assert found == [tuple(p) for p in choose_points(explorer.view(spec).image[None], 5)[0].tolist()]
    assert explorer.points(Look(image=spec, points=POINTS)) == POINTS


def test_the_figure_has_a_section_for_each_layer(explorer, monkeypatch):
    asked = Look(image=Sample(seed=0, index=0), points=POINTS)
    drawn = []

    def record(sections, **options):
        drawn.extend(sections)
        return draw_maps(sections, **options)

    monkeypatch.setattr(module, "draw_maps", record)
    one = explorer.figure(asked)
    generator, discriminator = explorer.networks.generator, explorer.networks.discriminator
    z, y = draw_latents(1, 8, seed=0, label=0), torch.tensor([0])
    x = generator(z, y)
    wanted = [
        *attention_maps(generator, z, y, queries=POINTS).values(),
        *attention_maps(discriminator, x, y, queries=POINTS).values(),
    ]
    for section, maps in zip(drawn, wanted, strict=True):
        assert np.array_equal(section.images, [explorer.view(asked.image).image])
        assert section.points.tolist() == [[list(map(int, point)) for point in POINTS]]
        assert np.allclose(section.maps, maps.detach(), rtol=1e-4)
    assert not np.array_equal(one, explorer.figure(asked.model_copy(update={"smooth": False})))
    with pytest.raises(UserError, match=r"\bpoints\b"):
        explorer.figure(asked.model_copy(update={"points": []}))


def huge_png(width=12_000, height=9_000):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"\bempty\b"),
        (b"just some text", r"\bformat\b"),
        (to_png(np.zeros((64, 64, 3), np.uint8))[:60], r"\bdamaged\b"),
        (huge_png(), r"\b12000 x 9000\b.*\b40 megapixels\b"),
        (huge_png(60_000, 60_000), r"\b40 megapixels\b"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", r"\bformat\b"),
    ],
)
def test_uploads_that_are_no_images_are_refused_in_words(explorer, data, message):
    with pytest.raises(UserError, match=message):
        explorer.read_upload(data)
    with pytest.raises(UserError, match=r"^png\b.*\b32 x 32\b"):
        explorer.view(Upload(png=base64.b64encode(data).decode()))


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (Grid, b"", r".*\bJSON\b"),
        (Grid, b"{}", "count: "),
        (Grid, b'{"count": 0, "seed": 0}', r"count: .*\b1\b.*\b0\b"),
        (Grid, b'{"count": 1, "seed": -1}', "seed: "),
        (Grid, b'{"count": 1, "seed": 1e99}', "seed: "),
        (Grid, b'{"count": 1, "seed": "1"}', r'seed: .*\binteger\b.*"1"'),
        (Grid, b'{"count": 1, "seed": 0, "truncation": NaN}', "truncation: "),
        (Grid, b'{"count": 1, "seed": 0, "truncation": 0}', "truncation: "),
        (Grid, b'{"count": 1, "seed": 0, "sede": 1}', "sede: "),
        (Look, b'{"image": {"kind": "other"}}', "image: "),
        (Look, b'{"image": {"kind": "sample", "seed": 0, "index": 5000000}}', "image.sample.index: "),
        (Look, b'{"image": {"kind": "sample", "seed": 0, "index": 0}, "points": [[1]]}', "points.0"),
        (Look, b'{"image": {"kind": "sample", "seed": 0, "index": 0}, "points": [[1, Infinity]]}', "points.0.1: "),
        (Strip, b'{"steps": 1000}', "walk: "),
        (Grid, b'{"count": 1, "seed": 0, "gammas": {"generator/16.0": 2.1}}', r"gammas.generator/16.0: .*2"),
    ],
)
def test_bad_requests_are_one_line_that_names_the_field(kind, body, message):
    with pytest.raises(UserError) as raised:
        parse_request(kind, body)
    assert re.match(message, str(raised.value))
    assert "\n" not in str(raised.value)


def test_classes_and_sizes_that_are_not_there(explorer):
    with pytest.raises(UserError, match=r"class 3\b.*\b2\b"):
        explorer.view(Sample(seed=0, index=0, label=3))
    with pytest.raises(UserError, match=r"class -1\b"):
        explorer.grid(Grid(labels=(-1,), count=1, seed=0))
    with pytest.raises(UserError, match=r"\b200\b.*\bgrid\b"):
        explorer.grid(Grid(labels=(0, 1), count=100, seed=0))
    with pytest.raises(UserError, match="base64"):
        explorer.view(Upload(png="*"))


def test_a_generator_alone_is_enough_for_the_rest(run, tmp_path):
    (tmp_path / "generator.safetensors").write_bytes((run / "generator.safetensors").read_bytes())
    explorer = Explorer(read_networks(tmp_path / "generator.safetensors"))
    view = explorer.view(Sample(seed=0, index=0))
    assert view.scores is None
    assert [layer.network for layer in explorer.maps(Sample(seed=0, index=0), POINTS)] == ["generator"]
    assert re.search(r"\bdiscriminator\b.*\brun\b", explorer.describe()["missing"]["discriminator"])
    assert explorer.maps(Upload(png=to_base64(view.image)), POINTS) == []


def test_a_run_without_checkpoints_or_maps_says_so(tmp_path):
    folder = make_run(tmp_path / "run", (), generator_attention=((8, "channel"),), image_channels=1).path
    explorer = Explorer(read_networks(folder))
    missing = explorer.describe()["missing"]
    assert "checkpoint" in missing["discriminator"]
    assert re.search(r"8\.0\b.*channel attention", missing["generator_maps"])
    assert explorer.maps(Sample(seed=0, index=0), POINTS) == []
    assert explorer.grid(Grid(count=3, seed=0)).shape == (3, 32, 32, 1)
    assert image_of(to_base64(explorer.view(Sample(seed=0, index=0)).image)).shape == (32, 32)
    walk = Walk(start=Sample(seed=0, index=0), end=Sample(seed=0, index=1), latent=0.5, label=0.5)
    assert explorer.view(walk).image.shape == (32, 32, 1)


def test_transparent_images_keep_their_alpha(tmp_path):
    explorer = Explorer(read_networks(make_run(tmp_path / "run", ("a", "b"), image_channels=4).path))
    image = explorer.grid(Grid(labels=(0,), count=1, seed=0))[0]
    assert np.array_equal(image_of(to_base64(image)), image)
    assert np.array_equal(explorer.view(Upload(png=to_base64(image))).image.shape, (32, 32, 4))
    assert explorer.maps(Sample(seed=0, index=0), POINTS)[0].maps[0].painted.shape == (32, 32, 3)


def test_a_generator_that_diverged_is_said_in_words(run, tmp_path):
    networks = read_networks(run)
    explorer = Explorer(networks)
    with torch.no_grad():
        networks.generator.head.weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"\bgenerator\b.*\bNaN\b"):
        explorer.view(Sample(seed=5, index=0))


def test_many_threads_each_get_their_own(explorer):
    """Images and maps asked for side by side are those asked for one after the other."""
    asked = [Sample(seed=seed, index=0, label=seed % 3) for seed in range(100, 124)]  # more than are kept
    wanted = [explorer.maps(one, POINTS) for one in asked]
    found = [None] * len(asked)

    def work(first):
        for i in range(first, len(asked), 6):
            found[i] = explorer.maps(asked[i], POINTS)

    threads = [threading.Thread(target=work, args=[first]) for first in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(wanted, found, strict=True):
        for a, b in zip(one, other, strict=True):
            assert all(np.array_equal(a.maps[i].painted, b.maps[i].painted) for i in range(3))
    assert not any(layer._forward_pre_hooks for layer in attention_layers(explorer.networks.generator).values())


def test_describe_is_what_the_networks_are(explorer):
    about = explorer.describe()
    assert about["classes"] == list(NAMES)
    assert [(one["network"], one["name"], one["grid"], one["keys"]) for one in about["layers"]] == [
        ("generator", "16.0", 16, 8),
        ("discriminator", "16.0", 16, 8),
        ("discriminator", "4.0", 4, 2),
    ]
    assert about["missing"] == {}
