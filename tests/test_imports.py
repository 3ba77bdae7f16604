"""The direction of imports: from the bottom of the house to its top, no circle and no arrow that runs back up."""

import ast
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "sagan"

ROOMS = (
    "errors version compat text marks templates metric_names formats trained files npz pixels model config parsing "
    "presets device watchdog distributed networks run labels sampling attention_maps attention_effect generation "
    "figures data locate metrics training importers exporters render hub study explorer commands api cli"
).split()
"""The rooms from the bottom up: each imports from itself and from those before it only."""
ENTRANCES = ("__init__", "__main__")
"""What a user imports or starts: it may import every room, and no room imports it."""
ALONE = ("errors", "version", "compat", "text", "marks", "metric_names", "formats", "trained", "model")
"""Rooms that import nothing of ours but themselves and `compat`."""


def modules() -> dict[str, Path]:
    return {
        ".".join(("sagan", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in SOURCE.rglob("*.py")
    }


def imports_of(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a file imports, at its top or inside of a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in known else node.module or "" for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name == "sagan" or name.startswith("sagan.")}


def room_of(module: str) -> str:
    return "__init__" if module == "sagan" else module.split(".")[1]


def arrows() -> dict[str, set[str]]:
    known = modules()
    return {module: imports_of(path, known) for module, path in known.items()}


def test_every_room_has_its_place():
    assert {room_of(module) for module in modules()} == {*ROOMS, *ENTRANCES}


def test_no_arrow_runs_back_up():
    level = {room: i for i, room in enumerate(ROOMS)} | dict.fromkeys(ENTRANCES, len(ROOMS))
    upward = [
        f"{module} -> {imported}"
        for module, found in arrows().items()
        for imported in found
        if room_of(imported) != room_of(module)
        and (
            level[room_of(imported)] >= level[room_of(module)]
            or (room_of(module) in ALONE and room_of(imported) != "compat")
        )
        and not (room_of(module) == "__main__" and room_of(imported) == "cli")
    ]
    assert not upward


def test_no_circle():
    left = arrows()
    while free := [module for module, found in left.items() if not found & (left.keys() - {module})]:
        for module in free:
            del left[module]
    assert not left


def test_the_data_hold_no_plots_and_the_plots_no_run():
    for module, found in arrows().items():
        rooms = {room_of(imported) for imported in found}
        if room_of(module) == "data":
            assert "figures" not in rooms, module
        if room_of(module) == "figures":
            assert not rooms & {"run", "data"}, module


def test_training_does_not_know_where_its_images_lie():
    """Only `data.open` chooses between the packed store and the shards, which are read through one interface."""
    found = arrows()
    for module in ("store", "packed", "images", "batches", "diff", "prefetch", "summary", "packing"):
        assert not any(
            name.startswith(("sagan.data.shards", "sagan.data.open")) for name in found[f"sagan.data.{module}"]
        )
    for module, names in found.items():
        if room_of(module) == "training":
            assert not any(name.startswith(("sagan.data.shards", "sagan.data.packed")) for name in names), module
    for module in ("reader", "order", "listing", "tables", "index", "remote"):
        assert not found[f"sagan.data.shards.{module}"] & {"sagan.data.store", "sagan.data.open", "sagan.data.batches"}


def test_what_takes_long_is_imported_when_it_is_needed():
    code = "import sys, sagan, sagan.cli; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "sagan.cli" in found
    assert not {"matplotlib", "tensorboardX", "sagan.training.loop"} & set(found)
