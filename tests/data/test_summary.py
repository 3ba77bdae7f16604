"""The report before training says what there is, and what is wrong with it."""

import re

import numpy as np
import pytest

from sagan.config import DataConfig
from sagan.data import prepare
from sagan.data.summary import contact_sheet, summarise


def load(source, resolution=8):
    return prepare(DataConfig(source=str(source)), resolution=resolution, image_channels=3, progress=False)


def test_counts_sizes_and_problems(tree, png):
    files = {f"cats/{i}.png": png(i, side=8 + i) for i in range(9)} | {"dogs/1.png": png(1)}
    files |= {f"dogs/bad{i}.png": b"" for i in range(25)} | {"dogs/\x1b[31m.png": b""}
    text = summarise(load(tree(files), 12))
    assert re.search(r"\b10\b.*\b2 classes\b.*\b12 x 12 RGB\b", text)
    assert re.search(r"\b8 x 8\b.*\b16 x 16\b", text)
    assert "cropped" in text
    assert not re.search(r"cropped.*\d", text)
    assert re.search(r"shrunk +4 \(40%\)", text)
    assert re.search(r"enlarged +5 \(50%\)", text)
    assert "cats  9  ########################" in text
    assert "dogs  1  ###\n" in text
    assert re.search(r": 26\b", text)
    assert re.search(r"dogs/bad3\.png: .*\bempty\b", text)
    assert re.search(r"\b6 more\b", text)
    assert re.search(r"\b10 .*\bmirroring\b", text)
    assert "\x1b" not in text


def test_advice(tree, png):
    uneven = summarise(load(tree({f"a/{i}.png": png(i) for i in range(30)} | {"b/1.png": png(99)}, "uneven")))
    assert re.search(r"\bclasses\b.*\b1 to 30\b", uneven)
    splits = summarise(load(tree({"train/1.png": png(1), "val/1.png": png(2)}, "splits")))
    assert re.search(r"\bclasses\b.*\bsplits\b", splits)
    flat = summarise(load(tree({"1.png": png(1)}, "flat"), 16))
    assert re.search(r"\b1\b.*\bno classes\b", flat)
    assert re.search(r"100% .*\benlarged\b", flat)


def test_many_classes_are_shortened(tree, png):
    text = summarise(load(tree({f"{k}/1.png": png(k) for k in range(99)})))
    assert re.search(r"\b69 more classes\b", text)
    assert "  98  1  #" in text


@pytest.mark.parametrize("classes", [0, 3, 25])
def test_contact_sheet(tree, png, classes):
    files = {f"{k}/{i}.png": png(10 * k + i) for k in range(classes) for i in range(1 + k % 9)}
    store = load(tree(files or {f"{i}.png": png(i) for i in range(100)}))
    page = np.asarray(contact_sheet(store))
    colours = {tuple(colour) for colour in np.unique(page.reshape(-1, 3), axis=0).tolist()}
    shown = sum((number % 256, number // 256, 77) in colours for number in range(260))
    assert shown == {0: 64, 3: 6, 25: sum(min(1 + k % 9, 8) for k in range(20))}[classes]
