"""Run the command line: find the command, parse its options, call it, and report errors in one line."""

import argparse
import contextlib
import difflib
import io
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tyro

from sagan.commands.attend import Attend, attend
from sagan.commands.data import Data, data
from sagan.commands.evaluate import Evaluate, evaluate
from sagan.commands.explore import Explore, explore
from sagan.commands.export import Export, export
from sagan.commands.import_ import Import, import_
from sagan.commands.interpolate import Interpolate, interpolate
from sagan.commands.list_ import List, list_
from sagan.commands.pack import Pack, pack
from sagan.commands.plot import Plot, plot
from sagan.commands.push import Push, push
from sagan.commands.rates import Rates, rates, with_steps
from sagan.commands.report import Report, report
from sagan.commands.sample import Sample, sample
from sagan.commands.study import Study, study
from sagan.commands.train import Train, default_config, train
from sagan.compat import OptionError, parse_options
from sagan.errors import UserError
from sagan.locate import expand_options
from sagan.presets import PRESETS
from sagan.text import PrintableStream, is_text, printable
from sagan.version import __version__

COMMANDS: dict[str, tuple[type, Callable[[Any], object]]] = {  # name: (options, function)
    "train": (Train, train),
    "sample": (Sample, sample),
    "evaluate": (Evaluate, evaluate),
    "attend": (Attend, attend),
    "plot": (Plot, plot),
    "interpolate": (Interpolate, interpolate),
    "report": (Report, report),
    "explore": (Explore, explore),
    "list": (List, list_),
    "import": (Import, import_),
    "export": (Export, export),
    "push": (Push, push),
    "data": (Data, data),
    "data pack": (Pack, pack),
    "study": (Study, study),
    "study rates": (Rates, rates),
}


def _help() -> str:
    lines = [f"  sagan {name:12}{(options.__doc__ or '').splitlines()[0]}" for name, (options, _) in COMMANDS.items()]
    return "\n".join(
        (
            "Self-Attention GANs: train on a folder of images, sample, evaluate and inspect.",
            "",
            *lines,
            "",
            "sagan COMMAND --help lists the options of a command.",
            "To start: sagan train --preset demo",
        )
    )


NEXT_STEPS = """\
Self-Attention GANs: generate images, see what attention does, train on your own. For a start:
  sagan explore                            a page: generate images, click a pixel, see where it looks
  sagan sample robots64                    images of a trained model that comes with the package
  sagan train --data FOLDER --budget 1h    an hour of training on your images
sagan --help lists all commands; sagan list shows trained models and your runs."""


def _preset(options: type[Train] | type[Study] | type[Rates], arguments: list[str]) -> Train | Study | Rates:
    """Return the default options: those of the preset in the arguments, with the architecture of --from's networks."""
    required = {"study": tyro.MISSING} if options is Study else {}
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", default="small", choices=PRESETS)
    parser.add_argument("--from", dest="start")
    try:
        known, _ = parser.parse_known_args(arguments)
    except argparse.ArgumentError:  # a missing value or an unknown preset, which tyro reports
        return options(**required)
    config = default_config(known.preset, known.start or "")
    if options is Rates:
        config = with_steps(config)
    return options(preset=known.preset, config=config, **required)


def _parse(options: type, name: str, arguments: list[str]) -> Any:
    """Parse the options of a command.

    Raises:
        UserError: an option is unknown, or a value invalid.
    """
    settings: dict[str, Any] = {"config": (tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff)}
    if options in (Train, Study, Rates):
        settings["default"] = _preset(options, arguments)
    try:
        parsed = parse_options(options, prog=f"sagan {name}", args=arguments, **settings)
    except OptionError as error:
        raise UserError(f"{error}; see sagan {name} --help") from None
    if options in (Train, Study, Rates):
        parsed = replace(parsed, given=_given(arguments))
    return expand_options(parsed)


def _given(arguments: list[str]) -> tuple[str, ...]:
    """Return the names of the options in arguments that tyro has accepted: no value of its begins with '--'."""
    names = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    return tuple(dict.fromkeys(name.replace("_", "-") for name in names))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Return the exit status: 0, 2 for an error that the user can fix, 130 if interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks must not end a command
            stream.reconfigure(errors="backslashreplace")
    is_first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    name = " ".join(arguments[:words])
    try:
        for argument in arguments:
            if not is_text(argument):  # no file of a run could record it
                raise UserError(f"{printable(argument)} is not UTF-8: rename the file or folder")
        if not arguments:
            print(NEXT_STEPS)
        elif name in ("-h", "--help"):
            print(_help())
        elif name == "--version":
            print(__version__)
        elif name in COMMANDS:
            options, run = COMMANDS[name]
            try:
                parsed = _parse(options, name, arguments[words:])
            except UserError:
                if not is_first:  # the first of several processes reports it
                    return 2
                raise
            with contextlib.redirect_stdout(PrintableStream(sys.stdout)):  # type: ignore[type-var]
                run(parsed)  # whose prints may repeat names from outside
        else:
            near = difflib.get_close_matches(name, COMMANDS, 1)
            advice = f"did you mean {near[0]}?" if near else "see sagan --help"
            raise UserError(f"{name}: no such command; {advice}")
    except BrokenPipeError:  # the reader of our output closed it, e.g. sagan data ... | head
        # Nor may the interpreter's last flush fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UserError, OSError) as error:  # an OSError carries the system's message
        # A line break keeps the line of another process off that of the first one's progress bar.
        print(("" if is_first else "\n") + f"sagan: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        kept = f": {printable(str(stop))}" if stop.args else ""
        print(f"sagan: stopped{kept}", file=sys.stderr)
        return 130
    return 0
