"""The command sagan import."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sagan.commands.arguments import FileOption, FloatOption, FolderOption
from sagan.config import check_ranges

CodebaseName = Literal["studiogan", "mmgeneration", "biggan-pytorch", "mimicry", "heykeetae", "tensorflow"]


@dataclass(frozen=True)
class Import:
    """Make a run of another codebase's checkpoint: PyTorch-StudioGAN, mmgeneration, BigGAN-PyTorch, mimicry and others.

    The networks compute what theirs compute, or the import is refused: docs/import.md says what is covered.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The generator's file (the averaged one, if there is one), or that of all networks; of TensorFlow, a .npz."""
    codebase: Annotated[CodebaseName | None, tyro.conf.arg(name="from")] = None
    """Where it comes from; default: recognised by the names of its tensors."""
    discriminator: FileOption = None
    """The discriminator's file, where it has one of its own; fine-tuning starts better with it."""
    average: FileOption = None
    """The file of the generator's moving average, if FILE is the generator as trained."""
    out: FolderOption = None
    """Folder of the new run; default: runs/ and the file's name."""
    batch_norm_eps: FloatOption = None
    """Epsilon of the batch norms, if it was trained with another than its codebase's SAGAN."""
    inplace_relu: bool | None = None
    """Whether the discriminator's ReLUs work in place, if not as in its codebase's SAGAN."""

    def __post_init__(self) -> None:
        check_ranges(self, above_zero=("batch_norm_eps",))


def import_(options: Import) -> None:
    """Runs `sagan import`."""
    from sagan.importers.importer import describe, import_networks, write_import

    given: dict[str, Any] = {}
    if options.batch_norm_eps is not None:
        given["batch_norm_eps"] = options.batch_norm_eps
    if options.inplace_relu is not None:
        given["shortcut"] = "rectified" if options.inplace_relu else "plain"
    imported = import_networks(
        options.file,
        codebase=options.codebase,
        discriminator=options.discriminator,
        average=options.average,
        given=given,
    )
    run = write_import(options.out or Path("runs") / options.file.stem, imported, options.file)
    print(describe(imported, run))
