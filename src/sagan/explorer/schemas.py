"""What the page may ask for. A request says all that its answer depends on, so that the server remembers nobody."""

import base64
import binascii
import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sagan.errors import UserError
from sagan.figures.attention import COLOURS

MOST_PICTURES = 128  # of one grid
MOST_STEPS = 16  # of a strip

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Truncation = Annotated[float, Field(gt=0, le=10)] | None
Share = Annotated[float, Field(ge=0, le=1)]
Coordinate = Annotated[float, Field(ge=0)]


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Sample(_Asked):
    """One picture of `sagan sample`: that of the latent number `index` of a seed, for a class."""

    kind: Literal["sample"] = "sample"
    seed: Seed
    index: Annotated[int, Field(ge=0, lt=MOST_PICTURES)]
    label: Annotated[int, Field(ge=0)] = 0
    """Number of the class; 0 without classes."""
    truncation: Truncation = None


class Walk(_Asked):
    """A picture between two: latents along the arc, classes mixed."""

    kind: Literal["walk"] = "walk"
    start: Sample
    end: Sample
    latent: Share
    """0: the latent of start, 1: that of end."""
    label: Share
    """0: the class of start, 1: that of end."""


class Own(_Asked):
    """A picture of the user's own, as `Explorer.read_upload` gave it back."""

    kind: Literal["own"] = "own"
    png: Annotated[str, Field(max_length=1 << 20)]
    """The PNG file, base64."""

    def data(self) -> bytes:
        """The PNG file. Raises UserError if it is not base64."""
        try:
            return base64.b64decode(self.png, validate=True)
        except binascii.Error:
            raise UserError("png: not base64") from None


Picture = Annotated[Sample | Walk | Own, Field(discriminator="kind")]
Points = Annotated[list[tuple[Coordinate, Coordinate]], Field(max_length=len(COLOURS))]


class Grid(_Asked):
    """The pictures of `sagan sample`: `count` of each class."""

    labels: Annotated[tuple[int, ...], Field(max_length=MOST_PICTURES)] = ()
    """Numbers of the classes; none without classes."""
    count: Annotated[int, Field(ge=1, le=MOST_PICTURES)]
    seed: Seed
    truncation: Truncation = None


class Look(_Asked):
    """A picture, and the points of it whose maps are wanted."""

    picture: Picture
    points: Points = []
    """(x, y) in pixels of the picture."""
    only: Annotated[list[int], Field(max_length=len(COLOURS))] | None = None
    """Which of the points' maps are wanted, by their numbers from 0; None: all."""
    choose: bool = False
    """Choose five points by what the picture shows, as `sagan attend` does, instead of `points`."""
    smooth: bool = True
    """Draw maps smoothly between the keys' centres, not as cells."""


class Strip(_Asked):
    """Pictures along a walk, evenly spaced; the walk's own shares say nothing."""

    walk: Walk
    steps: Annotated[int, Field(ge=2, le=MOST_STEPS)]
    label: Share | None = None
    """Where all of it stands between the classes; None: that goes along with the latent."""


Asked = TypeVar("Asked", bound=_Asked)


def read(kind: type[Asked], body: bytes) -> Asked:
    """A request's JSON. Raises UserError with one line that names the field and what is wrong with it."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        value = first["input"] if isinstance(first["input"], str | int | float | bool) else None
        got = "" if value is None else f", got {json.dumps(value)[:60]}"
        message = first["msg"][:1].lower() + first["msg"][1:]
        raise UserError(f"{where or 'the request'}: {message}{got}") from None
