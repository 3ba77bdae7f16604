"""What a training run will do, said before it starts, and what to do with it, said when it is over."""

import shlex
from pathlib import Path

from sagan.config import Config
from sagan.data import Store
from sagan.device import choose_precision, enough_memory
from sagan.distributed import Processes
from sagan.metric_names import best_distance
from sagan.model.build import count_parameters
from sagan.run import Run
from sagan.text import format_count, format_time, printable, short
from sagan.training.speed import Speed


def describe_plan(
    path: Path, config: Config, store: Store, processes: Processes, *, done: int = 0, speed: Speed | None = None
) -> str:
    """Describe a run before it is trained, in lines of a name and its facts.

    Args:
        path: folder of the run.
        config: with the number of classes.
        store: its images.
        processes: that will train.
        done: steps that a resumed run has done.
        speed: measured in a trial; None: it will be told after the first steps.

    Raises:
        UserError: the networks are too large.
    """
    training, output = config.training, config.output
    classes = format_count(store.num_classes, "class", "classes") if store.num_classes else "no classes"
    with enough_memory():  # sizes may overflow
        generator, discriminator = count_parameters(config.model)
    precision = choose_precision(training.precision, processes.device).name
    device = processes.device if processes.count == 1 else f"{processes.count} x {processes.device.type}"
    left = f", {done:,} of them done" if done else ""
    lines = {
        "data": f"{len(store):,} images, {classes}, {config.model.resolution} px, from {printable(config.data.source)}",
        "networks": f"generator {generator:,} parameters, discriminator {discriminator:,}",
        "training": f"{training.steps:,} steps of {training.batch_size} images{left}; {precision} on {device}",
        "speed": "measured over the first steps, and told then",
        "run": f"{path}; samples every {output.sample_every:,} steps in {path / 'samples'}",
    }
    if speed:
        lines["speed"] = speed.describe(training.batch_size)
        every = output.evaluate_every if speed.evaluation else 0
        total = speed.duration(training.steps - done, every)
        evaluations = f", with evaluations of {format_time(speed.evaluation)}" if every else ", without evaluations"
        lines["speed"] += f"; about {format_time(total)} to train{evaluations}"
    return "\n".join(f"{name:<10}{facts}" for name, facts in lines.items())


def describe_result(run: Run, step: int, figure: Path | None) -> str:
    """Describe a complete run: its best step, its files and the next commands.

    Args:
        run: the run.
        step: of generator.safetensors.
        figure: of attention maps; None: the run has none.
    """
    steps = run.info.config.training.steps
    if best := best_distance(run.metrics()):
        distance, best_step = best
        lines = [f"done: {steps:,} steps; the best is step {best_step:,}, at distance {short(distance)}"]
    else:
        lines = [f"done: {steps:,} steps, never evaluated"]
    path = shlex.quote(str(run.path))
    of_step = f" (step {step:,})" if step == steps else f" (step {step:,}, the best of {steps:,})"
    files = {"generator": run.generator_path, "samples": run.samples_path, "attention": figure, "curve": run.curve_path}
    for name, file in files.items():
        if file is not None and file.exists():
            lines.append(f"  {name:<10} {file}" + (of_step if file != run.curve_path else ""))
    lines.append("next:")
    commands = [f"sample {path} --count 16", f"evaluate {path}", f"report {path}"]
    if figure is not None:
        commands.insert(2, f"attend {path} --off")
    lines += [f"  sagan {command}" for command in (*commands, f"train --resume {path} --steps {2 * steps}")]
    return "\n".join(lines)
