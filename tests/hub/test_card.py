"""The model card: rendered by a Markdown library, and read."""

import json
import re
from dataclasses import replace

import pytest
import torch
import yaml

from helpers.runs import make_run
from sagan.hub.card import write_card
from sagan.hub.repository import push
from sagan.metrics.features import sha256
from sagan.run import Run

markdown = pytest.importorskip("markdown")
pytest.importorskip("huggingface_hub")

HOSTILE = "<script>alert(1)</script> | `x` ![i](http://a.b/c.png) *cats*"


def evaluate(run, name, value, **generated):
    """A file such as sagan evaluate writes."""
    about = {"path": "/secret/run", "step": 7, "pictures": 2000, "checksum": sha256(run.generator_path), "seed": 0}
    content = {
        "generated": about | generated,
        "reference": {"source": "/secret/place/pets", "pictures": 1234},
        "features": {"network": "Inception", "resize": "bicubic", "checksum": "0"},
        "figures": [{"name": "FID", "value": value, "spread": None, "about": "0 is best"}],
        "classes": {HOSTILE: 3.0},
        "remarks": ["a remark"],
    }
    run.evaluations_path.mkdir(exist_ok=True)
    (run.evaluations_path / f"{name}.json").write_text(json.dumps(content))


def card(run, **options):
    text = write_card(run, "someone/pets", **{"licence": "mit", "samples": "Samples", "attention": False} | options)
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body, markdown.markdown(body, extensions=["tables", "fenced_code"])


def test_front_matter_and_contents(tmp_path):
    run = make_run(tmp_path / "run")
    evaluate(run, "a", 12.5)
    evaluate(run, "b", 99.25, checksum="of other weights")
    (run.evaluations_path / "broken.json").write_text("{")
    front, body, page = card(run, attention=True)
    assert front["license"] == "mit"
    assert front["library_name"] == "sagan"
    assert 'sagan.load("someone/pets")' in body
    assert "0 cats, 1 dogs, 2 white mice" in page
    assert "<td>FID</td>\n<td>12.5</td>\n<td>0 is best</td>" in page
    assert "99.2" not in page  # measured of other weights
    for protocol in (r"\b2,000\b", "seed 0", r"\bpets\b.*\b1,234\b", "Inception", "resize bicubic", "a remark"):
        assert re.search(protocol, page), protocol
    assert page.count("<table>") == 2
    assert '<img alt="Samples" src="samples.png" />' in page
    assert 'src="attend.png"' in page
    assert "sagan train" in page
    assert "secret" not in body


def test_without_classes_evaluations_or_licence(tmp_path):
    run = make_run(tmp_path / "run", names=())
    front, _, page = card(run, licence="unknown")
    assert front["license"] == "unknown"
    assert "<strong>Unknown" in page
    assert "= generator(z)" in page
    assert "not been evaluated" in page
    assert "attend.png" not in page
    assert "Classes" not in page


def test_names_are_no_markup_and_folders_stay_at_home(tmp_path):
    made = make_run(tmp_path / "a", names=(HOSTILE, "b|c"))
    config = made.info.config
    config = replace(config, data=replace(config.data, source="/secret/place/pets", cache="/secret/cache"))
    run = Run.create(tmp_path / "b", replace(made.info, config=config))
    run.generator_path.write_bytes(made.generator_path.read_bytes())
    evaluate(run, "a", 12.5)
    _, body, page = card(run)
    assert "<script" not in page
    assert page.count("<img") == 1
    assert "<em>cats" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | `x` ![i](http:" in page
    assert "secret" not in body
    assert "--data pets" in page


def test_a_licence_stays_in_its_line(tmp_path):
    """As front matter, as text and in the terminal, whatever breaks and controls it contains."""
    run = make_run(tmp_path / "run")
    licence = "mit\ntags: [evil]\n---\n# Heading\x1b[2J\u2028`end`\r<b>"
    one_line = "mit tags: [evil] --- # Heading?[2J `end` <b>"
    front, body, page = card(run, licence=licence)
    assert front["license"] == one_line
    assert front["tags"] == ["gan", "sagan", "self-attention", "image-generation"]
    assert "\x1b" not in body
    assert f"`{one_line.replace('`', chr(39))}`\n" in body
    assert "<h1>Heading" not in page
    assert "<b>" not in page
    printed = []
    push(run.path, "someone/pets", licence=licence, dry_run=True, log=printed.append)
    assert printed[0].endswith(f", licence {one_line}:")


def test_every_code_block_runs_as_python(tmp_path, monkeypatch):
    """What the card tells a reader to type draws images, the repository's name standing for a folder here."""
    monkeypatch.chdir(tmp_path)
    for folder, names in (("someone/pets", ("cats", "dogs")), ("someone/plain", ())):
        run = make_run(tmp_path / folder, names=names)
        body = write_card(run, folder, licence="mit", samples="Samples", attention=False)
        code = body.split("```python\n")[1].split("```")[0]
        found = {}
        exec(code, found)
        assert (8, 3, 32, 32) in [t.shape for t in found.values() if isinstance(t, torch.Tensor)]
