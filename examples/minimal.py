"""SAGAN in one file: Self-Attention Generative Adversarial Networks (Zhang et al. 2019, arXiv 1805.08318).

    python examples/minimal.py                        # on the package's built-in robots
    python examples/minimal.py images/ --steps 5000   # on a folder of class folders, or of images

Read it next to the paper: (1) to (4) are its equations. "Released code" is the authors', brain-research/
self-attention-gan; where the two differ, a comment says which one is followed. All is in its plain form. The package
computes the same faster: in float64 the weights agree after each of 50 steps (tests/examples/test_minimal.py).
"""

import argparse
import copy
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import nn

# A size for a CPU. The paper: 128 pixels, 64 channels, latents of 128, batches of 256, 1,000,000 steps.
IMAGE_SIZE, BATCH_SIZE = 32, 32
BASE_CHANNELS, LATENT_DIM = 24, 64  # channels: a multiple of 8
GENERATOR_LR, DISCRIMINATOR_LR = 1e-4, 4e-4  # two time scales (TTUR): D learns faster, with one step of D per step of G
BETAS = (0.0, 0.9)  # Adam's, in the paper; the released code's beta2 is 0.999
EMA_DECAY, EMA_START = 0.999, 0

# Channels after each block of D, in base widths ch; backwards: of G, from 4x4 on (128 pixels: the released code's).
WIDTHS = {32: (1, 2, 4, 4), 64: (1, 2, 4, 8, 8), 128: (1, 2, 4, 8, 16, 16)}


class SpectralNorm(nn.Module):
    """Divide a weight by its largest singular value sigma (Miyato et al. 2018): here in G too (section 4.1)."""

    def __init__(self, weight):
        super().__init__()
        self.register_buffer("u", F.normalize(torch.randn(len(weight)), dim=0))

    def forward(self, weight):
        w = weight.flatten(1)  # a matrix W (out, rest)
        with torch.no_grad():  # one power iteration; u and v count as constants in the backward pass
            v = F.normalize(w.T @ self.u, dim=0)  # v = W^T u / |W^T u|
            u = F.normalize(w @ v, dim=0)  # u = W v / |W v|
            if self.training:
                self.u.copy_(u)  # the next step iterates from here: W moves little, so one iteration a step is enough
        return weight / (u @ w @ v)  # W / sigma, sigma = u^T W v


def sn(layer):
    """Initialise a layer (released code: xavier-uniform, biases 0); each use of its weight then divides by sigma."""
    nn.init.xavier_uniform_(layer.weight)
    if getattr(layer, "bias", None) is not None:
        nn.init.zeros_(layer.bias)
    nn.utils.parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight))
    return layer


def conv(c_in, c_out, size, bias=True):
    return sn(nn.Conv2d(c_in, c_out, size, padding=size // 2, bias=bias))


class SelfAttention(nn.Module):
    """Let every location of a feature map draw on every other (section 3): x (N, C, H, W) to the same shape."""

    def __init__(self, c):
        super().__init__()
        # Released code: values of C/2 channels (the paper: C/8), and no biases.
        self.f = conv(c, c // 8, 1, bias=False)  # keys
        self.g = conv(c, c // 8, 1, bias=False)  # queries
        self.h = conv(c, c // 2, 1, bias=False)  # values
        self.v = conv(c // 2, c, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))  # 0: the network first learns from neighbourhoods

    def forward(self, x):
        # Released code: keys and values are max-pooled, so that K = HW/4 of them face Q = HW queries (the paper: HW).
        keys = F.max_pool2d(self.f(x), 2).flatten(2)  # (N, C/8, K)
        queries = self.g(x).flatten(2).transpose(1, 2)  # (N, Q, C/8)
        values = F.max_pool2d(self.h(x), 2).flatten(2).transpose(1, 2)  # (N, K, C/2)
        s = queries @ keys  # s_ij = f(x_i)^T g(x_j), not scaled; row j, column i
        beta = torch.softmax(s, dim=2)  # (1) beta_ji = exp(s_ij) / sum_i exp(s_ij): row j sums to 1
        o = (beta @ values).transpose(1, 2).unflatten(2, x.shape[2:])  # sum_i beta_ji h(x_i)
        return self.gamma * self.v(o) + x  # (2) o_j = v(sum_i beta_ji h(x_i)), (3) y_i = gamma o_i + x_i


class ConditionalBatchNorm(nn.Module):
    """Batch norm with a scale and a shift for each class (de Vries et al. 2017): how G learns of the class."""

    def __init__(self, c, num_classes):
        super().__init__()
        self.norm = nn.BatchNorm2d(c, affine=False)
        self.scale = nn.Parameter(torch.ones(num_classes, c))  # not spectrally normalised, in the released code too
        self.shift = nn.Parameter(torch.zeros(num_classes, c))

    def forward(self, x, y):
        return self.scale[y][:, :, None, None] * self.norm(x) + self.shift[y][:, :, None, None]


class UpBlock(nn.Module):
    """G's residual block, x (N, c_in, H, W) to (N, c_out, 2H, 2W), upsampling by nearest neighbour (released code)."""

    def __init__(self, c_in, c_out, num_classes):
        super().__init__()
        self.bn1, self.conv1 = ConditionalBatchNorm(c_in, num_classes), conv(c_in, c_out, 3)
        self.bn2, self.conv2 = ConditionalBatchNorm(c_out, num_classes), conv(c_out, c_out, 3)
        self.shortcut = conv(c_in, c_out, 1)

    def forward(self, x, y):
        h = self.conv1(F.interpolate(F.relu(self.bn1(x, y)), scale_factor=2))
        h = self.conv2(F.relu(self.bn2(h, y)))
        return h + self.shortcut(F.interpolate(x, scale_factor=2))


class DownBlock(nn.Module):
    """D's residual block, x (N, c_in, H, W) to (N, c_out, H/2, W/2) (released code)."""

    def __init__(self, c_in, c_out, first=False, last=False):
        super().__init__()
        self.first, self.last = first, last
        self.conv1, self.conv2 = conv(c_in, c_out, 3), conv(c_out, c_out, 3)
        self.shortcut = nn.Identity() if last else conv(c_in, c_out, 1)

    def forward(self, x):
        h = self.conv1(x if self.first else F.relu(x))  # the first block sees the image: no ReLU before its convolution
        h = self.conv2(F.relu(h))
        x = self.shortcut(x)
        return h + x if self.last else F.avg_pool2d(h, 2) + F.avg_pool2d(x, 2)  # the last block stays at 4x4


class Generator(nn.Module):
    """z (N, latent_dim), y (N,) to images (N, 3, size, size) in [-1, 1]."""

    def __init__(self, num_classes, size=IMAGE_SIZE, ch=BASE_CHANNELS, latent_dim=LATENT_DIM):
        super().__init__()
        widths = [ch * w for w in reversed(WIDTHS[size])]
        self.stem = sn(nn.Linear(latent_dim, 4 * 4 * widths[0]))
        self.blocks = nn.ModuleList(UpBlock(a, b, num_classes) for a, b in pairwise(widths))
        self.attention_size = min(32, size // 2)  # at 128 pixels feat32, which has the best FID of Table 1
        self.attention = SelfAttention(ch * size // self.attention_size)
        self.bn = nn.BatchNorm2d(widths[-1])
        self.head = conv(widths[-1], 3, 3)

    def forward(self, z, y):
        x = self.stem(z).view(len(z), 4, 4, -1).permute(0, 3, 1, 2)  # channels last, as in TensorFlow
        for block in self.blocks:
            x = block(x, y)
            if x.shape[2] == self.attention_size:
                x = self.attention(x)
        return torch.tanh(self.head(F.relu(self.bn(x))))


class Discriminator(nn.Module):
    """Images x (N, 3, size, size) and classes y (N,) to logits (N,), higher for real ones."""

    def __init__(self, num_classes, size=IMAGE_SIZE, ch=BASE_CHANNELS):
        super().__init__()
        widths = [ch * w for w in WIDTHS[size]]
        first, last = DownBlock(3, widths[0], first=True), DownBlock(*widths[-2:], last=True)
        self.blocks = nn.ModuleList([first, *(DownBlock(a, b) for a, b in pairwise(widths[:-1])), last])
        self.attention_size = min(32, size // 2)
        self.attention = SelfAttention(ch * size // self.attention_size // 2)
        self.head = sn(nn.Linear(widths[-1], 1))
        self.embed = sn(nn.Embedding(num_classes, widths[-1]))

    def forward(self, x, y):
        for block in self.blocks:
            x = block(x)
            if x.shape[2] == self.attention_size:
                x = self.attention(x)
        h = F.relu(x).sum((2, 3))  # sum, not mean, over the 4x4 locations (released code)
        return self.head(h).squeeze(1) + (self.embed(y) * h).sum(1)  # <embed(y), h>: projection (Miyato & Koyama 2018)


def train_step(generator, discriminator, generator_adam, discriminator_adam, real, y_real, z, y):
    """Update D with the latents z[0] and classes y[0], then G with z[1] and y[1]; return both losses."""
    fake = generator(z[0], y[0]).detach()  # no gradient reaches G
    real_logits, fake_logits = discriminator(torch.cat([real, fake]), torch.cat([y_real, y[0]])).chunk(2)
    # (4) L_D = E[max(0, 1 - D(x, y))] + E[max(0, 1 + D(G(z), y))], of one pass, so with one power iteration
    loss_d = F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
    discriminator_adam.zero_grad()
    loss_d.backward()
    discriminator_adam.step()

    loss_g = -discriminator(generator(z[1], y[1]), y[1]).mean()  # (4) L_G = -E[D(G(z), y)]
    generator_adam.zero_grad()
    loss_g.backward()  # also fills D's gradients, which its next update sets to zero
    generator_adam.step()
    return loss_d.item(), loss_g.item()


@torch.no_grad()
def update_average(average, generator, step):
    """Move the average of G (EMA; not in the paper) towards G: images are drawn from it."""
    t = step - EMA_START
    decay = min(EMA_DECAY, (1 + t) / (10 + t)) if t >= 0 else 0.0  # a young average forgets its start faster
    for (name, mean), new in zip(average.state_dict().items(), generator.state_dict().values(), strict=True):
        keep = 0.0 if name.endswith((".u", "num_batches_tracked")) else decay  # a mean of unit vectors is not one
        mean.copy_(keep * mean + (1 - keep) * new)  # batch norm's statistics too, which must fit the weights


def load_images(folder):
    """Images (M, 3, S, S) uint8 and labels (M,) of a folder of class folders, or of images; robots without a folder."""
    if folder is None:
        from sagan.data.builtin.robots import render  # not installed: pass a folder

        images, labels = render(5000, IMAGE_SIZE, 3, seed=0)
    else:
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
        classes = sorted({p.parent for p in files})
        images = [np.array(ImageOps.fit(Image.open(p).convert("RGB"), (IMAGE_SIZE, IMAGE_SIZE))) for p in files]
        images, labels = np.stack(images), np.array([classes.index(p.parent) for p in files])
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Train a small SAGAN and draw a grid of samples: minimal.png.")
    parser.add_argument("folder", nargs="?", type=Path, help="folder of class folders, or of images; default: robots")
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)

    images, labels = load_images(options.folder)
    num_classes = int(labels.max()) + 1
    generator, discriminator = Generator(num_classes).to(device), Discriminator(num_classes).to(device)
    average = copy.deepcopy(generator).eval()
    generator_adam = torch.optim.Adam(generator.parameters(), GENERATOR_LR, BETAS)
    discriminator_adam = torch.optim.Adam(discriminator.parameters(), DISCRIMINATOR_LR, BETAS)

    for step in range(options.steps):
        chosen = torch.randint(len(images), (BATCH_SIZE,))
        real, y_real = images[chosen].to(device) / 127.5 - 1, labels[chosen].to(device)
        z = torch.randn(2, BATCH_SIZE, LATENT_DIM).to(device)
        y = torch.randint(num_classes, (2, BATCH_SIZE)).to(device)  # uniform (released code)
        loss_d, loss_g = train_step(generator, discriminator, generator_adam, discriminator_adam, real, y_real, z, y)
        update_average(average, generator, step)
        if step % 50 == 49:
            gamma = generator.attention.gamma.item()
            print(f"step {step + 1}: loss D {loss_d:.3f} G {loss_g:.3f}, gamma G {gamma:.3f}")

    y = torch.arange(min(num_classes, 10), device=device).repeat_interleave(8)  # a row of 8 images for each class
    samples = average(torch.randn(len(y), LATENT_DIM).to(device), y).detach()
    grid = samples.unflatten(0, (-1, 8)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)  # rows of rows of pixels
    Image.fromarray(((grid + 1) * 127.5).round().byte().cpu().numpy()).save("minimal.png")
    print("samples: minimal.png")


if __name__ == "__main__":
    main()
