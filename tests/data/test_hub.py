"""Data sets of the Hugging Face Hub."""

import socket
import sys
import time

import numpy as np
import pytest

from helpers.sources import check_skipped, load
from sagan.compat import few_seconds_of_hub
from sagan.data.sources import open_source
from sagan.errors import UserError


class TestHub:
    @pytest.fixture
    def hub(self, tree, png, tmp_path, monkeypatch):
        """A data set of four images as from the Hub, once with class names and once with numbers."""
        datasets = pytest.importorskip("datasets")
        # Set where they are read, and put back: the environment's HF_HUB_OFFLINE counts once, at the first import.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")

        def make(feature, split="train", label=(1, 0, 1, 0)):
            images = [{"bytes": png(i), "path": None} for i in range(3)] + [{"bytes": b"text", "path": None}]
            features = {"note": datasets.Value("string"), "img": datasets.Image(), "label": feature}
            data = {"note": list("abcd"), "img": images, "label": list(label)}
            table = datasets.Dataset.from_dict(data, features=datasets.Features(features))
            (tmp_path / "set" / "data").mkdir(parents=True)
            table.to_parquet(tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet")
            return f"hf:{tmp_path / 'set'}"

        make.datasets = datasets
        return make

    def test_named_classes(self, hub):
        name = hub(hub.datasets.ClassLabel(names=["cat", "dog"]))
        store = load(name)
        assert store.class_names == ("cat", "dog")
        assert store.labels.tolist() == [1, 0, 1]
        np.testing.assert_array_equal(store.images[:, 0, 0], [[0, 0, 77], [1, 0, 77], [2, 0, 77]])
        check_skipped(store, {"00000003": r"\bformat\b"})
        assert load(name, labels=False).class_names == ()

    def test_numbered_classes_and_splits(self, hub):
        name = hub(hub.datasets.Value("int64"), split="test")
        store = load(f"{name}@test")
        assert store.class_names == ("0", "1")
        with pytest.raises(UserError, match=r"@nonsense\b.*\bsplit\b"):
            load(f"{name}@nonsense")

    def test_texts_as_classes(self, hub):
        name = hub(hub.datasets.Value("string"), label=["dog", "cat", "dog", "cat"])
        store = load(name)
        assert store.class_names == ("cat", "dog")
        assert store.labels.tolist() == [1, 0, 1]
        assert load(name, labels=False).class_names == ()

    def test_captions_are_no_classes_but_listed(self, hub):
        store = load(hub(hub.datasets.Value("string"), label=["one dog", "two cats", "a dog", "no cat"]))
        assert store.class_names == ()
        assert (
            "note (string), img (Image), label (string)"
            in {one.name: one.reason for one in store.skipped}[store.source]
        )

    def test_no_network(self, hub):
        with pytest.raises(UserError, match="hf:nobody/nothing") as caught:
            load("hf:nobody/nothing")
        assert "\n" not in str(caught.value)

    def test_a_hub_that_never_answers_takes_seconds(self, monkeypatch):
        """`datasets` alone tries each of several files six times, each until a time-out of its own."""
        constants = pytest.importorskip("huggingface_hub").constants
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
            since = time.monotonic()
            with few_seconds_of_hub(0.5):
                assert constants.HF_HUB_OFFLINE
            assert not constants.HF_HUB_OFFLINE
            with pytest.raises(UserError, match="hf:nobody/nothing"):
                open_source("hf:nobody/nothing", True)
        assert time.monotonic() - since < 20  # 30 without it

    def test_not_installed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(UserError, match=r"pip install 'sagan-torch\[hub\]'"):
            open_source("hf:a/b", True)


@pytest.mark.parametrize("name", ["hf:..", "hf:../..", "hf:", "hf:.", "hf:a b", "hf:x/..", "hf:/nowhere", "hf:a/b/c"])
def test_what_is_no_name_of_the_hub_is_refused_before_anything_is_loaded(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"\bhf:USER/NAME\b"):
        load(name)
