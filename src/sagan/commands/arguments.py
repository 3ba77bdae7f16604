"""Types of arguments that several commands accept."""

from pathlib import Path
from typing import Annotated

import tyro

RunArgument = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
SourceArgument = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
FolderOption = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
ClassesOption = Annotated[tuple[str, ...], tyro.conf.arg(metavar="CLASS ...", help_behavior_hint="")]
DeviceOption = Annotated[
    str,
    tyro.conf.arg(
        metavar="DEVICE",
        help="Where the networks run: cpu, cuda, cuda:1, mps, or auto (CUDA if there is a GPU, else the CPU).",
    ),
]
Flag = Annotated[tyro.conf.UseCounterAction[int], tyro.conf.arg(help_behavior_hint="")]
"""An option without a value; not 0 if it is present."""
