"""`sagan evaluate` from one end to the other, on real images and real features."""

import json
import re
from importlib import metadata

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import sagan
from sagan.cli import main
from sagan.metrics.frechet import classwise_frechet_distance, frechet_distance
from sagan.metrics.kernel import kernel_distance
from sagan.metrics.patch_correlation import compare_patch_correlation, patch_values
from sagan.run import Run


class Thumbnail(nn.Module):
    """Features that depend on every pixel: the image itself, in 4 x 4 blocks."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(x, 8).flatten(1) / 255


@pytest.fixture
def features(tmp_path):
    torch.jit.script(Thumbnail()).save(str(tmp_path / "thumbnail.pt"))
    return str(tmp_path / "thumbnail.pt")


@pytest.fixture
def run(trained_run):
    return trained_run.path


def write_pictures(folder, count, side=32, seed=0, mode="RGB", classes=("a", "b")):
    rng = np.random.default_rng(seed)
    for i in range(count):
        place = folder / classes[i % len(classes)] if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        shape = (side, side) if mode == "L" else (side, side, len(mode))
        Image.fromarray(rng.integers(256, size=shape, dtype=np.uint8)).save(place / f"{i:03d}.png")
    return folder


def thumbnails(folder):
    paths = sorted(folder.rglob("*.png"))
    x = torch.stack([torch.from_numpy(np.array(Image.open(p).convert("RGB"))) for p in paths]).permute(0, 3, 1, 2)
    return Thumbnail()(x.float()).numpy(), np.array([p.parent.name == "b" for p in paths]).astype(np.int64)


def values(evaluation):
    return {metric.name: metric.value for metric in evaluation.metrics}


class TestFolders:
    @pytest.fixture
    def folders(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SAGAN_CACHE", str(tmp_path / "cache"))
        return write_pictures(tmp_path / "ours", 30), write_pictures(tmp_path / "theirs", 40, seed=1)

    def test_every_figure_is_that_of_the_features(self, folders, features):
        found = sagan.evaluate(folders[0], str(folders[1]), features=features)
        (a, y_a), (b, y_b) = map(thumbnails, folders)
        by_class = classwise_frechet_distance(a, y_a, b, y_b)
        assert found["Frechet distance"] == pytest.approx(frechet_distance(a, b), rel=1e-5)
        assert found["class-wise Frechet distance"] == pytest.approx(np.mean(list(by_class.values())), rel=1e-5)
        assert found.classes == pytest.approx({"a": by_class[0], "b": by_class[1]}, rel=1e-5)
        assert found["kernel distance"] == pytest.approx(kernel_distance(a, b, seed=0)[0], abs=0.01)
        assert {"precision", "recall", "density", "coverage", "authenticity"} < values(found).keys()
        assert "classifier score" not in values(found)  # thumbnails are no classifier
        assert not any("FID" in name for name in values(found))  # that is Inception's

    def test_patch_correlation_is_that_of_the_images(self, folders, features, capsys):
        found = sagan.evaluate(folders[0], str(folders[1]), features=features)
        sets = []
        for folder in folders:
            paths = sorted(folder.rglob("*.png"))
            images = torch.from_numpy(np.stack([np.array(Image.open(path)) for path in paths])).permute(0, 3, 1, 2)
            order = np.random.Generator(np.random.Philox(0)).permutation(len(paths))
            sets += patch_values(images)[order], np.array([path.parent.name == "b" for path in paths])[order]
        wanted = compare_patch_correlation(*sets)
        assert found.patch_correlation == wanted
        assert wanted.images == 20
        assert found["patch correlation error, near"] == wanted.near
        assert found["patch correlation error, far"] == wanted.far
        kept = found.as_json()["patch_correlation"]
        assert (kept["far"], kept["far_floor"]) == (wanted.far, wanted.far_floor)
        assert len(kept["error"]) == len(kept["distance"]) == 7
        again = sagan.evaluate(folders[0], str(folders[1]), features=features)  # features from the cache
        assert again.patch_correlation == wanted
        without = sagan.evaluate(folders[0], str(folders[1]), features=features, patch_correlation=False)
        assert without.as_json()["patch_correlation"] is None
        assert not any("patch" in name for name in values(without))

    def test_a_folder_against_itself(self, folders, features):
        found = values(sagan.evaluate(folders[0], str(folders[0]), features=features))
        assert found["Frechet distance"] == pytest.approx(0, abs=1e-6)
        assert (found["precision"], found["recall"], found["coverage"], found["authenticity"]) == (1, 1, 1, 0)

    def test_the_second_time_reads_features_from_the_cache(self, folders, features, monkeypatch):
        first = sagan.evaluate(folders[0], str(folders[1]), features=features)

        def never(self, x):
            raise AssertionError("the features were computed again")

        monkeypatch.setattr("sagan.metrics.features.CustomFeatures.embed", never)
        assert values(sagan.evaluate(folders[0], str(folders[1]), features=features)) == values(first)
        with pytest.raises(AssertionError):  # other preprocessing, other features
            sagan.evaluate(folders[0], str(folders[1]), features=features, feature_size=64)

    def test_a_module_works_and_is_not_cached(self, folders, tmp_path):
        found = sagan.evaluate(folders[0], str(folders[1]), features=Thumbnail(), neighbours=False)
        assert found.features["network"] == "Thumbnail"
        assert found.nearest is None
        assert not (tmp_path / "cache" / "features").exists()

    def test_the_command_prints_a_table_and_writes_all_that_is_needed_to_repeat_it(
        self, folders, features, tmp_path, capsys
    ):
        out = tmp_path / "figures.json"
        arguments = ["evaluate", str(folders[0]), str(folders[1]), "--features", features, "--count", "20"]
        assert main([*arguments, "--out", str(out)]) == 0
        table = capsys.readouterr().out
        content = json.loads(out.read_text())
        assert all(metric["name"] in table for metric in content["figures"])
        assert content["generated"]["pictures"] == 20
        assert content["generated"]["of"] == 30
        assert sum(content["generated"]["class counts"].values()) == 20
        assert content["reference"]["pictures"] == 40
        assert len(content["features"]["checksum"]) == 64
        assert content["options"]["count"] == 20
        installed = {name: metadata.version(name) for name in ("torch", "numpy", "pillow")}
        assert content["versions"] == {"sagan": sagan.__version__} | installed
        nearest = sagan.evaluate(folders[0], str(folders[1]), features=features, count=20).nearest
        assert np.array_equal(Image.open(tmp_path / "figures.png"), nearest)
        counts = content["generated"]["class counts"].values()
        assert content["patch_correlation"]["images"] == sum(min(count, 10) for count in counts)  # of 40, two halves
        drawn = tmp_path / "figures-patch-correlation.png"
        assert str(drawn) in table
        assert Image.open(drawn).width > 400

    def test_what_cannot_be_compared_is_named(self, folders, features, tmp_path, capsys):
        one = write_pictures(tmp_path / "one", 1, classes=())
        grey = write_pictures(tmp_path / "grey", 10, mode="L", classes=())
        few = write_pictures(tmp_path / "few", 4, classes=())

        def said(*arguments):
            status = main(["evaluate", *map(str, arguments), "--features", features])
            out, errors = capsys.readouterr()
            assert errors.count("\n") == (1 if status else 0), errors
            return status, out + errors

        status, text = said(folders[0])
        assert status == 2
        assert re.search(rf"{re.escape(str(folders[0]))}\b.*\brun\b", text)
        status, text = said(one, folders[1])
        assert status == 2
        assert re.search(r"one\b.*\b1\b.*\b2\b", text)
        status, text = said(folders[0], folders[1], "--resolution", 24)
        assert status == 0
        assert "24 x 24 x 3" in text
        status, text = said(grey, folders[1])
        assert status == 0
        assert re.search(r"\bgrey\b", text)
        status, text = said(few, folders[1])
        assert status == 0
        assert re.search(r"nearest neighbours\b.*\b6\b", text)
        assert re.search(r"Frechet distance\b.*\b4\b", text)
        assert re.search(r"patch correlation\b.*\b10\b", text)
        status, text = said("robots", folders[1])
        assert status == 2
        assert re.search(r"--resolution\b.*\brobots\b", text)

    def test_images_of_several_sizes_want_a_resolution(self, folders, features, tmp_path, capsys):
        mixed = tmp_path / "mixed"
        write_pictures(mixed, 3, side=32, classes=("x",))
        write_pictures(mixed, 2, side=50, classes=("y",))
        assert main(["evaluate", str(mixed), str(folders[1]), "--features", features]) == 2
        assert re.search(r"\b32 x 32\b.*\b50 x 50\b", capsys.readouterr().err)
        assert main(["evaluate", str(mixed), str(folders[1]), "--features", features, "--resolution", "32"]) == 0


class TestRun:
    def test_against_its_own_data(self, run, features, capsys):
        assert main(["evaluate", str(run), "--features", features, "--count", "48"]) == 0
        assert "class-wise Frechet distance" in capsys.readouterr().out
        (path,) = sorted(Run(run).evaluations_path.glob("*.json"))
        content = json.loads(path.read_text())
        assert path.name.startswith("step-00000006-thumbnail-")
        assert path.with_suffix(".png").exists()
        assert path.with_name(f"{path.stem}-patch-correlation.png").exists()
        about = content["generated"]
        assert about["class counts"] == {"cats": 24, "dogs": 24}
        assert (about["step"], about["weights"], about["batch-norm statistics"]) == (6, "averaged (EMA)", "running")
        assert content["reference"]["pictures"] == content["reference"]["of"] == 24

    def test_is_the_figure_of_the_samples(self, run, features):
        found = sagan.evaluate(run, features=features, count=30, truncation=0.8, seed=3, class_shares="uniform")
        z = sagan.draw_latents(30, sagan.load(run).config.latent_dim, seed=3, truncation=0.8)
        images = sagan.sample(sagan.load(run), z, torch.arange(30) % 2)
        a = Thumbnail()(torch.from_numpy(images).permute(0, 3, 1, 2).float()).numpy()
        store = sagan.data.prepare(Run(run).info.config.data, resolution=32, image_channels=3)
        b = Thumbnail()(torch.from_numpy(np.array(store.images)).permute(0, 3, 1, 2).float()).numpy()
        assert found["Frechet distance"] == pytest.approx(frechet_distance(a, b), rel=1e-4)
        order = np.random.Generator(np.random.Philox(0)).permutation(len(store))
        wanted = compare_patch_correlation(
            patch_values(torch.from_numpy(images).permute(0, 3, 1, 2)),
            np.arange(30) % 2,
            patch_values(torch.from_numpy(np.array(store.images)[order]).permute(0, 3, 1, 2)),
            store.labels[order],
        )
        assert found.patch_correlation.error == pytest.approx(wanted.error, rel=1e-9)

    def test_the_same_options_the_same_figures_and_others_others(self, run, features):
        def distance(**options):
            return sagan.evaluate(run, features=features, count=30, **options)["Frechet distance"]

        plain = distance()
        assert distance() == plain
        others = [{"seed": 1}, {"truncation": 0.5}, {"ema": False}, {"batch_norm": "batch"}, {"batch_norm": "standing"}]
        assert all(distance(**option) != plain for option in others)
        assert distance(batch_norm="standing") == distance(batch_norm="standing")

    def test_every_way_to_name_a_generator(self, run, features, tmp_path, capsys):
        by_folder = sagan.evaluate(run, features=features, count=20)
        by_file = sagan.evaluate(run / "generator.safetensors", features=features, count=20)
        newest = Run(run).checkpoints()[-1]
        by_checkpoint = sagan.evaluate(newest, features=features, count=20)
        assert values(by_folder) == values(by_file) == pytest.approx(values(by_checkpoint), rel=1e-4)
        exported = tmp_path / "exported.safetensors"
        exported.write_bytes((run / "generator.safetensors").read_bytes())
        assert main(["evaluate", str(exported), "--features", features]) == 2
        assert re.search(r"exported\.safetensors\b.*\brun\b", capsys.readouterr().err)
        assert main(["evaluate", str(exported), "--ema", "False", "--features", features]) == 2
        assert re.search(r"exported\.safetensors\b.*\baverage\b", capsys.readouterr().err)
        data = Run(run).info.config.data.source
        assert values(sagan.evaluate(exported, data, features=features, count=20)) == values(by_folder)

    def test_what_is_measured_of_a_checkpoint_is_kept_in_its_run_and_of_a_lone_file_nowhere(
        self, run, features, tmp_path, capsys
    ):
        measured = ["--features", features, "--count", "20"]
        before = set(Run(run).evaluations_path.glob("*.json"))
        assert main(["evaluate", str(Run(run).checkpoints()[-1]), *measured]) == 0
        (path,) = set(Run(run).evaluations_path.glob("*.json")) - before
        assert str(path) in capsys.readouterr().out
        exported = tmp_path / "exported.safetensors"
        exported.write_bytes((run / "generator.safetensors").read_bytes())
        assert main(["evaluate", str(exported), Run(run).info.config.data.source, *measured]) == 0
        assert ".json" not in capsys.readouterr().out
        assert list(tmp_path.glob("*.json")) == []

    def test_a_stopped_evaluation_goes_on(self, run, features, monkeypatch):
        monkeypatch.setattr("sagan.metrics.features.CHUNK", 8)
        monkeypatch.setattr("sagan.metrics.features.BATCH", 8)
        wanted = values(sagan.evaluate(run, features=features, count=30))
        embed, calls = sagan.metrics.features.CustomFeatures.embed, []

        def counting(self, x):
            calls.append(len(x))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return embed(self, x)

        monkeypatch.setattr("sagan.metrics.features.CustomFeatures.embed", counting)
        with pytest.raises(KeyboardInterrupt):
            sagan.evaluate(run, features=features, count=30)
        assert values(sagan.evaluate(run, features=features, count=30)) == wanted
        assert calls == [8, 8, 8, 8, 6]  # two parts before the stop, the others after it

    def test_a_generator_that_diverged(self, run, features, capsys):
        from sagan.files import load_tensors, save_tensors

        tensors, metadata = load_tensors(run / "generator.safetensors")
        tensors["head.bias"].fill_(float("nan"))
        save_tensors(run / "generator.safetensors", tensors, metadata)
        assert main(["evaluate", str(run), "--features", features]) == 2
        assert re.search(r"\bgenerator\b.*\bNaN\b", capsys.readouterr().err)
        assert not Run(run).evaluations_path.exists()


def test_with_efficientnet_there_is_a_classifier_score(run):
    pytest.importorskip("efficientnet_lite_pytorch")
    found = sagan.evaluate(run, features="efficientnet-lite0", count=12)
    assert found["classifier score"] >= 1
    assert found.features["resize"] == "bilinear"
    assert "EfficientNet-Lite0" in str(found)
