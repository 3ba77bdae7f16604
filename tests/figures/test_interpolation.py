"""Walks: where they begin and end, how long the latents are along them, and that closed ones close."""

import numpy as np
import pytest
import torch

from sagan import Generator, ModelConfig
from sagan.figures.interpolation import draw_film, draw_walks, slerp, walk_classes, walk_latents
from sagan.sampling import draw_latents

RNG = np.random.default_rng(0)


def angles(z):
    """Between neighbouring rows, in float64."""
    unit = torch.nn.functional.normalize(z.double(), dim=-1)
    return 2 * torch.asin((unit[1:] - unit[:-1]).norm(dim=-1) / 2)


def test_slerp_starts_and_ends_exactly():
    z = draw_latents(200, 128, seed=0)
    a, b = z[::2], z[1::2]
    assert torch.equal(slerp(a, b, torch.zeros(100)), a)
    assert torch.equal(slerp(a, b, torch.ones(100)), b)


def test_slerp_is_the_arc():
    """Against White 2016's formula in float64, on latents of one length."""
    z = torch.nn.functional.normalize(draw_latents(2, 16, seed=0).double(), dim=1) * 4
    omega = torch.acos((z[0] * z[1]).sum() / 16)
    for t in torch.linspace(0, 1, 11, dtype=torch.float64):
        wanted = (torch.sin((1 - t) * omega) * z[0] + torch.sin(t * omega) * z[1]) / torch.sin(omega)
        assert torch.allclose(slerp(z[0], z[1], t), wanted, atol=1e-12)


def test_along_the_arc_lengths_go_evenly_and_the_direction_turns_evenly():
    z = walk_latents(torch.stack([torch.tensor([3.0, 0, 0]), torch.tensor([0, 5.0, 0])]), 9)
    assert torch.allclose(z.norm(dim=1), torch.linspace(3, 5, 9))
    assert torch.allclose(angles(z), torch.full((8,), np.pi / 16, dtype=torch.float64))
    latents = draw_latents(2, 512, seed=1)
    middle, straight = slerp(*latents, torch.tensor(0.5)), latents.mean(0)
    assert 0.95 < middle.norm() / 512**0.5 < 1.05
    assert straight.norm() / 512**0.5 < 0.75  # what slerp is for


@pytest.mark.parametrize("b", [[1.0, 2.0], [2.0, 4.0], [-1.0, -2.0], [0.0, 0.0]])
def test_where_there_is_no_arc_it_goes_straight(b):
    a, b = torch.tensor([1.0, 2.0]), torch.tensor(b)
    for start, end in ((a, b), (b, a)):
        for t in (0.0, 0.25, 1.0):
            assert torch.allclose(slerp(start, end, torch.tensor(t)), start + t * (end - start))
    assert slerp(a, b, torch.tensor(0.5)).dtype == torch.float32


@pytest.mark.parametrize("steps", [2, 5, 9, 13])
def test_an_open_walk_holds_both_ends(steps):
    z = draw_latents(3, 64, seed=0)
    path = walk_latents(z, steps)
    assert path.shape == (steps, 64)
    assert torch.equal(path[0], z[0])
    assert torch.equal(path[-1], z[2])
    if steps % 2:
        assert torch.equal(path[steps // 2], z[1])


def test_walks_of_several_latents_at_once():
    z = draw_latents(6, 16, seed=0).view(3, 2, 16)
    together = walk_latents(z, 7, closed=True)
    for i in range(2):
        assert torch.equal(together[:, i], walk_latents(z[:, i], 7, closed=True))


@pytest.mark.parametrize("points", [2, 3, 5])
def test_a_closed_walk_comes_back_as_evenly_as_it_goes(points):
    z = torch.nn.functional.normalize(draw_latents(points, 64, seed=0), dim=1)
    path = walk_latents(z, 12 * points, closed=True)
    for i in range(points):
        assert torch.equal(path[12 * i], z[i])
    steps = (torch.cat([path[1:], path[:1]]) - path).norm(dim=1)
    assert steps[-1] < 1.05 * steps[-12:-1].max()
    per_leg = steps.view(points, 12)
    assert torch.allclose(per_leg, per_leg.mean(1, keepdim=True).expand(-1, 12), rtol=1e-4)


def test_a_walk_through_classes():
    y = walk_classes([4, 0, 2], 5, 9)
    assert y.shape == (9, 5)
    for step, number in ((0, 4), (4, 0), (8, 2)):
        assert torch.equal(y[step], torch.nn.functional.one_hot(torch.tensor(number), 5).float())
    assert torch.allclose(y[1], torch.tensor([0.25, 0, 0, 0, 0.75]))
    assert torch.allclose(y.sum(1), torch.ones(9))
    assert ((y > 0).sum(1) <= 2).all()
    closed = walk_classes([4, 0, 2], 5, 12, closed=True)
    assert torch.allclose(closed[-1], torch.tensor([0, 0, 0.25, 0, 0.75]))


def test_a_walk_through_one_class_stands_still():
    assert torch.equal(walk_classes([1], 2, 5), torch.tensor([[0.0, 1.0]]).expand(5, -1))
    assert torch.equal(walk_classes([1], 2, 5, closed=True), torch.tensor([[0.0, 1.0]]).expand(5, -1))


def test_pictures_along_a_closed_walk_close():
    """The last image is as near to the first as neighbours are elsewhere."""
    torch.manual_seed(0)
    generator = Generator(ModelConfig(resolution=32, num_classes=3, latent_dim=16, base_channels=4)).eval()
    for norm in (m for m in generator.modules() if getattr(m, "num_classes", 0)):
        torch.nn.init.normal_(norm.scale, 1, 0.5)
    z, y = walk_latents(draw_latents(3, 16, seed=0), 60, closed=True), walk_classes([0, 1, 2], 3, 60, closed=True)
    with torch.no_grad():
        x = generator(z, y)
    steps = (torch.cat([x[1:], x[:1]]) - x).flatten(1).norm(dim=1)
    assert steps.min() > 0
    assert steps[-1] <= steps[:-1].max()


def test_walks_are_rows_and_films_are_frames():
    images = RNG.integers(256, size=(4, 5, 64, 64, 3), dtype=np.uint8)
    page = np.asarray(draw_walks(images))
    np.testing.assert_array_equal(page[12 + 67 * 2 :][:64, 12 + 67 * 3 :][:, :64], images[2, 3])
    frames = draw_film(images, columns=2)
    assert len(frames) == 5
    np.testing.assert_array_equal(np.asarray(frames[3])[12 + 67 :][:64, 12:][:, :64], images[2, 3])
