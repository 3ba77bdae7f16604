"""The report before training says what there is, and what is wrong with it."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from sagan.config import DataConfig
from sagan.data import prepare
from sagan.data.summary import summarise


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


@pytest.mark.parametrize(("bits", "told"), [(10, True), (12, True), (14, True), (16, False)])
def test_values_of_fewer_bits_in_16_are_remarked(tree, bits, told):
    files = {}
    for i in range(4):
        values = np.random.default_rng(i).integers(2**bits, size=(8, 8), dtype=np.uint16)
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, "PNG")
        files[f"{i}.png"] = buffer.getvalue()
    for zipped in (False, True):
        assert ("16 bits" in summarise(load(tree(files, zipped=zipped)))) == told


def test_some_dark_images_among_others_are_remarked(tree, png):
    buffer = io.BytesIO()
    Image.new("I;16", (8, 8), 4095).save(buffer, "PNG")
    files = {f"{i}.png": png(i) for i in range(6)} | {"dark.png": buffer.getvalue()}
    assert re.search(r"\b1 of 7 images\b.*\b16 bits\b", summarise(load(tree(files))))
