import torch

from sagan.model.batch_norm import ConditionalBatchNorm2d


def normalised(x, eps=1e-5):
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / (var + eps).sqrt()


def test_scale_and_shift_of_each_class():
    torch.manual_seed(0)
    layer = ConditionalBatchNorm2d(3, 4).double()
    torch.nn.init.normal_(layer.scale)
    torch.nn.init.normal_(layer.shift)
    x, y = torch.randn(5, 3, 4, 4, dtype=torch.float64), torch.tensor([0, 3, 1, 3, 2])
    wanted = torch.stack(
        [
            layer.scale[c][:, None, None] * h + layer.shift[c][:, None, None]
            for h, c in zip(normalised(x), y, strict=True)
        ]
    )
    assert torch.allclose(layer(x, y), wanted)


def test_unconditional_has_one_scale_and_shift():
    torch.manual_seed(0)
    layer = ConditionalBatchNorm2d(3, 0).double()
    torch.nn.init.normal_(layer.scale)
    x = torch.randn(5, 3, 4, 4, dtype=torch.float64)
    assert torch.allclose(layer(x, None), layer.scale[:, None, None] * normalised(x))


def test_evaluation_mode_uses_the_running_statistics():
    torch.manual_seed(0)
    for classes in (0, 2):
        layer = ConditionalBatchNorm2d(3, classes)
        x, y = 2 + 3 * torch.randn(64, 3, 8, 8), torch.zeros(64, dtype=torch.int64)
        for _ in range(100):
            layer(x, y)
        one = layer.eval()(x[:1], y[:1])
        assert torch.allclose(one, layer.train()(x, y)[:1], atol=1e-2)


def test_weights_of_one_class_are_its_label():
    torch.manual_seed(0)
    layer = ConditionalBatchNorm2d(5, 4).eval()
    torch.nn.init.normal_(layer.scale)
    torch.nn.init.normal_(layer.shift)
    x, y = torch.randn(7, 5, 4, 4), torch.tensor([0, 3, 1, 3, 2, 0, 1])
    assert torch.equal(layer(x, torch.nn.functional.one_hot(y, 4).float()), layer(x, y))


def test_weights_mix_scale_and_shift():
    torch.manual_seed(0)
    layer = ConditionalBatchNorm2d(3, 4).double()
    torch.nn.init.normal_(layer.scale)
    torch.nn.init.normal_(layer.shift)
    x, weights = torch.randn(5, 3, 4, 4, dtype=torch.float64), torch.rand(5, 4, dtype=torch.float64)
    scale, shift = (
        torch.stack([sum(w * row for w, row in zip(ws, table, strict=True)) for ws in weights])[:, :, None, None]
        for table in (layer.scale, layer.shift)
    )
    assert torch.allclose(layer(x, weights), scale * normalised(x) + shift)
