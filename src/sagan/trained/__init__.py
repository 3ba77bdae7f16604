"""Trained models that come with the package: folders here in the layout of a run, known by name, and never written to.

Each has a README.md, its model card. Weights are float16, measured as they are stored.
"""

from pathlib import Path

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Return the names of the trained models, sorted."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))


def find(path: str | Path) -> Path:
    """Return a path that exists unchanged, and of a trained model's name its folder. Others are unchanged too."""
    path = Path(path)
    if len(path.parts) == 1 and path.name in names() and not path.exists():
        return FOLDER / path.name
    return path


def shipped_name(path: str | Path) -> str | None:
    """Return the name of the trained model that a path leads to, or is in; None if it is none of the package's."""
    path = find(path).absolute()
    return path.relative_to(FOLDER).parts[0] if FOLDER in path.parents else None
