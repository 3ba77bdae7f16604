"""The released code's variables, and its operations written out."""

import numpy as np
import torch
import torch.nn.functional as F

from sagan.importers.importer import import_networks
from sagan.model.config import ModelConfig


def relative(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def variables(channels=8, latent_dim=6, classes=3):
    """Random variables under the released code's names, 128 px."""
    rng = np.random.default_rng(0)
    found = {}

    def conv(name, size, c_in, c_out, bias=True):
        found[f"{name}/w"] = rng.normal(size=(size, size, c_in, c_out)) / (size * c_in**0.5)
        found[f"{name}/u"] = rng.normal(size=(1, c_out))
        if bias:
            found[f"{name}/biases"] = rng.normal(size=c_out) / 5

    def matrix(name, c_in, c_out):
        found[f"{name}/Matrix"] = rng.normal(size=(c_in, c_out)) / c_in**0.5
        found[f"{name}/u"], found[f"{name}/bias"] = rng.normal(size=(1, c_out)), rng.normal(size=c_out)

    def non_local(name, c):
        for part, c_in, c_out in (("theta", c, c // 8), ("phi", c, c // 8), ("g", c, c // 2), ("attn", c // 2, c)):
            conv(f"{name}/sn_conv_{part}", 1, c_in, c_out, bias=False)
        found[f"{name}/sigma_ratio"] = np.array(0.7)

    def norm(name, shape, mean, var):
        found[f"{name}/gamma"], found[f"{name}/beta"] = rng.normal(1, 0.3, shape), rng.normal(0, 0.3, shape)
        moments = shape[-1:] if mean == "moving_mean" else (1, 1, 1, shape[-1])
        found[f"{name}/{mean}"], found[f"{name}/{var}"] = rng.normal(size=moments), rng.uniform(0.5, 1.5, moments)

    widths = [16 * channels, 16 * channels, 8 * channels, 4 * channels, 2 * channels, channels]
    matrix("model/g_snh0", latent_dim, 16 * widths[0])
    for i in range(1, 6):
        c_in, c_out, block = widths[i - 1], widths[i], f"model/g_block{i}"
        conv(f"{block}/snconv1", 3, c_in, c_out)
        conv(f"{block}/snconv2", 3, c_out, c_out)
        conv(f"{block}/snconv3", 1, c_in, c_out)
        norm(f"{block}/cbn_0", (classes, c_in), "mean", "var")
        norm(f"{block}/cbn_1", (classes, c_out), "mean", "var")
    non_local("model/g_non_local", 4 * channels)
    norm("model/g_bn", (channels,), "moving_mean", "moving_variance")
    conv("model/g_snconv_last", 3, channels, 3)
    widths = [3, *(m * channels for m in (1, 2, 4, 8, 16, 16))]
    for i in range(1, 7):
        block = f"model/d_{'optimized_' * (i == 1)}block{i}"
        conv(f"{block}/sn_conv1", 3, widths[i - 1], widths[i])
        conv(f"{block}/sn_conv2", 3, widths[i], widths[i])
        if i < 6:
            conv(f"{block}/sn_conv3", 1, widths[i - 1], widths[i])
    non_local("model/d_non_local", 2 * channels)
    matrix("model/d_sn_linear", 16 * channels, 1)
    found["model/d_embedding/embedding_map"] = rng.normal(size=(classes, 16 * channels)) / channels
    found["model/d_embedding/u"] = rng.normal(size=(1, classes))
    return {name: value.astype(np.float32) for name, value in found.items()}


class Released:
    """The released code's operations written out, in float64 and its own order of axes (N, H, W, C)."""

    def __init__(self, found):
        self.v = {name: torch.from_numpy(value).double() for name, value in found.items()}

    def normed(self, name, w):
        m, u = w.reshape(-1, w.shape[-1]), self.v[f"{name}/u"]
        v = u @ m.T
        v = v / (v.norm() + 1e-12)
        u = v @ m
        u = u / (u.norm() + 1e-12)
        return w / (v @ m @ u.T).squeeze()

    def conv(self, name, x):
        w = self.normed(name, self.v[f"{name}/w"])
        y = F.conv2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), padding=w.shape[0] // 2).permute(0, 2, 3, 1)
        return y + self.v[f"{name}/biases"] if f"{name}/biases" in self.v else y

    def linear(self, name, x):
        return x @ self.normed(name, self.v[f"{name}/Matrix"]) + self.v[f"{name}/bias"]

    def norm(self, name, x, y=None):
        gamma, beta = self.v[f"{name}/gamma"], self.v[f"{name}/beta"]
        mean, var = ("mean", "var") if y is not None else ("moving_mean", "moving_variance")
        if y is not None:
            gamma, beta = gamma[y][:, None, None], beta[y][:, None, None]
        return (x - self.v[f"{name}/{mean}"]) / (self.v[f"{name}/{var}"] + 1e-5).sqrt() * gamma + beta

    def non_local(self, name, x):
        pooled = lambda t: torch.stack([t[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(0)  # noqa: E731
        theta, phi, g = (self.conv(f"{name}/sn_conv_{part}", x) for part in ("theta", "phi", "g"))
        phi, g = pooled(phi).flatten(1, 2), pooled(g).flatten(1, 2)
        attn = torch.softmax(theta.flatten(1, 2) @ phi.transpose(1, 2), dim=-1)
        o = (attn @ g).unflatten(1, x.shape[1:3])
        return x + self.v[f"{name}/sigma_ratio"] * self.conv(f"{name}/sn_conv_attn", o)

    def generator(self, z, y):
        up = lambda t: t.repeat_interleave(2, 1).repeat_interleave(2, 2)  # noqa: E731
        x = self.linear("model/g_snh0", z).reshape(len(z), 4, 4, -1)
        for i in range(1, 6):
            block = f"model/g_block{i}"
            h = self.conv(f"{block}/snconv1", up(self.norm(f"{block}/cbn_0", x, y).relu()))
            h = self.conv(f"{block}/snconv2", self.norm(f"{block}/cbn_1", h, y).relu())
            x = h + self.conv(f"{block}/snconv3", up(x))
            if i == 3:
                x = self.non_local("model/g_non_local", x)
        return self.conv("model/g_snconv_last", self.norm("model/g_bn", x).relu()).tanh()

    def discriminator(self, x, y):
        down = lambda t: (t[:, ::2, ::2] + t[:, 1::2, ::2] + t[:, ::2, 1::2] + t[:, 1::2, 1::2]) / 4  # noqa: E731
        for i in range(1, 7):
            block = f"model/d_{'optimized_' * (i == 1)}block{i}"
            h = self.conv(f"{block}/sn_conv1", x if i == 1 else x.relu())
            h = self.conv(f"{block}/sn_conv2", h.relu())
            x = h + x if i == 6 else down(h) + down(self.conv(f"{block}/sn_conv3", x))
            if i == 2:
                x = self.non_local("model/d_non_local", x)
        h = x.relu().sum((1, 2))
        name = "model/d_embedding"
        embedding = self.normed(name, self.v[f"{name}/embedding_map"].T).T
        return self.linear("model/d_sn_linear", h)[:, 0] + (h * embedding[y]).sum(1)


@torch.no_grad()
def test_tensorflow_s_variables_compute_what_the_released_code_writes(tmp_path):
    found = variables()
    extra = {"global_step": np.array(5), "model/g_snh0/Matrix/Adam": found["model/g_snh0/Matrix"]}
    np.savez(tmp_path / "model.npz", **found, **extra)
    imported = import_networks(tmp_path / "model.npz", dtype=torch.float64)
    assert imported.codebase == "tensorflow"
    assert imported.config.attention_at("generator") == ((32, "self"),)
    assert imported.config.attention_at("discriminator") == ((32, "self"),)
    torch.manual_seed(0)
    z, y, x = torch.randn(2, 6).double(), torch.tensor([2, 0]), torch.rand(2, 3, 128, 128).double() * 2 - 1
    plain = Released(found)
    images = imported.average.eval()(z, y)
    assert relative(images, plain.generator(z, y).permute(0, 3, 1, 2)) < 1.2e-14
    assert relative(imported.discriminator.eval()(x, y), plain.discriminator(x.permute(0, 2, 3, 1), y)) < 3e-14


def test_an_import_is_configured_like_a_run_of_ours_where_it_is_like_one(tmp_path):
    np.savez(tmp_path / "model.npz", **variables())
    config = import_networks(tmp_path / "model.npz").config
    usual = ModelConfig(
        num_classes=3,
        latent_dim=6,
        base_channels=8,
        generator_attention=((32, "self"),),
        discriminator_attention=((32, "self"),),
    )
    assert config == usual
