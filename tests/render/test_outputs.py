"""Names of default outputs: whatever two drawings of a run differ in, their files differ too."""

from pathlib import Path

import numpy as np
import pytest

from helpers.runs import make_run
from sagan.render.attention import attention_path
from sagan.render.interpolation import _default_path as interpolation_path
from sagan.render.outputs import class_stems, file_names

NAMES = (
    "a!",
    "a?",
    "both",
    "off",
    "cells",
    "dogs-count4",
    "dogs",
    "x" * 240 + "1",
    "x" * 240 + "2",
    "11",
    "step-00000007",
)


def written(command, *arguments):
    status, output, errors = command(*arguments)
    assert status == 0, errors
    return Path(output.splitlines()[-1])


@pytest.fixture
def folder(tmp_path):
    return make_run(tmp_path / "run", NAMES, checkpoint=True).path


def test_classes_never_share_a_file(command, folder):
    """Nor does a class share one with an option of the same name, another network, or another checkpoint."""
    numbers = [str(number) for number in range(len(NAMES))]
    samples = [written(command, "sample", folder, "--classes", number, "--scale", 1) for number in numbers]
    options = (["--count", 4], ["--classes", "dogs", "--count", 4], ["--scale", 1])
    samples += [written(command, "sample", folder, *words) for words in options]
    samples += [written(command, "sample", folder / "checkpoints" / "step-00000007.safetensors", "--scale", 1)]
    values = {"_network": "generator", "layer": "last", "seed": 0, "_smooth": True, "_own_scale": False}
    maps = [attention_path(folder, values | {"_classes": (number,)}) for number in numbers]
    others = ({}, {"_network": "both"}, {"_smooth": False}, {"_own_scale": True}, {"_classes": ("dogs",), "count": 4})
    maps += [attention_path(folder, values | other) for other in others]
    maps += [attention_path(folder, values | {"_classes": classes}, "attend-off") for classes in ((), ("off",))]
    walks = [interpolation_path(folder, {"_classes": (number,), "seed": 0}) for number in numbers]
    walks += [interpolation_path(folder, {"seed": 7})]
    for paths in (samples, maps, walks):
        names = [path.name.casefold() for path in paths]
        assert len(set(names)) == len(names), names
        assert all(path.parent == folder and len(path.name.encode()) < 200 for path in paths)
    # A class has one file, whether it is named or numbered.
    assert written(command, "attend", folder, "--classes", "a?") == maps[1]
    assert written(command, "interpolate", folder, "--classes", "1") == walks[1]


def test_values_that_look_alike_have_files_of_their_own(command, folder, tmp_path):
    """Numbers that differ in the eighth digit, files of one name in two folders, and a file with other content."""
    paths = [written(command, "sample", folder, "--truncation", value) for value in (0.5, 0.50000001)]
    latents = [tmp_path / where / "z.npy" for where in ("one", "two")]
    for number, path in enumerate(latents):
        path.parent.mkdir()
        np.save(path, np.full((2, 8), number, np.float32))
    commands = ("sample", "interpolate", "attend")
    dogs = ("--classes", "dogs", "--latents")
    paths += [written(command, name, folder, *dogs, path) for name in commands for path in latents]
    np.save(latents[0], np.full((2, 8), 5, np.float32))
    paths += [written(command, name, folder, *dogs, latents[0]) for name in commands]
    assert len(set(paths)) == len(paths)


def test_images_shown_to_the_discriminator_are_told_apart(command, image_folder, tmp_path):
    run = make_run(tmp_path / "run", ("cats", "dogs"), checkpoint=True).path
    other = tmp_path / "other" / "images"
    other.parent.mkdir()
    image_folder.rename(tmp_path / "other-images")
    (tmp_path / "other-images").rename(other)
    (tmp_path / "images").symlink_to(other)
    options = ["--network", "discriminator", "--data"]
    paths = [written(command, "attend", run, *options, source) for source in (other, tmp_path / "images")]
    assert paths[0] != paths[1]
    assert not any("other" in path.name for path in paths)  # no folder of this machine in the name


def test_stems_are_those_of_the_file_names_of_samples():
    names = ("a!", "a?", "dogs")
    assert file_names(names) == ["0-a", "1-a", "2-dogs"]
    assert file_names(["dogs", "cats"]) == ["dogs", "cats"]
    assert file_names(["scale2", "dogs"]) == ["0-scale2", "1-dogs"]


def test_stems_need_no_configuration(folder, tmp_path):
    (tmp_path / "weights").mkdir()
    (folder / "generator.safetensors").rename(tmp_path / "weights" / "generator.safetensors")
    assert class_stems(tmp_path / "weights" / "generator.safetensors", ["a?", "0"]) == ["1-a", "0-a"]
