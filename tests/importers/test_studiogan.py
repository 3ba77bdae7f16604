"""StudioGAN's unconditional BigGAN has a SAGAN's names, and other inputs."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from sagan.cli import main
from sagan.errors import UserError
from sagan.importers.importer import import_networks
from sagan.run import read_discriminator, read_generator

FILES = Path(__file__).parent / "data" / "studiogan"


@pytest.fixture
def files(tmp_path):
    """The recorded networks with a latent as long as there are classes (5), as in BigGAN's chunks of the latent."""
    g, d = (torch.load(FILES / name, weights_only=False) for name in ("G.pth", "D.pth"))
    for name in ("linear0.weight_orig", "linear0.weight_v"):
        g["state_dict"][name] = g["state_dict"][name][..., :5].contiguous()
    torch.save(g, tmp_path / "G.pth")
    torch.save(d, tmp_path / "D.pth")
    unconditional = {key: t for key, t in d["state_dict"].items() if not key.startswith("embedding.")}
    torch.save(unconditional, tmp_path / "unconditional.pth")
    return tmp_path


def test_a_generator_that_may_be_an_unconditional_biggan_is_refused(files):
    for options in ({}, {"discriminator": files / "unconditional.pth"}, {"average": files / "G.pth"}):
        with pytest.raises(UserError, match=r"G\.pth\b.*\bunconditional BigGAN\b.*\b5 inputs\b.*--discriminator\b"):
            import_networks(files / "G.pth", **options)


def test_a_discriminator_s_embedding_shows_that_there_are_classes(files):
    config = import_networks(files / "G.pth", discriminator=files / "D.pth").config
    assert (config.num_classes, config.latent_dim) == (5, 5)


def test_other_latents_need_no_discriminator():
    config = import_networks(FILES / "G.pth").config
    assert config.num_classes != config.latent_dim


def test_a_layer_without_the_spectral_norm_of_the_others_is_refused(tmp_path):
    state = torch.load(FILES / "G.pth", weights_only=False)["state_dict"]
    key = "blocks.1.0.conv2d1"
    state[f"{key}.weight"] = state.pop(f"{key}.weight_orig")
    del state[f"{key}.weight_u"], state[f"{key}.weight_v"]
    torch.save(state, tmp_path / "G.pth")
    with pytest.raises(UserError, match=r"^[^\n]*G\.pth\b.*blocks\.1\.0\.conv2d1 lacks the spectral norm\b[^\n]*$"):
        import_networks(tmp_path / "G.pth")


def test_a_layer_with_a_spectral_norm_that_the_others_lack_is_refused(tmp_path):
    """heykeetae's attention layers have none."""
    state = torch.load(FILES.parent / "heykeetae" / "7_G.pth")
    key = "attn1.key_conv"
    weight = state[f"{key}.weight_orig"] = state.pop(f"{key}.weight")
    state |= {f"{key}.weight_u": torch.ones(len(weight)), f"{key}.weight_v": torch.ones(weight[0].numel())}
    torch.save(state, tmp_path / "7_G.pth")
    with pytest.raises(UserError, match=r"^[^\n]*7_G\.pth\b.*attn1\.key_conv has a spectral norm\b[^\n]*$"):
        import_networks(tmp_path / "7_G.pth")


class Literal:
    """StudioGAN's networks for 32 px written out in float64, with another activation."""

    def __init__(self, state, activation):
        self.state = {key: t.double() for key, t in state.items()}
        self.activation = activation

    def weight(self, key):
        w, u, v = (self.state[f"{key}.weight_{name}"] for name in ("orig", "u", "v"))
        return w / (u @ w.flatten(1) @ v)

    def conv(self, key, x):
        w = self.weight(key)
        return F.conv2d(x, w, self.state.get(f"{key}.bias"), padding=w.shape[-1] // 2)

    def norm(self, key, x):
        s = self.state
        return F.batch_norm(x, s[f"{key}.running_mean"], s[f"{key}.running_var"], eps=1e-4)

    def class_norm(self, key, x, one_hot):
        gain, bias = ((one_hot @ self.weight(f"{key}.{name}").T)[:, :, None, None] for name in ("gain", "bias"))
        return self.norm(f"{key}.bn", x) * (1 + gain) + bias

    def attention(self, key, x):
        theta, phi, g = (self.conv(f"{key}.conv1x1_{name}", x) for name in ("theta", "phi", "g"))
        phi, g = (F.max_pool2d(t, 2).flatten(2) for t in (phi, g))
        attn = torch.softmax(theta.flatten(2).transpose(1, 2) @ phi, -1)
        o = (g @ attn.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.state[f"{key}.sigma"] * self.conv(f"{key}.conv1x1_attn", o)

    def generator(self, z, y):
        one_hot = F.one_hot(y, 5).double()
        x = F.linear(z, self.weight("linear0"), self.state["linear0.bias"]).unflatten(1, (-1, 4, 4))
        for i in range(4):
            key = f"blocks.{i}.0"
            if f"{key}.sigma" in self.state:
                x = self.attention(key, x)
                continue
            h = self.activation(self.class_norm(f"{key}.bn1", x, one_hot))
            h = self.conv(f"{key}.conv2d1", F.interpolate(h, scale_factor=2))
            h = self.conv(f"{key}.conv2d2", self.activation(self.class_norm(f"{key}.bn2", h, one_hot)))
            x = h + self.conv(f"{key}.conv2d0", F.interpolate(x, scale_factor=2))
        s = self.state
        x = self.norm("bn4", x) * s["bn4.weight"][:, None, None] + s["bn4.bias"][:, None, None]
        return self.conv("conv2d5", self.activation(x)).tanh()

    def discriminator(self, x, y):
        """Activations work in place, so all shortcuts but the first start from an activated input."""
        blocks = 0
        for i in range(5):
            key = f"blocks.{i}.0"
            if f"{key}.sigma" in self.state:
                x = self.attention(key, x)
                continue
            x = x if blocks == 0 else self.activation(x)
            h = self.conv(f"{key}.conv2d2", self.activation(self.conv(f"{key}.conv2d1", x)))
            if f"{key}.conv2d0.weight_orig" in self.state:
                x = self.conv(f"{key}.conv2d0", x)
            x = h + x
            x = F.avg_pool2d(x, 2) if blocks < 2 else x
            blocks += 1
        h = self.activation(x).sum((2, 3))
        logits = F.linear(h, self.weight("linear1"), self.state["linear1.bias"]).squeeze(1)
        return logits + (self.weight("embedding")[y] * h).sum(1)


ACTIVATIONS = {"relu": torch.relu, "leaky-relu": lambda x: F.leaky_relu(x, 0.1), "elu": F.elu}


@torch.no_grad()
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_other_activations_are_exact_if_they_are_named(tmp_path, name, capsys):
    g, d = (torch.load(FILES / f, weights_only=False)["state_dict"] for f in ("G.pth", "D.pth"))
    options = ["--generator-activation", name, "--discriminator-activation", name] if name != "relu" else []
    files = [str(FILES / "G.pth"), "--discriminator", str(FILES / "D.pth")]
    assert main(["import", *files, "--out", str(tmp_path / "run"), *options]) == 0
    assert ("generator_activation relu" in capsys.readouterr().out) == (not options)  # assumed, and told
    activations = {} if name == "relu" else dict.fromkeys(("generator_activation", "discriminator_activation"), name)
    exact = import_networks(FILES / "G.pth", discriminator=FILES / "D.pth", overrides=activations, dtype=torch.float64)
    torch.manual_seed(0)
    z, x, y = torch.randn(3, 20).double(), torch.rand(3, 3, 32, 32).double() * 2 - 1, torch.tensor([4, 0, 2])
    images, logits = Literal(g, ACTIVATIONS[name]).generator(z, y), Literal(d, ACTIVATIONS[name]).discriminator(x, y)
    assert (exact.average.eval()(z, y) - images).abs().max() < 1.2e-14
    assert (exact.discriminator.eval()(x, y) - logits).abs().max() < 3e-14
    assert (read_generator(tmp_path / "run")[0].double().eval()(z, y) - images).abs().max() < 1e-5
    assert (read_discriminator(tmp_path / "run").double().eval()(x, y) - logits).abs().max() < 1e-5
