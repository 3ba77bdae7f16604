"""Evaluations on twins: their copies, and where the peaks of both networks' maps lie."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.runs import make_run
from sagan import attention_maps, evaluate, sample
from sagan.data import prepare
from sagan.data.builtin.robots import CLASS_NAMES
from sagan.metrics.reference import choose
from sagan.metrics.twin_evaluation import evaluate_peaks, middle_points
from sagan.metrics.twins import count_twin_hits, measure_twins
from sagan.model.build import build_discriminator
from sagan.pixels import to_signed
from sagan.run import Run, load_generator, read_discriminator
from sagan.sampling import draw_latents

COUNT = 40
NAMES = ("twin correlation", "twin distance", "peaks on the twin, generator", "peaks on the twin, discriminator")


class Means(torch.nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    """One cache for all, because drawing the built-in images takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def make(path, source="twins", **options):
    """Make a run on a built-in set of few images."""
    run = make_run(path, CLASS_NAMES, source=source, **options)
    config = run.info.config
    run.reconfigure(replace(config, data=replace(config.data, robots=2 * COUNT)))
    return Run(path)


def measure(run, **options):
    """All metrics of a run's evaluation against its own data, by name."""
    counts = {"count": COUNT, "reference_count": COUNT, "neighbours": False}
    found = evaluate(run.path, features=Means(), device="cpu", **counts | options)
    return {metric.name: metric.value for metric in found.metrics}


def test_a_run_on_twins_is_measured_as_the_functions_measure_it(tmp_path):
    run = make(tmp_path / "run", checkpoint=True)
    found = measure(run, seed=5)
    store = prepare(run.info.config.data, resolution=32, image_channels=3, progress=False)
    chosen = choose(store, COUNT)
    # The evaluation's classes are those of the data, in the order of the whole store.
    y = torch.from_numpy(np.resize(store.labels[choose(store, len(store))], COUNT))
    z = draw_latents(COUNT, 8, seed=5)
    generator, points = load_generator(run.path)[0], middle_points(32)
    agreement = measure_twins(sample(generator, z, y), y.numpy())
    maps = {
        "generator": attention_maps(generator, z, y, queries=points),
        "discriminator": attention_maps(
            read_discriminator(run.path), to_signed(store.load_images(chosen)), y, queries=points
        ),
    }
    hits = [count_twin_hits(maps[role]["16.0"], points, 32).twin for role in ("generator", "discriminator")]
    assert 0 < min(hits) < 1
    expected = [agreement.correlation, agreement.distance, *hits]
    assert [found[name] for name in NAMES] == pytest.approx(expected, rel=1e-3)


def test_without_layers_or_checkpoints_there_are_no_peaks(tmp_path):
    layers = {"generator_attention": ((16, "residual"),), "discriminator_attention": ()}
    plain = make(tmp_path / "plain", checkpoint=True, **layers)
    assert [name in measure(plain) for name in NAMES] == [True, True, False, False]
    lone = make(tmp_path / "lone")
    assert [name in measure(lone) for name in NAMES] == [True, True, True, False]


def test_other_data_have_no_twins(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "x.npz",
        images=rng.integers(256, size=(COUNT, 32, 32, 3), dtype=np.uint8),
        labels=np.arange(COUNT) % 5,
    )
    run = make(tmp_path / "run", str(tmp_path / "x.npz"), checkpoint=True)
    found = measure(run)
    assert "Frechet distance" in found
    assert not {*NAMES} & found.keys()


def test_a_layer_that_looks_at_the_twin_has_all_its_peaks_there(tmp_path):
    """Queries and keys that hold where a location lies in its copy, and the opposite sign in the other copy."""
    run = make(tmp_path / "run")
    network = build_discriminator(run.info.config.model).eval()
    (layer,) = network.attention["16"]
    half = torch.arange(16) // 2  # the key of each row or column
    place = torch.stack([torch.cos(2 * torch.pi * half / 4 + s) for s in (0, torch.pi / 2)])  # the same in both copies
    lower = torch.where(half < 4, 1.0, -1.0)
    rows, columns = place[:, :, None].expand(2, 16, 16), place[:, None].expand(2, 16, 16)
    signs = (lower[:, None] + lower)[None] / 2  # +1 in the upper left copy, -1 in the lower right one
    keys = 20 * torch.cat([rows, columns, signs])[None]
    queries = torch.cat([rows, columns, -signs])[None]
    layer.query, layer.key = Fixed(queries), Fixed(keys)
    images = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    (found,) = evaluate_peaks(network, images, torch.zeros(3, dtype=torch.int64), seed=0)
    assert found.value == 1
    layer.query = Fixed(torch.cat([rows, columns, signs])[None])
    (found,) = evaluate_peaks(network, images, torch.zeros(3, dtype=torch.int64), seed=0)
    assert found.value == 0
    assert "query itself 1" in found.about


class Fixed(torch.nn.Module):
    """A projection that depends on the location alone; of single queries, (N, C, Q, 1), on all of them in turn."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def forward(self, x):
        if x.shape[-1] == self.values.shape[-1]:
            return self.values.expand(len(x), -1, -1, -1)
        points = torch.from_numpy(middle_points(32) // 2).long()
        at = self.values[:, :, points[:, 1], points[:, 0]][..., None]
        return at.expand(len(x), -1, -1, -1)


def test_the_queries_are_the_middle_of_both_copies():
    points = middle_points(32)
    assert points.shape == (2 * 8 * 8, 2)
    upper, lower = points[:64], points[64:]
    assert (upper.min(), upper.max()) == (4, 11)
    assert np.array_equal(lower, upper + 16)
