"""Parse the JSON of configurations: into dataclasses, from any version, with errors of one line."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from sagan.config import Config
from sagan.errors import UserError
from sagan.files import read_bytes
from sagan.formats import migrate_model
from sagan.model.build import find_architecture
from sagan.model.config import ModelConfig
from sagan.text import printable

T = TypeVar("T")


def _model(fields: Any) -> Any:
    """Return a model's fields as this version has them; for an architecture with its own configuration, that.

    Raises:
        ValueError: the architecture is unknown, or only earlier versions had such networks.
    """
    if not isinstance(fields, dict):
        return fields
    fields = migrate_model(fields)
    kind = find_architecture(fields.get("architecture", "residual")).config
    return fields if kind is ModelConfig else TypeAdapter(kind).validate_python(fields)


def _config(fields: Any) -> Any:
    """Return a run's configuration with its model as `_model` does."""
    if not isinstance(fields, dict) or "model" not in fields:
        return fields
    return fields | {"model": _model(fields["model"])}


CheckedModel = Annotated[ModelConfig, BeforeValidator(_model)]
CheckedConfig = Annotated[Config, BeforeValidator(_config)]


def read_as(kind: type[T], path: Path, what: str) -> T:
    """Read a JSON file as a value of type `kind`, e.g. a dataclass.

    Args:
        what: the expected content in words, for the message.

    Raises:
        UserError: the file cannot be read, is too large, or holds another type.
    """
    try:
        return TypeAdapter(kind).validate_json(read_bytes(path))
    except ValidationError as error:
        where, message, _ = first_problem(error)
        raise UserError(f"{path} is not {what}: {where or 'the file'}: {message}") from error
    except ValueError as error:  # after ValidationError, which is one
        raise UserError(f"{path} is not {what}: {error}") from error
    except OSError as error:
        raise UserError(f"{path} could not be read: {error.strerror}") from error


def first_problem(error: ValidationError) -> tuple[str, str, bool]:
    """Return the first problem: the path of its field, the message, and whether no such field is known."""
    first = error.errors()[0]
    where = printable(".".join(map(str, first["loc"])))[:200]
    message = first["msg"].removeprefix("Value error, ")  # the type, which pydantic puts before a ValueError's
    return where, message, first["type"] in ("unexpected_keyword_argument", "extra_forbidden")
