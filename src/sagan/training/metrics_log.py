"""The metrics log of a run: lines of JSON, and TensorBoard events with the same values."""

import json
from contextlib import suppress
from typing import Any

from tensorboardX import SummaryWriter

from sagan.errors import UserError
from sagan.files import write_atomically
from sagan.run import Run


class MetricsLog:
    """Appends rows to metrics.jsonl and to TensorBoard events, from step `start` on.

    `rows` holds all rows so far. Rows after `start`, of a run that was killed after its last checkpoint, are dropped:
    those steps are trained again. With `writes` False, in a process that does not write, no file is read or written.
    """

    def __init__(self, run: Run, start: int, *, writes: bool = True):
        self.writes = writes
        self.rows: list[dict[str, Any]] = []
        if not writes:
            return
        self.rows = [row for row in run.metrics() if row["step"] <= start]
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        write_atomically(run.metrics_path, lambda path: path.write_text(text))
        self.path = run.metrics_path
        self.events = SummaryWriter(str(run.events_path), purge_step=start + 1, filename_suffix=f".{start}")
        self.file = open(self.path, "a")  # noqa: SIM115 - closed in close()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log values by name at a step.

        Raises:
            UserError: the disk refuses the write.
        """
        self.rows.append({"step": step, **values})
        if not self.writes:
            return
        try:
            self.file.write(json.dumps(self.rows[-1]) + "\n")
            self.file.flush()
            for name, value in values.items():
                self.events.add_scalar(name, value, step)
        except OSError as error:
            raise UserError(f"{self.path}: could not be written ({error.strerror}); free space, then resume") from error

    def close(self) -> None:
        """Close the files."""
        if not self.writes:
            return
        for file in (self.file, self.events):
            with suppress(OSError):  # a full disk, which `write` has reported
                file.close()
