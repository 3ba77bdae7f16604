"""Statistics of reference features (mu, sigma), and samples in a .npz, as `sagan evaluate` reads them."""

import re

import numpy as np
import pytest
import torch

import sagan
from metrics.test_evaluation import Thumbnail, thumbnails, values, write_pictures
from sagan.errors import UserError
from sagan.metrics.frechet import frechet_distance, frechet_distance_to_normal
from sagan.metrics.statistics import read_statistics

D = 48  # dimensions of thumbnails of 32 px


@pytest.fixture
def features(tmp_path, monkeypatch):
    monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))
    torch.jit.script(Thumbnail()).save(str(tmp_path / "thumbnail.pt"))
    return str(tmp_path / "thumbnail.pt")


def save(path, x, dtype=np.float64, **others):
    """Write statistics as pytorch-fid does."""
    arrays = {"mu": x.mean(0).astype(dtype), "sigma": np.cov(x, rowvar=False).astype(dtype)}
    np.savez_compressed(path, **(arrays | others))
    return str(path)


@pytest.mark.parametrize(
    ("count", "dtype", "exact"), [(200, np.float64, 1e-9), (30, np.float64, 1e-6), (200, np.float32, 1e-4)]
)
def test_the_distance_is_that_of_the_features(tmp_path, count, dtype, exact):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(100, D)), rng.normal(0.5, 2, size=(count, D))
    statistics = read_statistics(save(tmp_path / "x.npz", b, dtype))
    found = frechet_distance_to_normal(a, statistics.mean, statistics.root)
    assert found == pytest.approx(frechet_distance(a, b), rel=exact)


def test_a_folder_and_a_run_against_statistics(tmp_path, features, train_options, command):
    folder = write_pictures(tmp_path / "ours", 30)
    real, _ = thumbnails(write_pictures(tmp_path / "theirs", 60, seed=1))
    reference = save(tmp_path / "x.npz", real)
    found = sagan.evaluate(folder, reference, features=features)
    assert values(found).keys() == {"Frechet distance"}
    assert found["Frechet distance"] == pytest.approx(frechet_distance(thumbnails(folder)[0], real), rel=1e-5)
    assert found.reference["dimensions"] == D
    assert command("train", *train_options, "--steps", 2, "--out", tmp_path / "run")[0] == 0
    status, text, _ = command("evaluate", tmp_path / "run", reference, "--features", features, "--count", 8)
    assert status == 0
    assert text.count("Frechet distance; ") == 1  # "allow only the Frechet distance"
    assert len(list((tmp_path / "run" / "evaluations").glob("*"))) == 1


def test_samples_in_a_npz_are_the_samples_in_a_folder(tmp_path, features, train_options, command):
    assert command("train", *train_options, "--steps", 2, "--out", tmp_path / "run")[0] == 0
    assert command("sample", tmp_path / "run", "--count", 6, "--out", tmp_path / "x.npz")[0] == 0
    assert command("sample", tmp_path / "run", "--count", 6, "--out", tmp_path / "x")[0] == 0
    real = write_pictures(tmp_path / "real", 20)
    for reference in (str(real), str(tmp_path / "x.npz")):
        found = sagan.evaluate(tmp_path / "x.npz", reference, features=features)
        assert found.generated["pictures"] == 12
        wanted = sagan.evaluate(tmp_path / "x", reference, features=features)
        assert found["Frechet distance"] == pytest.approx(wanted["Frechet distance"], rel=1e-6, abs=1e-6)
    status, text, _ = command("evaluate", tmp_path / "run", tmp_path / "x.npz", "--features", features, "--count", 12)
    assert status == 0
    assert "coverage" in text


X = np.random.default_rng(0).normal(size=(99, D))
LOPSIDED = np.eye(D) + np.eye(D, k=1)


@pytest.mark.parametrize(
    ("arrays", "pattern"),
    [
        ({"mu": np.full(D, np.nan)}, r"mu\b.*\bnot finite"),
        ({"sigma": np.full((D, D), np.inf)}, r"sigma\b.*\bnot finite"),
        ({"sigma": LOPSIDED}, r"sigma is not symmetric"),
        ({"sigma": -np.eye(D)}, r"sigma\b.*\beigenvalue -1\b"),
        ({"mu": np.zeros(D, np.int64)}, r"mu is int64"),
        ({"sigma": np.eye(D).astype(complex)}, r"sigma is complex128"),
        ({"sigma": np.eye(D, dtype=np.float16)}, r"sigma is float16"),
        ({"mu": np.zeros(D - 1)}, r"\[47\].*\[48, 48\]"),
        ({"mu": np.array(0.0)}, r"\[\].*\[48, 48\]"),
        ({"mu": np.array([None] * D, dtype=object)}, r"mu holds Python objects"),
        ({"sigma": np.zeros((2**12, 2**13 + 1), np.complex128)}, r"sigma\b.*\blimit of 512 MiB"),
    ],
)
def test_what_is_no_distribution_is_refused_in_a_line(tmp_path, arrays, pattern):
    path = save(tmp_path / "x.npz", X, **arrays)
    with pytest.raises(UserError) as error:
        read_statistics(path)
    assert re.search(pattern, str(error.value)), error.value
    assert "\n" not in str(error.value)


def test_other_features_are_named_with_both_dimensions(tmp_path, features, command):
    folder = write_pictures(tmp_path / "ours", 10)
    reference = save(tmp_path / "x.npz", X[:, :20])
    status, _, errors = command("evaluate", folder, reference, "--features", features)
    assert status == 2
    assert errors.count("\n") == 1
    assert re.search(r"\b20 dimensions\b.*\bthumbnail\b.*\b48\b", errors)
    status, _, errors = command("evaluate", reference, folder, "--features", features)
    assert status == 2
    assert re.search(r"statistics\b.*\bnot images", errors)
