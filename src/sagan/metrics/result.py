"""The result of an evaluation: metrics and what was compared, as a table, HTML, JSON and figures."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from sagan.figures.grid import save
from sagan.files import write_atomically
from sagan.metric_names import HIDDEN_FACTS, join_facts
from sagan.metrics.measurement import Measurement
from sagan.metrics.patch_correlation import FAR_ABOVE, NEAR_BELOW, PatchCorrelation
from sagan.text import html_table, printable, short
from sagan.version import versions


@dataclass(frozen=True)
class Evaluation:
    """The result of `sagan evaluate`: printed, or shown in a notebook, it is a table."""

    generated: dict[str, Any]
    """The generated images: source, count, classes and, for a generator, how it was sampled."""
    reference: dict[str, Any]
    """The images that they were compared with."""
    features: dict[str, Any]
    """The feature network, its checksum and the resizing."""
    metrics: tuple[Measurement, ...]
    classes: dict[str, float]
    """The Frechet distance of each class, by name."""
    remarks: tuple[str, ...]
    """Cautions for the reader of the metrics."""
    options: dict[str, Any]
    """All options, to repeat the evaluation."""
    nearest: Image.Image | None
    """Samples above the reference images nearest to them: the nearest pairs of all, and pairs at random."""
    patch_correlation: PatchCorrelation | None = None
    """Long-range structure; None if it was not measured."""

    def __getitem__(self, name: str) -> float:
        """Return the value of a metric by its name.

        Raises:
            KeyError: it was not measured.
        """
        return {metric.name: metric.value for metric in self.metrics}[name]

    def __str__(self) -> str:
        width = max(len(metric.name) for metric in self.metrics)
        sets = (printable(join_facts(about, HIDDEN_FACTS)) for about in (self.generated, self.reference, self.features))
        lines = ["{}\nagainst {}\nin {}\n".format(*sets)]
        for metric, (value, about) in zip(self.metrics, self._cells(), strict=True):
            lines.append(f"{metric.name:<{width}}  {value:<18}  {about}")
        return "\n".join([*lines, *(f"note: {remark}" for remark in self.remarks)])

    def _repr_html_(self) -> str:
        rows = [(metric.name, *cells) for metric, cells in zip(self.metrics, self._cells(), strict=True)]
        facts = [join_facts(about, HIDDEN_FACTS) for about in (self.generated, self.reference, self.features)]
        sets = html_table(list(zip(("images", "against", "in"), facts, strict=True)))
        notes = html_table([("note", remark) for remark in self.remarks])
        return sets + html_table(rows, head=("metric", "value", "")) + notes

    def _cells(self) -> list[tuple[str, str]]:
        """Return the value of each metric as text, with its spread, and what it is about."""
        spreads = ["" if metric.spread is None else f" ± {short(metric.spread)}" for metric in self.metrics]
        return [(short(m.value) + spread, m.about) for m, spread in zip(self.metrics, spreads, strict=True)]

    def as_json(self) -> dict[str, Any]:
        """Return everything but `nearest` as JSON values."""
        return {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "generated": self.generated,
            "reference": self.reference,
            "features": self.features,
            "figures": [asdict(metric) for metric in self.metrics],
            "classes": self.classes,
            "patch_correlation": self.patch_correlation and self.patch_correlation.as_json(),
            "remarks": self.remarks,
            "options": self.options,
            "versions": versions("torch", "numpy", "pillow"),
        }

    def save(self, path: Path) -> None:
        """Write the JSON and, next to it as .png, `nearest` and the figure of the patch correlation error.

        Raises:
            UserError: the disk refuses.
        """
        text = json.dumps(self.as_json(), indent=2) + "\n"
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        if self.nearest is not None:
            save(self.nearest, path.with_suffix(".png"))
        if self.has_patch_correlation_figure:
            # Imported here because matplotlib takes a second.
            from sagan.figures.curves import save_figure
            from sagan.figures.patch_correlation import draw_patch_correlation

            found = self.patch_correlation
            assert found is not None
            figure = draw_patch_correlation(
                found.distance, {"these images": found.error}, found.floor, near_below=NEAR_BELOW, far_above=FAR_ABOVE
            )
            save_figure(figure, patch_correlation_path(path))

    @property
    def has_patch_correlation_figure(self) -> bool:
        """Whether `save` writes a figure of the patch correlation error."""
        return self.patch_correlation is not None and bool(self.patch_correlation.distance)


def patch_correlation_path(path: Path) -> Path:
    """Return the path of the figure of the patch correlation error that belongs to an evaluation's JSON file."""
    return path.with_name(f"{path.stem}-patch-correlation.png")
