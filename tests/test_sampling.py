import unicodedata

import numpy as np
import pytest
import torch
from scipy import stats

from sagan import Generator, ModelConfig, UserError
from sagan.model.spectral_norm import bake_spectral_norm
from sagan.sampling import (
    SampleSet,
    draw_latents,
    estimate_statistics,
    find_classes,
    sample,
    use_batch_statistics,
)


def test_latents_are_standard_normal():
    z = draw_latents(20_000, 4, seed=3).numpy()
    for column in z.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(z.T) - np.eye(4)).max() < 0.03


def test_truncated_latents_are_the_truncated_normal():
    z = draw_latents(20_000, 2, seed=3, truncation=0.7).numpy()
    assert abs(z).max() <= 0.7
    for column in z.T:
        assert stats.kstest(column, stats.truncnorm(-0.7, 0.7).cdf).pvalue > 1e-3


def test_latents_depend_on_seed_and_row_alone_and_move_smoothly_with_the_truncation():
    assert torch.equal(draw_latents(5, 8, seed=1), draw_latents(100, 8, seed=1)[:5])
    assert not torch.equal(draw_latents(5, 8, seed=1), draw_latents(5, 8, seed=2))
    assert torch.allclose(draw_latents(50, 8, seed=1, truncation=8.0), draw_latents(50, 8, seed=1), atol=1e-3)
    a, b = (draw_latents(50, 8, seed=1, truncation=t) for t in (1.0, 1.01))
    assert (a - b).abs().max() < 0.02


def test_images_are_the_generators_output_in_bytes():
    torch.manual_seed(0)
    generator = Generator(ModelConfig(resolution=32, num_classes=2, latent_dim=8, base_channels=4)).eval()
    z, y = torch.randn(70, 8), torch.arange(70) % 2
    images = sample(generator, z, y)
    assert images.shape == (70, 32, 32, 3)
    assert images.dtype == np.uint8
    wanted = (generator(z, y).detach().double() + 1) * 127.5
    assert np.abs(images - wanted.permute(0, 2, 3, 1).numpy()).max() <= 0.51


def test_a_generator_that_diverged_is_named():
    generator = Generator(ModelConfig(resolution=32, latent_dim=8, base_channels=4)).eval()
    torch.nn.init.constant_(generator.head.bias, float("nan"))
    with pytest.raises(UserError, match=r"generator\b.*\bNaN\b"):
        sample(generator, torch.randn(2, 8), torch.zeros(2, dtype=torch.int64))


class TestBatchNormStatistics:
    @pytest.fixture
    def generator(self):
        torch.manual_seed(0)
        return Generator(ModelConfig(resolution=32, num_classes=3, latent_dim=8, base_channels=4)).eval()

    def test_standing_statistics_are_the_means_over_batches(self, generator):
        """Of the first batch norm, whose input does not depend on the others'."""
        seen, norm = [], generator.blocks[0].bn1
        norm.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].double()))
        state = {name: t.clone() for name, t in generator.state_dict().items()}
        estimate_statistics(generator, batches=3, batch_size=16, seed=5)
        assert norm.running_mean.double() == pytest.approx(np.mean([x.mean((0, 2, 3)) for x in seen], 0), abs=1e-6)
        assert norm.running_var.double() == pytest.approx(np.mean([x.var((0, 2, 3)) for x in seen], 0), rel=1e-5)
        after = generator.state_dict()
        assert not any(module.training for module in generator.modules())
        assert all(torch.equal(t, after[name]) for name, t in state.items() if "running" not in name)
        assert not any(torch.equal(t, after[name]) for name, t in state.items() if "running" in name)

    def test_batch_statistics_are_those_of_training_mode(self, generator):
        z, y = torch.randn(16, 8), torch.arange(16) % 3
        state = {name: t.clone() for name, t in generator.state_dict().items()}
        use_batch_statistics(generator)
        with torch.no_grad():
            images = generator(z, y)
            assert all(torch.equal(t, generator.state_dict()[name]) for name, t in state.items())
            wanted = bake_spectral_norm(generator).train()(z, y)
        assert torch.allclose(images, wanted, atol=1e-5)


@pytest.mark.parametrize(("wanted", "found"), [((), [0, 1, 2]), (("cats", "0"), [2, 0]), (("2",), [2]), (("1",), [1])])
def test_classes_by_name_or_number(wanted, found):
    assert find_classes(wanted, ("dogs", "birds", "cats")) == found


def test_a_name_goes_before_a_number():
    assert find_classes(("1",), ("1", "0")) == [0]


@pytest.mark.parametrize("names", [("dogs",), ()])
def test_an_unknown_class_is_named(names):
    with pytest.raises(UserError, match=r"--classes fish\b"):
        find_classes(("fish",), names)


def test_a_class_is_found_whatever_form_its_name_has():
    """A keyboard may compose an accent that a file system decomposes."""
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert find_classes([composed], ["tea", decomposed]) == find_classes([decomposed], ["tea", composed]) == [1]
    assert find_classes(["1"], ["tea", composed]) == [1]


def test_latents_of_a_class_are_random_access_and_independent_of_other_classes():
    for label in (None, 0, 5):
        for dim in (1, 3, 8):
            rows = draw_latents(50, dim, seed=9, label=label)
            for start in (0, 1, 2, 7, 49):
                assert torch.equal(draw_latents(50 - start, dim, seed=9, label=label, start=start), rows[start:])
    classes = torch.stack([draw_latents(5000, 2, seed=9, label=label) for label in (None, 0, 1, 2)])
    correlation = np.corrcoef(classes.permute(0, 2, 1).reshape(8, -1).numpy())
    assert abs(correlation - np.eye(8)).max() < 0.06
    assert draw_latents(1, 4, seed=0, start=10**15).isfinite().all()  # without computing those before


def test_a_set_of_samples_is_the_same_in_parts():
    for images in (
        SampleSet(3, 5, [4, 1], (7, 8), 0.9),
        SampleSet(3, 5, (), (7,)),
        SampleSet(3, 1, [2, 0], latents=np.arange(12.0).reshape(4, 3)),
    ):
        z, y = images.inputs()
        assert len(z) == len(y) == images.total
        for size in (1, 3, 7):
            parts = [images.inputs(i, i + size) for i in range(0, images.total, size)]
            assert torch.equal(torch.cat([part for part, _ in parts]), z)
            assert torch.equal(torch.cat([part for _, part in parts]), y)
        for i in range(images.total):
            label, seed, k = images.place(i)
            assert y[i] == (label or 0)
            if seed is not None:
                wanted = draw_latents(1, 3, seed=seed, label=label, start=k, truncation=images.truncation)
                assert torch.equal(z[i], wanted[0])
    assert SampleSet(3, 10**30, [0, 1]).total == 2 * 10**30


def test_an_image_does_not_depend_on_the_others_of_its_batch():
    torch.manual_seed(0)
    generator = Generator(ModelConfig(resolution=32, num_classes=3, latent_dim=8, base_channels=4)).eval()
    z, y = torch.randn(40, 8), torch.arange(40) % 3
    images = sample(generator, z, y)
    for chosen in ([0], [39], [3, 1, 2], list(range(17)), list(range(39, -1, -1))):
        assert np.array_equal(sample(generator, z[chosen], y[chosen]), images[chosen])
    weights = torch.nn.functional.one_hot(y, 3).float()
    assert np.abs(sample(generator, z[:5], weights[:5]).astype(int) - images[:5]).max() <= 1
