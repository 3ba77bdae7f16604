"""The command `sagan import`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sagan.commands.arguments import FolderOption
from sagan.config import FileOption, FloatOption, check_ranges
from sagan.importers.networks import ActivationName

CodebaseName = Literal["studiogan", "mmgeneration", "biggan-pytorch", "mimicry", "heykeetae", "tensorflow"]


@dataclass(frozen=True)
class Import:
    """Turn a checkpoint of another codebase (PyTorch-StudioGAN, mmgeneration, ...) into a run.

    The imported networks compute the same function, or the import is refused. docs/import.md lists what is supported.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """File of the generator (the averaged one, if there are two) or of all networks; for TensorFlow, a .npz file."""
    codebase: Annotated[CodebaseName | None, tyro.conf.arg(name="from", help_behavior_hint="")] = None
    """Codebase of the checkpoint; default: detected from the names of its tensors."""
    discriminator: FileOption = None
    """File of the discriminator, if separate; fine-tuning starts better with it."""
    average: FileOption = None
    """File of the generator's moving average, if FILE is the generator as trained."""
    out: FolderOption = None
    """Folder of the new run; default: runs/ and the file's name without its suffix."""
    batch_norm_eps: FloatOption = None
    """Epsilon of the batch norms, if it differs from that of the codebase's SAGAN."""
    inplace_relu: Annotated[bool | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Whether the discriminator's ReLUs work in place, if it differs from the codebase's SAGAN."""
    generator_activation: ActivationName | None = None
    """Activation of StudioGAN's generator (g_act_fn), if it is not ReLU; leaky-relu has a slope of 0.1."""
    discriminator_activation: ActivationName | None = None
    """The same of its discriminator (d_act_fn)."""
    standing_statistics: bool | None = None
    """Whether BigGAN-PyTorch's --mybn holds sums (--accumulate_stats), not running averages; default: by its counts."""

    def __post_init__(self) -> None:
        check_ranges(self, positive=("batch_norm_eps",))


def import_(options: Import) -> None:
    """Run `sagan import`."""
    from sagan.importers.importer import describe_import, import_networks, write_import

    overrides: dict[str, Any] = {}
    if options.batch_norm_eps is not None:
        overrides["batch_norm_eps"] = options.batch_norm_eps
    if options.inplace_relu is not None:
        overrides["shortcut"] = "rectified" if options.inplace_relu else "plain"
    for name in ("generator_activation", "discriminator_activation"):
        if getattr(options, name) is not None:
            overrides[name] = getattr(options, name)
    imported = import_networks(
        options.file,
        codebase=options.codebase,
        discriminator=options.discriminator,
        average=options.average,
        overrides=overrides,
        standing_statistics=options.standing_statistics,
    )
    run = write_import(options.out or Path("runs") / options.file.stem, imported, options.file)
    print(describe_import(imported, run))
