"""A loaded generator draws the images of `sagan sample`, and says clearly which classes and latents it accepts."""

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

import sagan
from helpers.runs import NAMES, make_run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run").path


@pytest.fixture
def generator(run):
    return sagan.load(run)


@pytest.mark.parametrize(
    ("words", "classes"),
    [
        ("", None),
        ("--classes dogs", "dogs"),
        ("--classes 2 cats", [2, "cats"]),
        ("--classes 1 1", torch.tensor([1, 1])),
        ("--classes 0", np.int64(0)),
    ],
)
def test_the_images_are_those_of_sagan_sample(command, run, generator, tmp_path, words, classes):
    options = "--count 3 --seed 5 --truncation 0.8"
    status, _, errors = command("sample", run, *words.split(), *options.split(), "--out", tmp_path / "a.npz")
    assert status == 0, errors
    generator.train()  # they are drawn in evaluation mode, whatever the mode
    images = generator.sample(3, classes, seed=5, truncation=0.8)
    assert np.array_equal(np.stack([np.asarray(image) for image in images]), np.load(tmp_path / "a.npz")["images"])
    assert generator.training
    assert len({image.tobytes() for image in images}) == len(images)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_modes_and_generators_without_classes(tmp_path, channels, mode):
    generator = sagan.load(make_run(tmp_path / "run", names=(), image_channels=channels).path)
    images = generator.sample(2)
    assert [(type(image), image.mode, image.size) for image in images] == [(Image.Image, mode, (32, 32))] * 2
    z = sagan.draw_latents(2, 8, seed=0)
    assert torch.equal(generator(z), generator(z, torch.zeros(2, dtype=torch.int64)))
    with pytest.raises(ValueError, match="has no classes"):
        generator.sample(2, classes=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": -1}, "count must be 1 or more, got -1"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"truncation": 0}, "truncation must be above 0"),
        ({"classes": 3}, "class 3 does not exist: pass 0 to 2"),
        ({"classes": [0, -1]}, "class -1 does not exist: pass 0 to 2"),
        ({"classes": "birds"}, "no class 'birds'; the classes are 0 cats, 1 dogs, 2 white mice"),
        ({"classes": [[0, 1]]}, r"a name or a number from 0 to 2, got list \[0, 1\]"),
        ({"classes": torch.zeros(2, 2, dtype=torch.int64)}, r"got the shape \(2,\)"),
        ({"classes": 1.5}, "a name or a number from 0 to 2, got float 1.5"),
        ({"classes": []}, "classes is empty"),
    ],
)
def test_options_that_make_no_sense(generator, options, message):
    with pytest.raises(ValueError, match=message):
        generator.sample(**{"count": 1} | options)


def test_a_call_accepts_classes_as_people_write_them(generator):
    z = sagan.draw_latents(2, 8, seed=0)
    assert generator.class_names == NAMES
    wanted = generator(z, torch.tensor([1, 1]))
    for y in (1, "dogs", [1, 1], ["dogs", 1], np.array([1, 1]), torch.tensor(1), torch.tensor([[0.0, 1, 0]] * 2)):
        assert torch.equal(generator(z, y), wanted)
        assert torch.equal(generator(z, y=y), wanted)
    maps = {str(y): sagan.attention_maps(generator, z, y, queries=[(3, 4)])["16.0"] for y in ("dogs", [1, 1], [0, 1])}
    assert torch.equal(maps["dogs"], maps["[1, 1]"])
    assert not torch.equal(maps["dogs"], maps["[0, 1]"])
    assert np.array_equal(sagan.attention_effect(generator, z, 1).on, sagan.sample(generator, z, torch.tensor([1, 1])))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "y is missing: pass classes from 0 to 2, one for each of 2 latents"),
        (3, "class 3 does not exist: pass 0 to 2"),
        (torch.tensor([0, 3]), "class 3 does not exist"),
        (torch.tensor([-1, 0]), "class -1 does not exist"),
        (torch.tensor([0]), "one class for each of 2 latents, got 1"),
        ([0, 1, 2], "one class for each of 2 latents, got 3"),
        (torch.zeros(2, 4), r"weights \(2, 3\), got the shape \(2, 4\)"),
    ],
)
def test_classes_that_do_not_exist_are_named(generator, y, message):
    z = sagan.draw_latents(2, 8, seed=0)
    for call in (generator, lambda z, y: sagan.attention_effect(generator, z, y)):
        with pytest.raises(ValueError, match=message):
            call(z, y)


@pytest.mark.parametrize("z", [torch.zeros(8), torch.zeros(2, 7), [0.0] * 8])
def test_latents_of_another_shape_are_named(generator, z):
    with pytest.raises(ValueError, match=r"z must be latents, a tensor \(N, 8\), got"):
        generator(z, 0)


def test_it_is_a_module_like_before(generator, tmp_path):
    z, y = sagan.draw_latents(2, 8, seed=0), torch.tensor([0, 2])
    wanted = generator(z, y)
    assert isinstance(generator, sagan.Generator)
    for other in (copy.deepcopy(generator), pickle.loads(pickle.dumps(generator))):
        assert torch.equal(other(z, y), wanted)
        assert other.class_names == NAMES
    program = torch.export.export(generator, (z, y), strict=False).module()
    assert torch.allclose(program(z, y), wanted, atol=1e-5)
    again = sagan.load(generator.save_pretrained(tmp_path / "saved"))  # with its names
    assert again.class_names == NAMES
    assert torch.equal(again(z, y), wanted)
