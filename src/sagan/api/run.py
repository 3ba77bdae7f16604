"""A run in Python: its folder, its log and its generator, with a summary that a notebook shows."""

import base64

from sagan import run as base
from sagan.generation import LoadedGenerator
from sagan.hub.repository import load
from sagan.metric_names import best_distance
from sagan.text import format_count, html_table, short


class Run(base.Run):
    """A run directory, as `sagan.train` returns it; `sagan.Run(path)` opens another one.

    `path` is its folder, `metrics()` its log, `load()` its generator, `info` its configuration and classes. Wherever a
    function accepts a path of a run, it accepts the run.
    """

    def load(self) -> LoadedGenerator:
        """Load the averaged generator of the best checkpoint: `sagan.load`.

        Raises:
            UserError: the run has not reached its first checkpoint.
        """
        return load(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        facts = "; ".join(f"{name} {value}" for name, value in self._describe().items())
        return f"<run {facts}>"

    def _repr_html_(self) -> str:
        table = html_table(list(self._describe().items()))
        if not self.samples_path.is_file():
            return table
        image = base64.b64encode(self.samples_path.read_bytes()).decode()
        return f'{table}<img alt="samples of the run" src="data:image/png;base64,{image}">'

    def _describe(self) -> dict[str, str]:
        """Return the facts of a summary by name."""
        config, names = self.info.config, self.info.class_names
        classes = f", {format_count(len(names), 'class', 'classes')}" if names else ""
        facts = {"path": str(self.path), "images": f"{config.model.resolution} px{classes}"}
        rows = self.metrics()
        done = max([*(row["step"] for row in rows), *map(base.step_of_file, self.checkpoints())], default=0)
        if done:
            total = config.training.steps
            rest = "" if done >= total else f" of {total:,}: sagan.train(resume={str(self.path)!r}) continues it"
            facts["steps"] = f"{done:,}{rest}"
        if best := best_distance(rows):
            facts["best distance"] = f"{short(best[0])} at step {best[1]:,}"
        return facts
