"""The power of a grid is that of known modulations, and 0 where dots have no preferred place."""

import numpy as np
import pytest
import torch

from sagan.importers.networks import ImportedConfig
from sagan.metrics import grid_power as module
from sagan.metrics.grid_power import GridPower, grid_power
from sagan.model.build import build_generator
from sagan.model.config import ModelConfig
from sagan.presets import PRESETS
from sagan.sampling import draw_latents

SIDE = 64


def modulation(period, amplitude, phase=0.3):
    phase = 0 if period == 2 else phase  # at period 2 a phase is an amplitude
    return amplitude * np.cos(2 * np.pi * np.arange(SIDE) / period + phase)


@pytest.mark.parametrize("period", [2, 4, 8, 16])
@pytest.mark.parametrize("axis", ["across", "down", "diagonal"])
def test_a_modulation_has_its_variance(period, axis):
    wave = modulation(period, 0.3)
    pattern = {"across": wave[None, :], "down": wave[:, None], "diagonal": wave[:, None] * wave[None, :]}[axis]
    maps = np.random.default_rng(0).uniform(1, 3, (5, 1, 1)) * (1 + pattern + np.zeros((SIDE, SIDE)))
    # In two parts: what is measured does not depend on them.
    powers = module._pattern_power(iter([maps[:2], maps[2:]]))
    wanted = {"across": 0.0, "down": 0.0, "diagonal": 0.0} | {axis: (pattern**2).mean()}
    assert set(powers) == {2, 4, 8, 16}
    for name, value in wanted.items():
        assert getattr(powers[period], name) == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert powers[period].total == pytest.approx((pattern**2).mean(), rel=1e-9)
    for other in set(powers) - {period}:
        # Other frequencies have nothing but the window's skirts: of a single modulation, none.
        assert abs(powers[other].total) < 1e-12


def dots(count, period, *, aligned, seed=0):
    """Grey discs with dark or light dots inside, `period` pixels apart, at the same places in all images or not."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    images = []
    for _ in range(count):
        centre, radius = rng.uniform(24, 40, 2), rng.uniform(12, 28)
        disc = np.hypot(y - centre[0], x - centre[1]) < radius
        dy, dx = (0, 0) if aligned else rng.integers(0, 64, 2)
        dot = ((y + dy) % period < 2) & ((x + dx) % period < 2)
        colour, change = rng.uniform(80, 170), rng.choice([-60, 60])
        image = np.where(disc, colour + change * dot, 255) + rng.normal(0, 3, (SIDE, SIDE))
        images.append(np.repeat(image[:, :, None], 3, 2))
    return np.stack(images).clip(0, 255).astype(np.uint8)


def test_a_grid_inside_shapes_is_found_at_its_period():
    grid = grid_power(dots(300, 8, aligned=True))
    assert grid[8].across > 0.02
    assert grid[8].down > 0.02
    # 4 and 2 are harmonics of dots; no coarser grid is there.
    assert abs(grid[16].total) < 0.1 * grid[8].total


def test_dots_without_a_preferred_place_are_no_grid():
    aligned, loose = (grid_power(dots(300, 8, aligned=a))[8].total for a in (True, False))
    assert abs(loose) < 0.05 * aligned


def test_the_estimate_is_not_biased_by_the_number_of_images():
    """Small sets of plain noise have no grid either: estimates scatter around 0, half of them below."""
    rng = np.random.default_rng(1)
    values = [grid_power(rng.integers(0, 256, (3, 16, 16, 1)).astype(np.uint8))[4].total for _ in range(400)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(400)
    assert 0.3 < np.mean(np.array(values) < 0) < 0.8


def test_channels_and_batches_do_not_matter(monkeypatch):
    images = dots(40, 8, aligned=True)
    whole = grid_power(images)
    monkeypatch.setattr(module, "_BATCH", 7)
    for a, b in zip(whole.values(), grid_power(images[..., :1]).values(), strict=True):
        assert np.allclose([a.across, a.down, a.diagonal], [b.across, b.down, b.diagonal], rtol=1e-9, atol=1e-12)
    assert isinstance(whole[2], GridPower)


@pytest.mark.parametrize("shape", [(1, 64, 64, 3), (5, 64, 32, 3), (5, 48, 48, 3), (5, 4, 4, 3)])
def test_refuses_what_it_cannot_measure(shape):
    with pytest.raises(ValueError, match="two or more square images"):
        grid_power(np.zeros(shape, np.uint8))


def test_the_generator_s_grid_comes_from_nearest_neighbour_upsampling():
    """With random weights a generator that upsamples linearly has no grid; by nearest neighbour, one of 8 pixels.

    So it is after 1,200 steps of emoji (docs/evaluation.md); `small`, for images of one's own, upsamples linearly.
    """
    assert PRESETS["small"].model.upsampling == "linear"
    totals = {}
    shape = {"resolution": SIDE, "latent_dim": 32, "base_channels": 8}
    configs = {
        "nearest": ModelConfig(**shape),
        "linear": ModelConfig(**shape, upsampling="linear"),
        "bilinear": ImportedConfig(**shape, upsampling="bilinear"),
    }
    for upsampling, config in configs.items():
        torch.manual_seed(0)
        generator = build_generator(config).requires_grad_(False)
        images = generator(draw_latents(64, 32, seed=0)).permute(0, 2, 3, 1).numpy()
        totals[upsampling] = {period: power.total for period, power in grid_power(images).items()}
    assert totals["nearest"][8] > 5e-4
    assert totals["nearest"][8] > max(totals["nearest"][2], totals["nearest"][4])
    for upsampling in ("linear", "bilinear"):
        assert totals[upsampling][8] < 2e-4
        assert totals[upsampling][4] < 0.2 * totals["nearest"][4]
