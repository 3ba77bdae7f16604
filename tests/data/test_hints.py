"""Hints on trees of which part, or the classes, may not be used as was meant."""

import pytest

from helpers.sources import load
from sagan.data.summary import summarise


def tree_of(png, *names):
    return {name: png(number) for number, name in enumerate(names)}


@pytest.mark.parametrize("zipped", [False, True])
def test_loose_images_next_to_a_folder(tree, png, zipped):
    root = tree(tree_of(png, *(f"{i}.png" for i in range(5)), "old/5.png"), zipped=zipped)
    for _ in range(2):  # packed, then opened
        store = load(root)
        (note,) = store.notes
        assert note.startswith("5 of 6 images lie next to the class folder 'old'")
        assert "--labels False" in note
        assert note in summarise(store)
        assert store.refusal == note
        assert zipped or f"name {root / 'old'} " in note


def test_classes_one_or_more_folders_down(tree, png):
    root = tree(tree_of(png, "inner/cats/1.png", "inner/cats/2.png", "inner/dogs/3.png"), "wrap")
    (note,) = load(root).notes
    assert f"(cats, dogs), name {root / 'inner'} as the source" in note
    assert load(root).refusal == note
    assert not load(root, labels=False).refusal
    assert not load(root / "inner").notes
    root = tree(tree_of(png, "a/b/cats/1.png", "a/b/dogs/2.png"), "deep")
    (note,) = load(root).notes
    assert str(root / "a" / "b") in note
    archive = tree(tree_of(png, "wrap/inner/cats/1.png", "wrap/inner/dogs/2.png"), "wrapped", zipped=True)
    (note,) = load(archive).notes
    assert "'inner'" in note
    assert "unpack it and name its folder 'inner' as the source" in note


@pytest.mark.parametrize(
    "names",
    [
        ("a/1.png", "b/2.png"),
        ("1.png", "2.png"),
        ("a/1.png", "a/2.png"),
        ("a/1.png", "a/x/2.png"),
        ("a/x/1.png", "b/x/2.png"),
    ],
)
def test_usual_trees_have_none(tree, png, names):
    store = load(tree(tree_of(png, *names)))
    assert (store.notes, store.refusal) == ((), "")


def test_training_says_it(tmp_path, train_options, image_folder, command):
    for path in list((image_folder / "cats").glob("*.png"))[:5]:
        path.rename(image_folder / path.name)
    status, _, errors = command("train", *train_options, "--steps", 1, "--out", tmp_path / "run")
    assert status == 0
    assert errors.count("note: 5 of 24 images lie next to the class folders") == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((*(f"{i}.png" for i in range(5)), "old/5.png"), "5 of 6 images lie next to the class folder 'old'"),
        (("inner/cats/1.png", "inner/dogs/2.png"), "only one class"),
    ],
)
def test_a_part_or_one_class_is_not_trained_on_by_mistake(tmp_path, train_options, tree, png, command, names, message):
    source = tree(tree_of(png, *names), "mixed")
    options = ["--data", source, *train_options[2:], "--steps", 1]
    for more in (["train"], ["train", "--dry-run"], ["study", "attention"]):
        status, output, errors = command(*more, *options, "--out", tmp_path / "out")
        assert (status, output, errors.count("\n")) == (2, "", 1)
        assert message in errors
        assert "--labels False" in errors
        assert not (tmp_path / "out").exists()
    assert command("train", *options, "--labels", "False", "--out", tmp_path / "out")[0] == 0
