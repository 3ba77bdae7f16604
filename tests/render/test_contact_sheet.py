"""The contact sheet shows images of each class, each as it is in the store."""

import numpy as np
import pytest
from PIL import Image

from sagan.config import DataConfig
from sagan.data import prepare
from sagan.render.contact_sheet import contact_sheet


def save(path, number):
    """Write an 8 x 8 image of one colour, made of the number's digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (number % 256, number // 256, 77)).save(path)


@pytest.mark.parametrize("classes", [0, 3, 25])
def test_contact_sheet(tmp_path, classes):
    source = tmp_path / "images"
    for k in range(classes):
        for i in range(1 + k % 9):
            save(source / str(k) / f"{i}.png", 10 * k + i)
    if not classes:
        for i in range(100):
            save(source / f"{i}.png", i)
    config = DataConfig(source=str(source), cache=str(tmp_path / "cache"))
    store = prepare(config, resolution=8, image_channels=3, progress=False)
    page = np.asarray(contact_sheet(store))
    colours = {tuple(colour) for colour in np.unique(page.reshape(-1, 3), axis=0).tolist()}
    shown = sum((number % 256, number // 256, 77) in colours for number in range(260))
    assert shown == {0: 64, 3: 6, 25: sum(min(1 + k % 9, 8) for k in range(20))}[classes]
