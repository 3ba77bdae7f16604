"""Names of classes by their number."""

import sys
import types

from sagan.interop.class_names import class_names


def test_numbers_unless_they_are_imagenet_s():
    assert class_names(3) == ("0", "1", "2")
    assert class_names(0) == ()


def test_imagenet_s_names_are_torchvision_s_and_distinct(monkeypatch):
    names = [f"name {i}" for i in range(1000)]
    names[134] = names[517] = "crane"  # as there
    weights = types.SimpleNamespace(DEFAULT=types.SimpleNamespace(meta={"categories": names}))
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    models = types.ModuleType("torchvision.models")
    models.ResNet18_Weights = weights
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    found = class_names(1000)
    assert len(set(found)) == 1000
    assert (found[0], found[134], found[517]) == ("name 0", "crane 134", "crane 517")


def test_without_torchvision_numbers(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    assert class_names(1000)[:2] == ("0", "1")
