"""Types of arguments that several commands accept: the name of the value in the help, and which are positional."""

from pathlib import Path
from typing import Annotated

import tyro

RunArgument = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
SourceArgument = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
FileOption = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
FolderOption = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")]
IntOption = Annotated[int | None, tyro.conf.arg(metavar="INT")]
FloatOption = Annotated[float | None, tyro.conf.arg(metavar="FLOAT")]
DeviceOption = Annotated[
    str,
    tyro.conf.arg(
        metavar="DEVICE",
        help="Where the networks run: auto (a CUDA GPU if there is one, else the CPU), cpu, cuda, cuda:1, mps.",
    ),
]
