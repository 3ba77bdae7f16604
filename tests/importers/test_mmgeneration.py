"""The configuration in an mmgeneration file: parsed, never run, and used exactly or not at all."""

import re
from pathlib import Path

import pytest
import torch

from sagan.errors import UserError
from sagan.importers.importer import import_networks

FILE = Path(__file__).parent / "data" / "mmgeneration" / "iter_9.pth"


def imported(tmp_path, config):
    checkpoint = torch.load(FILE)
    torch.save(checkpoint | {"meta": {"config": config, "iter": 9}}, tmp_path / "iter.pth")
    return import_networks(tmp_path / "iter.pth")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("model = dict(generator=dict(norm_eps=EPS, sn_eps=1e-8))", r"model\.generator\.norm_eps = EPS"),
        ("model = dict(discriminator=dict(act_cfg=act()))", r"model\.discriminator\.act_cfg = act\(\)"),
        ("model = dict(generator=dict(**common))", r"model\.generator = dict\(\*\*common\)"),
        ("model = dict(generator={**common})", r"model\.generator = \{\*\*common\}"),
        ("model = build()", r"model = build\(\)"),
        ("model = 3", "model = 3"),
        ("model = dict(generator=[1])", r"model\.generator = \[1\], expected a dict"),
        ("model = dict(generator=dict(act_cfg='ReLU'))", r"act_cfg = ReLU, expected a dict"),
        ("model = dict(discriminator=dict(act_cfg=None))", r"act_cfg = None, expected a dict"),
        ("model = dict(discriminator=dict(act_cfg=dict(inplace='yes')))", r"inplace = yes, expected True or False"),
        ("model = dict(generator=dict(init_cfg='studio'))", r"init_cfg = studio, expected a dict"),
        ("model = dict(generator=dict(norm_eps=None))", r"norm_eps = None, expected a finite number"),
        ("model = dict(generator=dict(norm_eps='1e-4'))", r"norm_eps = 1e-4, expected a finite number"),
        ("model = dict(generator=dict(norm_eps=True))", r"norm_eps = True, expected a finite number"),
        ("model = dict(generator=dict(norm_eps=1e999))", r"norm_eps = inf, expected a finite number"),
        ("model = dict(generator=dict(norm_eps=-1e-4))", r"norm_eps = -0\.0001, expected a finite number"),
        ("model = dict(generator=dict(upsampling='bilinear'))", r"model\.generator\.upsampling = bilinear"),
        ("model = dict(generator=dict(attention_cfg=dict(type='Other')))", r"attention_cfg\b.*Other"),
        ("model = dict()\nmodel['generator'] = dict(norm_eps=1)", r"model changed in line 2"),
        ("model = dict()\nmodel.update(generator=dict(norm_eps=1))", r"model changed in line 2"),
        ("if True:\n    model = dict(generator=dict(norm_eps=1))", r"model changed in line 1"),
        ("model = (", "not Python"),
        ("model = dict(generator=dict(norm_eps=X('\\x1b[2J')))", r"norm_eps = X\('\\x1b\[2J'\)"),
    ],
)
def test_what_is_not_understood_is_named(tmp_path, config, message):
    with pytest.raises(UserError, match=r"^[\x20-\x7e]*$") as error:
        imported(tmp_path, config)
    assert re.search(message, str(error.value)), str(error.value)


def test_what_does_not_concern_the_networks_does_not_matter(tmp_path):
    text = "import os\nmodel = dict(type='SAGAN', gan_loss=make(), generator=dict(norm_eps=1e-3), discriminator=None)\n"
    found = imported(tmp_path, text + "data = dict(samples=os.cpu_count())\nrunner = dict(model=model)")
    assert found.batch_norm_eps == 1e-3


def test_the_last_assignment_counts(tmp_path):
    text = "model = dict(generator=dict(norm_eps=1))\nmodel = dict(generator={'norm_eps': 2})"
    assert imported(tmp_path, text).batch_norm_eps == 2
