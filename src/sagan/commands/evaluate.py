"""The command sagan evaluate."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from sagan.commands.arguments import DeviceOption, FileOption
from sagan.config import EvaluationConfig
from sagan.errors import UserError


@dataclass(frozen=True)
class Evaluate:
    """Measure how near generated pictures are to real ones: a run against its data, or two folders."""

    generated: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_FOLDER")]
    """A run, its generator.safetensors or one of its checkpoints; or a folder or .zip of pictures."""
    reference: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="REFERENCE")] = None
    """Pictures to compare with: a folder, a .zip, hf:USER/NAME, robots, twins or digits; default: the run's data."""
    out: FileOption = None
    """Where to write the figures (.json, and two .png beside it); default: evaluations/ in the run."""
    device: DeviceOption = "auto"
    cache: str = ""
    """Folder of picture stores and cached features; empty: $SAGAN_CACHE, or the user's cache folder."""
    config: EvaluationConfig = field(default_factory=EvaluationConfig)


def evaluate(options: Evaluate) -> None:
    """Runs `sagan evaluate`."""
    from sagan.device import enough_memory
    from sagan.distributed import join
    from sagan.metrics.evaluation import default_path, evaluate_together, patch_correlation_path

    if options.out is not None and options.out.suffix != ".json":
        raise UserError(f"--out {options.out}: give a .json file")
    advice = "try a lower --count or --reference-count, or --device cpu"
    with join(options.device) as processes, enough_memory(advice):
        found = evaluate_together(
            processes, options.generated, options.reference, cache=options.cache, **asdict(options.config)
        )
    if found is None:  # another process has it
        return
    out = options.out or default_path(Path(options.generated), found)
    print(found)
    if out:
        found.save(out)
        written = [out]
        if found.nearest:
            written.append(out.with_suffix(".png"))
        if found.has_patch_correlation_figure:
            written.append(patch_correlation_path(out))
        print(", ".join(map(str, written)))
