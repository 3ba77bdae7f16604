"""Count the calls of a training step on the CPU: operations of PyTorch and nodes of its backward pass.

    python benchmarks/calls.py [--preset small] --save calls

Small networks spend a large part of a step in calls. Counts do not depend on the machine's load.
"""

from collections import Counter
from dataclasses import replace

import torch
from torch.profiler import ProfilerActivity, profile

from machine import Table, argument_parser
from peers import OURS, real_batch
from sagan import PRESETS
from sagan.training.step import Trainer

LISTED = 12


def calls(trainer: Trainer, step: int) -> Counter[str]:
    """Return the calls of a step by name, after a step of the same kind."""
    batch = real_batch(OURS, trainer.model, trainer.config.batch_size)
    trainer.train_step(step, lambda _: batch)
    with profile(activities=[ProfilerActivity.CPU]) as events:
        trainer.train_step(step, lambda _: batch)
    return Counter({event.key: event.count for event in events.key_averages()})


def main() -> None:
    parser = argument_parser(__doc__, save=True)
    parser.add_argument("--preset", default="demo", choices=PRESETS)
    options = parser.parse_args()
    preset = PRESETS[options.preset]
    model, training = replace(preset.model, num_classes=5), replace(preset.training, precision="fp32")
    trainer = Trainer(model, training, torch.device("cpu"))
    title = f"Calls of a training step of {options.preset} in fp32"
    table = Table(title, ["step", "calls", "most frequent"], save=options.save)
    for kind, step in (("with penalties", 0), ("plain", 1)):
        counted = calls(trainer, step)
        frequent = ", ".join(f"{key.removeprefix('aten::')} {count}" for key, count in counted.most_common(LISTED))
        table.row(kind, sum(counted.values()), frequent)


if __name__ == "__main__":
    main()
