"""StudioGAN's unconditional BigGAN has a SAGAN's names, and other inputs."""

from pathlib import Path

import pytest
import torch

from sagan.errors import UserError
from sagan.importers.importer import import_networks

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
