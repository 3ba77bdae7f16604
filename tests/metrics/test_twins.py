"""The exact measure of twins, and where peaks of attention maps lie."""

import numpy as np
import pytest
import torch

from sagan.data.builtin import twins
from sagan.metrics.twins import REACH, count_twin_hits, measure_twins, twin_of

SIDE = 32


def images_of(upper, lower):
    images = np.full((len(upper), SIDE, SIDE, 3), 255, np.uint8)
    a, b = twins.copies(images)
    a[:], b[:] = upper, lower
    return images


def noise(count, seed):
    return np.random.default_rng(seed).integers(256, size=(count, SIDE // 2, SIDE // 2, 3), dtype=np.uint8)


LABELS = np.arange(200) % 2


class TestAgreement:
    def test_twins_agree_exactly(self):
        found = measure_twins(images_of(noise(200, 0), noise(200, 0)), LABELS)
        assert found.correlation == pytest.approx(1, abs=1e-12)
        assert (found.distance, found.displacement, found.images) == (0, 0, 200)
        assert found.unrelated_correlation < 0.1
        assert found.unrelated_distance == pytest.approx(np.sqrt(2 * (256**2 - 1) / 12), rel=0.03)

    def test_a_known_correlation(self):
        """r from a shared part: x and r x + sqrt(1 - r²) y, about a mean image of each class."""
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((2, 2000, 16, 16, 3))
        labels = np.arange(2000) % 2
        mean = rng.uniform(60, 190, size=(2, 16, 16, 3))
        r = 0.8
        upper = mean[labels] + 12 * x
        lower = mean[labels] + 12 * (r * x + np.sqrt(1 - r**2) * y)
        found = measure_twins(images_of(upper.round(), lower.round()), labels)
        assert found.correlation == pytest.approx(r, abs=0.01)
        assert found.distance == pytest.approx(12 * np.sqrt(2 - 2 * r), rel=0.02)
        assert found.unrelated_correlation == pytest.approx(0, abs=0.01)
        assert found.unrelated_distance == pytest.approx(12 * np.sqrt(2), rel=0.02)

    @pytest.mark.parametrize(("down", "right"), [(0, 1), (-2, 1), (2, -2)])
    def test_a_displaced_copy_is_aligned(self, down, right):
        """A robot that leaves a margin, moved by whole pixels."""
        upper = np.full((200, 16, 16, 3), 255, np.uint8)
        upper[:, 3:-3, 3:-3] = noise(200, 0)[:, 3:-3, 3:-3]
        images = images_of(upper, np.roll(upper, (down, right), (1, 2)))
        found = measure_twins(images, LABELS)
        assert found.distance == 0
        assert found.displacement == pytest.approx(np.hypot(down, right))
        assert max(abs(down), abs(right)) <= REACH

    def test_a_displacement_out_of_reach_is_a_difference(self):
        upper = np.full((200, 16, 16, 3), 255, np.uint8)
        upper[:, 3:-3, 3:-3] = noise(200, 0)[:, 3:-3, 3:-3]
        assert measure_twins(images_of(upper, np.roll(upper, 3, 1)), LABELS).correlation < 0.2

    def test_the_same_robot_for_every_image_of_a_class(self):
        """A generator that ignores its latents: nothing varies, so there is no correlation, and no distance."""
        one = np.repeat(noise(1, 0), 10, axis=0)
        found = measure_twins(images_of(one, one), np.zeros(10, np.int64))
        assert np.isnan(found.correlation)
        assert found.distance == found.unrelated_distance == 0

    def test_a_class_of_one_image_is_skipped(self):
        images = images_of(noise(5, 0), noise(5, 0))
        assert measure_twins(images, np.array([0, 0, 1, 2, 2])).images == 4
        with pytest.raises(ValueError, match="two or more"):
            measure_twins(images, np.arange(5))


class TestHits:
    def maps(self, keys, peaks, images=2):
        """Maps (images, Q, keys, keys) with their peaks at (column, row) of each query."""
        maps = torch.full((images, len(peaks), keys, keys), 0.01)
        for query, (column, row) in enumerate(peaks):
            maps[:, query, row, column] = 0.5
        return maps

    def test_twins_of_points(self):
        points = np.array([[0, 0], [15, 3], [16, 16], [31, 20.5]])
        assert twin_of(points, 32).tolist() == [[16, 16], [31, 19], [0, 0], [15, 4.5]]
        assert twin_of(twin_of(points, 32), 32).tolist() == points.tolist()

    @pytest.mark.parametrize("point", [(16, 0), (3, 20), (-1, 3), (32, 31)])
    def test_points_in_neither_copy(self, point):
        with pytest.raises(ValueError, match=f"{point[0]},{point[1]}"):
            twin_of(np.array([point]), 32)

    def test_a_twin_of_a_pixel_shows_the_same_pixel(self):
        images = images_of(noise(3, 0), noise(3, 0))
        for x, y in [(1, 9), (20, 30)]:
            a, b = (int(v) for v in twin_of(np.array([x, y]), SIDE))
            np.testing.assert_array_equal(images[:, y, x], images[:, b, a])

    @pytest.mark.parametrize("keys", [8, 16, 32])
    def test_peaks_on_the_twin_on_the_query_and_elsewhere(self, keys):
        points = np.array([[1, 9], [20, 30], [5, 6], [12, 2]])
        cells = [[int(v * keys / 32) for v in at] for at in (*twin_of(points, 32)[:2], points[2], (31, 0))]
        found = count_twin_hits(self.maps(keys, cells), points, 32)
        assert (found.twin, found.own, found.chance, found.maps) == (0.5, 0.25, 1 / keys**2, 8)

    def test_points_of_each_image(self):
        points = np.array([[[1, 9]], [[5, 6]]])
        (column, row) = (twin_of(points[0, 0], 32) / 4).astype(int)
        found = count_twin_hits(self.maps(8, [(column, row)]), points, 32)
        assert found.twin == 0.5  # 1,9 and 5,6 have twins in different keys

    def test_in_a_network(self):
        """Maps as a generator returns them, peaks found by hand."""
        import sagan
        from sagan.model.config import ModelConfig

        config = ModelConfig(resolution=32, base_channels=4, latent_dim=8, num_classes=2)
        generator = sagan.Generator(config)
        points = np.array([[2, 2], [9, 13]])
        maps = sagan.attention_maps(generator, torch.randn(3, 8), torch.tensor([0, 1, 0]), queries=points)["16.0"]
        found = count_twin_hits(maps, points, 32)
        assert found.maps == 6
        best = maps.flatten(2).argmax(-1)
        cells = torch.from_numpy((twin_of(points, 32) // 4).astype(np.int64))
        assert found.twin == (best == cells[:, 0] + 8 * cells[:, 1]).float().mean().item()
