"""All cells of examples/attention.ipynb run, offline, and give what is stored in the file."""

import ast
import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FILE = Path(__file__).parents[2] / "examples" / "attention.ipynb"
CELLS = json.loads(FILE.read_text(encoding="utf-8"))["cells"]


def run(source, space):
    """Run a cell as a notebook does: return what it prints, and the value of its last line."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) and "print" not in ast.dump(body[-1]) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), str(FILE), "exec"), space)
        value = last and eval(compile(ast.Expression(last.value), str(FILE), "eval"), space)
    return printed.getvalue(), value


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", text)]


def test_the_lesson_runs_and_its_outputs_are_of_this_version(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "lesson"}
    shown = 0
    for cell in CELLS:
        if cell["cell_type"] != "code":
            continue
        printed, value = run("".join(cell["source"]), space)
        stored = "".join("".join(out["text"]) for out in cell["outputs"] if out["output_type"] == "stream")
        assert re.sub(r"\d", "", printed) == re.sub(r"\d", "", stored)
        assert numbers(printed) == pytest.approx(numbers(stored), rel=0.02, abs=0.11)
        images = [out["data"]["image/png"] for out in cell["outputs"] if "image/png" in out.get("data", {})]
        assert len(images) == (value is not None)
        if value is not None:
            data = value._repr_png_()
            assert np.asarray(Image.open(io.BytesIO(data))).std() > 0
            shown += 1
    assert shown == 6
    assert list(tmp_path.iterdir()) == []
    assert space["by_class"].keys() == set(space["generator"].class_names)


def test_the_file_is_small_and_its_answers_follow_its_exercises():
    assert FILE.stat().st_size < 500_000
    text = "\n".join("".join(cell["source"]) for cell in CELLS)
    assert text.count("<details>") == text.count("# Answer") == 3
    assert text.index("## Exercises") < text.index("<details>")
