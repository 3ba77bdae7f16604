"""The command `sagan evaluate`."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from sagan.commands.arguments import DeviceOption
from sagan.config import CacheOption, EvaluationConfig, FileOption
from sagan.errors import UserError


@dataclass(frozen=True)
class Evaluate:
    """Measure FID and other metrics of a run against its data, or of one folder against another."""

    generated: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_FOLDER")]
    """A run, its generator.safetensors or one of its checkpoints; a name that sagan list shows; or a folder, .zip or
    .npz of images."""
    reference: Annotated[
        str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[REFERENCE]", help_behavior_hint="")
    ] = None
    """Reference images: a folder, .zip or .npz, hf:USER/NAME, robots, twins or digits; or a .npz of statistics (mu,
    sigma); default: the run's own data."""
    out: FileOption = None
    """File for the metrics (.json), with two figures (.png) next to it; default: evaluations/ in the run."""
    device: DeviceOption = "auto"
    cache: CacheOption = ""
    """Folder of image stores and cached features; default: $SAGAN_CACHE, or the user's cache folder."""
    config: EvaluationConfig = field(default_factory=EvaluationConfig)


def evaluate(options: Evaluate) -> None:
    """Run `sagan evaluate`."""
    from sagan.device import enough_memory
    from sagan.distributed import join
    from sagan.metrics.evaluation import default_path, evaluate_together
    from sagan.metrics.result import patch_correlation_path

    if options.out is not None and options.out.suffix != ".json":
        raise UserError(f"--out {options.out}: pass a .json file")
    advice = "try a lower --count or --reference-count, or --device cpu"
    with join(options.device) as processes, enough_memory(advice):
        evaluation = evaluate_together(
            processes, options.generated, options.reference, cache=options.cache, **asdict(options.config)
        )
    if evaluation is None:  # only the first process has the result
        return
    out = options.out or default_path(Path(options.generated), evaluation)
    if out:  # saved before it is printed, which may fail: a closed pipe, say
        evaluation.save(out)
    print(evaluation)
    if out:
        written = [out]
        if evaluation.nearest:
            written.append(out.with_suffix(".png"))
        if evaluation.has_patch_correlation_figure:
            written.append(patch_correlation_path(out))
        print(", ".join(map(str, written)))
