import pytest
import torch

from sagan.training.augmentation import AUGMENTS, draw_augmentation
from sagan.training.augmentation import augment as augment_by
from sagan.training.rng import StepRNG


def augment(x, names):
    """Augment by the numbers of a stream from seed 0."""
    return augment_by(x, names, draw_augmentation(names, len(x), x.shape[-1], StepRNG(0)))


@pytest.mark.parametrize("name", AUGMENTS)
def test_differs_by_image_and_is_reproducible(name):
    x = torch.rand(1, 3, 16, 16).expand(6, -1, -1, -1).contiguous()
    once, again = augment(x, [name]), augment(x, [name])
    assert torch.equal(once, again)
    assert len({tuple(image.flatten().tolist()) for image in once}) > 1
    assert once.shape == x.shape


@pytest.mark.parametrize("name", AUGMENTS)
def test_differentiable(name):
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: augment(x, [name]), x)


def test_translation_moves_by_an_eighth_at_most_and_fills_with_zeros():
    x = torch.arange(1.0, 257).view(1, 1, 16, 16).expand(200, -1, -1, -1)
    seen = set()
    for image in augment(x, ["translation"]):
        moved = image[0]
        (row, column) = next((r, c) for r in range(16) for c in range(16) if moved[r, c] == x[0, 0, 8, 8])
        dy, dx = row - 8, column - 8
        wanted = torch.zeros(16, 16)
        for r in range(16):
            for c in range(16):
                if 0 <= r - dy < 16 and 0 <= c - dx < 16:
                    wanted[r, c] = x[0, 0, r - dy, c - dx]
        assert torch.equal(moved, wanted)
        seen.add((dy, dx))
    assert {abs(d) for pair in seen for d in pair} == {0, 1, 2}


def test_cutout_zeroes_a_square_of_half_the_side():
    x = torch.ones(300, 2, 16, 16)
    holes = (augment(x, ["cutout"]) == 0).all(1)
    rows, columns = holes.any(2).sum(1), holes.any(1).sum(1)
    assert torch.equal(holes.sum((1, 2)), rows * columns)  # one rectangle
    assert rows.max() == columns.max() == 8
    assert rows.min() >= 4  # the centre lies in the image, so a quarter is always cut


def test_color_leaves_alpha_alone_and_keeps_within_its_ranges():
    x = torch.rand(50, 4, 8, 8)
    out = augment(x, ["color"])
    assert torch.equal(out[:, 3:], x[:, 3:])
    # Saturation and contrast keep the mean, so brightness is what it moves by: up to 1/2 either way.
    shift = out[:, :3].mean((1, 2, 3)) - x[:, :3].mean((1, 2, 3))
    assert shift.abs().max() <= 0.5
    assert shift.std() > 0.2


def test_no_names_no_change():
    x = torch.rand(2, 3, 8, 8)
    assert augment(x, []) is x
