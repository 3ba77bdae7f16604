"""The patch correlation error against closed forms, and on images with a known fault."""

import numpy as np
import pytest
import torch

from sagan.distributed import Processes
from sagan.metrics.features import BATCH
from sagan.metrics.patch_correlation import (
    LEAST_IMAGES,
    PatchReader,
    compare_patch_correlation,
    patch_values,
)

SIDE = 8
ROWS, COLUMNS = np.divmod(np.arange(SIDE**2), SIDE)
DISTANCES = np.hypot(ROWS[:, None] - ROWS, COLUMNS[:, None] - COLUMNS)
COLOURS = np.array([[1, 0.9, 0.5], [0.9, 1, 0.7], [0.5, 0.7, 1]])


def covariance(reach):
    """Correlations exp(-distance / reach) of 64 patches, in three channels that correlate too."""
    return np.kron(COLOURS, np.exp(-DISTANCES / reach))


def fields(count, correlations, seed):
    """Patch values (count, 192) of a Gaussian field, of deviations that differ by patch."""
    rng = np.random.default_rng(seed)
    scale = 10 + 20 * np.random.default_rng(99).random(len(correlations))
    return rng.standard_normal((count, len(correlations))) @ np.linalg.cholesky(correlations).T * scale


def exact_fields(count, correlations, seed):
    """The same with exactly these sample correlations."""
    x = fields(count, np.eye(len(correlations)), seed)
    x -= x.mean(0)
    return np.linalg.solve(np.linalg.cholesky(x.T @ x / count), x.T).T @ np.linalg.cholesky(correlations).T * 20


def expected(difference, low, high):
    """The root mean square of a difference (192, 192) over pairs in two patches from `low` up to `high` apart."""
    distances = np.tile(DISTANCES, (3, 3))
    return np.sqrt((difference[(distances > 0) & (distances >= low) & (distances < high)] ** 2).mean())


def zeros(x):
    return np.zeros(len(x), np.int64)


def compare(a, b, y_a=None, y_b=None):
    return compare_patch_correlation(a, zeros(a) if y_a is None else y_a, b, zeros(b) if y_b is None else y_b)


class TestClosedForm:
    def test_exact_covariances_give_the_exact_error(self):
        a, b, c = covariance(1), covariance(3), covariance(3.5)
        real = np.concatenate([exact_fields(400, b, 1), exact_fields(400, c, 2)])
        found = compare(exact_fields(400, a, 0), real)
        assert found.images == 400
        assert len(found.error) == 7
        for k in range(7):
            assert found.error[k] == pytest.approx(expected(a - b, 1.5 * k, 1.5 * k + 1.5), abs=1e-10)
            assert found.floor[k] == pytest.approx(expected(c - b, 1.5 * k, 1.5 * k + 1.5), abs=1e-10)
        assert found.near == pytest.approx(np.mean(found.error[:2]))
        assert found.far == pytest.approx(np.mean(found.error[3:]))  # the middle of 4.5 to 6 is above 5
        assert found.near_floor == pytest.approx(np.mean(found.floor[:2]))
        assert found.far_floor == pytest.approx(np.mean(found.floor[3:]))
        assert found.excluded == 0
        assert found.pairs == 9 * SIDE**2 * (SIDE**2 - 1) // 2

    def test_random_fields(self):
        a, b = covariance(1), covariance(3)
        found = compare(fields(4000, a, 0), fields(8000, b, 1))
        for k in range(7):
            assert found.error[k] == pytest.approx(expected(a - b, 1.5 * k, 1.5 * k + 1.5), abs=0.02)

    @pytest.mark.parametrize("n", [200, 1000])
    def test_floor_of_normal_values(self, n):
        """The variance of a sample correlation of normal values is (1 - r²)² / n."""
        r = covariance(2)
        found = compare(fields(n, r, 0), fields(2 * n, r, 1))
        for k in range(6):
            wanted = expected((1 - r**2) * np.sqrt(2 / n), 1.5 * k, 1.5 * k + 1.5)
            assert found.floor[k] == pytest.approx(wanted, rel=0.15)
            assert found.error[k] == pytest.approx(wanted, rel=0.15)


class TestKnownFault:
    """Real values fade from one image to another across the columns, or are joined from two halves.

    No fault spares the near end altogether: where far patches disagree, the steps between them do. The fade spreads the
    disagreement over all steps; joined halves put it into one, so pairs across the seam are an error of the near end.
    """

    REACH = 12  # patches: neighbours agree, and so do the ends

    @pytest.fixture(scope="class")
    def real(self):
        return fields(6000, covariance(self.REACH), 0)

    def test_only_the_far_end_rises_where_one_image_fades_into_another(self, real):
        """cos and sin as weights multiply correlations by the cosine of the difference of two columns' angles."""
        turn = np.tile(np.pi / 2 * COLUMNS / (SIDE - 1), 3)
        faulty = np.cos(turn) * real[:2000] + np.sin(turn) * np.roll(real[:2000], 1, axis=0)
        found = compare(faulty, real[2000:])
        assert found.near < 2.2 * found.near_floor
        assert found.far > 8 * found.far_floor
        r = covariance(self.REACH)
        fault = r * (1 - np.cos(turn[:, None] - turn))
        assert found.error[4] == pytest.approx(expected(fault, 6, 7.5), abs=0.02)

    def test_joined_halves_of_twins(self):
        """Values that nothing but a copy far away agrees with: then joined halves spare the near end."""
        x = 20 * np.random.default_rng(0).standard_normal((6000, 3, SIDE, SIDE))
        x[:, :, 4:, 4:] = x[:, :, :4, :4]
        joined = x[:2000].copy()
        joined[..., 4:] = np.roll(joined[..., 4:], 1, axis=0)
        found = compare(joined.reshape(2000, -1), x[2000:].reshape(4000, -1))
        assert found.near == pytest.approx(found.near_floor, rel=0.1)
        assert found.far > 1.5 * found.far_floor
        distances = np.tile(DISTANCES, (3, 3))
        copy = (ROWS + 4)[:, None] == ROWS
        copy = np.kron(np.eye(3), copy & ((COLUMNS + 4)[:, None] == COLUMNS))
        in_bin = (distances >= 4.5) & (distances < 6)
        share = (copy + copy.T)[in_bin].mean()  # of the pairs, whose correlation falls from 1 to 0
        assert found.error[3] == pytest.approx(np.sqrt(share + (1 - share) * 2 / 2000), rel=0.05)

    def test_joined_halves(self, real):
        right = np.tile(COLUMNS >= SIDE // 2, 3)
        faulty = np.where(right, np.roll(real[:2000], 1, axis=0), real[:2000])
        found = compare(faulty, real[2000:])
        assert found.far > 8 * found.far_floor
        r = covariance(self.REACH)
        fault = r * (right[:, None] != right)
        for k in range(7):
            assert found.error[k] == pytest.approx(expected(fault, 1.5 * k, 1.5 * k + 1.5), abs=0.025)


class TestClasses:
    def test_class_means_are_removed(self):
        r = covariance(2)
        a, b = fields(300, r, 0), fields(600, r, 1)
        y_a, y_b = np.arange(300) % 3, np.arange(600) % 3
        means = 50 * np.random.default_rng(2).standard_normal((3, 192))
        plain = compare(a, b, y_a, y_b)
        shifted = compare(a + means[y_a], b - means[y_b], y_a, y_b)
        assert shifted.error == pytest.approx(plain.error, abs=1e-9)
        assert compare(a + means[y_a], b).far > 2 * plain.far  # without classes their means are structure

    def test_all_sets_have_the_same_number_of_each_class(self):
        a, b = fields(100, covariance(2), 0), fields(100, covariance(2), 1)
        y_a = np.repeat([0, 1, 2], [80, 19, 1])
        y_b = np.repeat([0, 1, 2], [20, 40, 40])
        found = compare(a, b, y_a, y_b)
        assert found.images == 10 + 19  # half of 20, all of 19; one image of class 2 is no class
        chosen = np.r_[0:10, 80:99], np.r_[0:10, 20:39, 10:20, 39:58]
        again = compare(
            a[chosen[0]], b[chosen[1]], np.repeat([0, 1], [10, 19]), np.repeat([0, 1, 0, 1], [10, 19, 10, 19])
        )
        assert again == found

    def test_too_few_images(self):
        a, b = fields(LEAST_IMAGES, np.eye(192), 0), fields(2 * LEAST_IMAGES, np.eye(192), 1)
        assert compare(a, b) is not None
        assert compare(a[1:], b) is None
        assert compare(a, b[1:]) is None


class TestHardlyVarying:
    def test_pairs_of_constant_real_patches_are_excluded_and_counted(self):
        a, b = fields(200, covariance(2), 0), fields(400, covariance(2), 1)
        constant = np.tile(ROWS == 0, 3)
        b[:, constant] = 255 + 0.5 * np.random.default_rng(2).choice([-1, 1], size=(400, constant.sum()))
        found = compare(a, b)
        varying = 7 * SIDE
        assert found.pairs == 9 * varying * (varying - 1) // 2
        assert found.pairs + found.excluded == 9 * SIDE**2 * (SIDE**2 - 1) // 2
        # What the generated images hold there does not matter.
        a[:, constant] = 1000 * np.random.default_rng(3).standard_normal((200, constant.sum()))
        assert compare(a, b) == found

    @pytest.mark.parametrize("constant_set", [slice(0, 200), slice(200, 400)])
    def test_constant_in_one_real_set_is_enough(self, constant_set):
        a, b = fields(200, covariance(2), 0), fields(400, covariance(2), 1)
        b[constant_set, 0] = 255
        assert compare(a, b).excluded == 3 * (SIDE**2 - 1)

    def test_generated_images_that_never_vary_have_an_error(self):
        r = covariance(3)
        found = compare(np.full((400, 192), 7.0), exact_fields(800, r, 0)[np.argsort(np.arange(800) % 2)])
        assert found.excluded == 0
        for k in range(7):
            assert found.error[k] == pytest.approx(expected(r, 1.5 * k, 1.5 * k + 1.5), abs=0.06)

    def test_nothing_varies(self):
        found = compare(np.zeros((10, 192)), np.zeros((20, 192)))
        assert (found.distance, found.pairs) == ((), 0)
        assert np.isnan([found.near, found.far, found.near_floor, found.far_floor]).all()
        assert found.as_json()["far"] is None

    def test_a_bin_without_pairs_is_not_listed(self):
        a, b = fields(200, covariance(2), 0), fields(400, covariance(2), 1)
        inner = np.tile((ROWS % 7 > 0) & (COLUMNS % 7 > 0), 3)  # 6 x 6 patches, at most 7.1 apart
        b[:, ~inner] = 255
        found = compare(a, b)
        assert len(found.distance) == len(found.error) == len(found.floor) == 5
        assert found.far == pytest.approx(np.mean(found.error[3:]))


class TestValues:
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_means_of_patches(self, channels):
        images = torch.randint(256, (5, channels, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
        x = images.double().numpy()
        if channels == 1:
            x = x.repeat(3, 1)
        if channels == 4:
            x = x[:, :3] * (x[:, 3:] / 255) + 255 - x[:, 3:]
        wanted = x.reshape(5, 3, SIDE, 4, SIDE, 4).mean((3, 5)).reshape(5, 192)
        found = patch_values(images)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, wanted, atol=1e-4 if channels == 4 else 0)

    def test_a_side_that_8_does_not_divide(self):
        ramp = torch.arange(20, dtype=torch.uint8).expand(1, 3, 20, 20)
        found = patch_values(ramp).reshape(3, SIDE, SIDE)[0, 0]
        assert found[0] == 1  # columns 0 to 2
        assert (np.diff(found) > 0).all()

    def test_images_are_read_once(self):
        images = torch.randint(256, (2 * BATCH + 5, 3, 8, 8)).byte()
        read = []

        def of(i, j):
            read.append((i, j))
            return images[i:j]

        reader = PatchReader(of)
        assert torch.equal(reader(0, BATCH), images[:BATCH])
        values = reader.values(len(images), Processes(torch.device("cpu")))
        np.testing.assert_array_equal(values, patch_values(images))
        assert read == [(0, BATCH), (BATCH, 2 * BATCH), (2 * BATCH, 2 * BATCH + 5)]
