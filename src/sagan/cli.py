"""The command line: finds the command, reads its options, runs it; errors become one line and an exit status."""

import argparse
import contextlib
import difflib
import io
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from typing import Any

import tyro

from sagan.commands.attend import Attend, attend
from sagan.commands.data import Data, data
from sagan.commands.evaluate import Evaluate, evaluate
from sagan.commands.explore import Explore, explore
from sagan.commands.export import Export, export
from sagan.commands.import_ import Import, import_
from sagan.commands.interpolate import Interpolate, interpolate
from sagan.commands.pack import Pack, pack
from sagan.commands.plot import Plot, plot
from sagan.commands.push import Push, push
from sagan.commands.report import Report, report
from sagan.commands.sample import Sample, sample
from sagan.commands.study import Study, study
from sagan.commands.train import Train, train
from sagan.errors import UserError
from sagan.presets import PRESETS
from sagan.text import is_text, printable

# name: (its options, what runs it)
COMMANDS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "train": (Train, train),
    "sample": (Sample, sample),
    "evaluate": (Evaluate, evaluate),
    "attend": (Attend, attend),
    "plot": (Plot, plot),
    "interpolate": (Interpolate, interpolate),
    "report": (Report, report),
    "explore": (Explore, explore),
    "import": (Import, import_),
    "export": (Export, export),
    "push": (Push, push),
    "data": (Data, data),
    "data pack": (Pack, pack),
    "study": (Study, study),
}


def _help() -> str:
    lines = [f"  sagan {name:12}{(options.__doc__ or '').splitlines()[0]}" for name, (options, _) in COMMANDS.items()]
    return "\n".join(
        (
            "Self-Attention GANs: from a folder of pictures to pictures of your own.",
            "",
            *lines,
            "",
            "sagan COMMAND --help says what a command takes.",
            "First steps: sagan train --preset demo",
        )
    )


def _preset(options: type[Train] | type[Study], arguments: list[str]) -> Train | Study:
    """The options that tyro starts from: those of the preset in the arguments, with the shape of --from's networks."""
    required = {"study": tyro.MISSING} if options is Study else {}
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", default="small", choices=PRESETS)
    parser.add_argument("--from", dest="start")
    try:
        found = parser.parse_known_args(arguments)[0]
    except argparse.ArgumentError:  # a value is missing, or no preset: tyro will say so
        return options(**required)
    config = PRESETS[found.preset]
    if found.start:
        from sagan.training.finetune import read_model

        config = replace(config, model=read_model(found.start))
    return options(preset=found.preset, config=config, **required)


def _parse(options: type, name: str, arguments: list[str]) -> Any:
    """The options of a command from its arguments: tyro.cli, its box of an error message made into one line.

    Raises:
        UserError: an unknown option or a bad value.
    """
    errors = io.StringIO()
    markers = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff)
    default = _preset(options, arguments) if options in (Train, Study) else None
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(options, prog=f"sagan {name}", args=arguments, config=markers, default=default)
    except SystemExit as error:
        if not error.code:
            raise
        raise UserError(f"{_one_line(errors.getvalue())}; see sagan {name} --help") from None


def _one_line(box: str) -> str:
    """The message of tyro's error box: what stands between its title and the first rule, and its suggestion."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)  # colours, on a terminal
    blocks: list[list[str]] = [[]]
    for line in plain.splitlines()[1:]:
        text = line.strip("│╰╯ ")
        if text.strip("─-"):
            blocks[-1].append(text)
        else:  # a rule
            blocks.append([])
    first, *others = [block for block in blocks if block]
    message = " ".join(first).removesuffix(".")
    message = re.sub(r"^Error parsing (config\.\w+|[\w ]*root): ", "", message)
    near = [block[1].split()[0] for block in others if block[0].startswith("Perhaps you meant")]
    return message + (f"; did you mean {near[0]}?" if near else "")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0, 2 for what the user can mend, 130 when interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks must not end a command
            stream.reconfigure(errors="backslashreplace")
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    name = " ".join(arguments[:words]) or "--help"
    try:
        for argument in arguments:
            if not is_text(argument):  # no file of a run could record it
                raise UserError(f"{printable(argument)} is not UTF-8: rename the file or folder")
        if name in ("-h", "--help"):
            print(_help())
        elif name == "--version":
            print(metadata.version("sagan"))
        elif name in COMMANDS:
            options, run = COMMANDS[name]
            try:
                given = _parse(options, name, arguments[words:])
            except UserError:
                if os.environ.get("RANK", "0") != "0":  # one of many processes, all of which were given the same
                    return 2
                raise
            run(given)
        else:
            near = difflib.get_close_matches(name, COMMANDS, 1)
            raise UserError(f"{name}: no such command; " + (f"did you mean {near[0]}?" if near else "see sagan --help"))
    except BrokenPipeError:  # whoever reads our output has seen enough: sagan data ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor shall the interpreter's last flush fail
    except (UserError, OSError) as error:  # what the operating system refuses is named in its own words
        print(f"sagan: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sagan: stopped", file=sys.stderr)
        return 130
    return 0
