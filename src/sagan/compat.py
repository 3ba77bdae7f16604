"""Private functions of libraries, called from here alone.

Each was last seen in PyTorch 2.13, datasets 5.2 or tyro 1.0.17.
"""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]


def softmax_backward_(grad: Tensor, softmax: Tensor) -> None:
    """Replace the gradient of a softmax over the last axis by that of its input, in place."""
    torch._softmax_backward_data(grad, softmax, -1, grad.dtype, grad_input=grad)


def has_amx() -> bool:
    """Return whether this CPU has AMX tiles, which multiply bf16 matrices; False if PyTorch cannot tell."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return supported is not None and bool(supported())


def rendezvous(timeout: timedelta) -> tuple[Store, int, int]:
    """Return torchrun's store, the rank of this process and the number of processes, from the environment."""
    return next(dist.rendezvous("env://", timeout=timeout))  # type: ignore[attr-defined]


@contextmanager
def few_seconds_of_hub(timeout: float = 4.0) -> Iterator[None]:
    """Let `datasets` use its cache alone if the Hugging Face Hub does not answer within `timeout` seconds.

    `datasets` would try each of several files six times, and wait in between; its own options are read at import.
    """
    import datasets
    import huggingface_hub

    flags: tuple[Any, Any] = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in flags]
    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=timeout)
    except Exception:  # each version has its own types; offline, the reason is told by `datasets`
        for module in flags:
            module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(flags, before, strict=True):
            module.HF_HUB_OFFLINE = value


def abandon_capture(device: torch.device, pool: Any) -> None:
    """Take the allocator out of a capture into a pool that failed: PyTorch does that only after one that succeeded.

    Until then it would keep every tensor that two streams used.
    """
    with suppress(Exception):  # it says so if there is nothing to end
        index = torch.cuda.current_device() if device.index is None else device.index
        torch._C._cuda_endAllocateToPool(index, pool)  # type: ignore[attr-defined]
        torch._C._cuda_releasePool(index, pool)  # type: ignore[attr-defined]


class OptionError(Exception):
    """An error of arguments that tyro refuses; the message says in one line which, and why."""


def parse_options(options: type, **settings: Any) -> Any:
    """Call `tyro.cli(options, **settings)`, whose errors become one line.

    A version of tyro without these events, or with others, prints its own message and exits with status 2.

    Raises:
        OptionError: an option is unknown, a value is invalid, or an argument is missing.
        SystemExit: tyro printed the help (0), or an error that `_describe_error` does not know (2).
    """
    import tyro

    errors: Any = getattr(tyro, "_errors", None)
    if not hasattr(errors, "on_parse_error"):
        return tyro.cli(options, **settings)

    def report(event: Any) -> None:
        message = None
        with suppress(AttributeError):
            message = _describe_error(event, options, settings)
        if message:
            raise OptionError(message)

    with errors.on_parse_error(report):
        return tyro.cli(options, **settings)


def _describe_error(event: Any, options: type, settings: dict[str, Any]) -> str | None:
    """Return why tyro refuses the arguments, in one line; None if its event is not known here."""
    import tyro

    kind = type(event).__name__
    if kind == "UnrecognizedArgs":
        keys = ("prog", "config", "default")
        parser = tyro.extras.get_parser(options, **{key: settings[key] for key in keys if key in settings})
        near = difflib.get_close_matches(event.tokens[0], parser._option_string_actions, 1)
        advice = f"; did you mean {near[0]}?" if near else ""
        what = "option" if event.tokens[0].startswith("-") else "argument"
        return f"{' '.join(event.tokens)}: no such {what}{advice}"
    if kind == "MissingArgs":
        return "missing: " + ", ".join(_name_of(missing.arg) for missing in event.missing_arguments)
    if kind == "InvalidChoice":
        return f"{_name_of(event.argument)} {event.value!r}: pass one of {', '.join(event.choices)}"
    if kind == "BadValue" and event.reason == "too_few_values":
        return f"{_name_of(event.argument)}: its value is missing"
    if kind == "InstantiationFailure":
        return f"{_name_of(event.argument)}: {event.message}" if event.argument else str(event.message)
    return None


def _name_of(argument: Any) -> str:
    """Return what the help calls an argument: an option by its name, and a positional one as RUN, not as {a,b}."""
    metavar = str(argument.lowered.metavar)
    positional = argument.is_positional() and not metavar.startswith("{")
    return metavar if positional else str(argument.display_name())
