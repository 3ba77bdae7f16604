"""The page's requests. A request holds everything that its answer depends on, so the server keeps no sessions."""

import base64
import binascii
import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sagan.errors import UserError
from sagan.figures.map_colours import COLOURS

MAX_IMAGES = 128  # in one grid
MAX_STEPS = 16  # in a strip

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Truncation = Annotated[float, Field(gt=0, le=10)] | None
Share = Annotated[float, Field(ge=0, le=1)]
Coordinate = Annotated[float, Field(ge=0)]  # px
NetworkName = Literal["generator", "discriminator"]
Gammas = Annotated[dict[str, Annotated[float, Field(ge=0, le=2)]], Field(max_length=64)]
"""Factors of the layers' gammas, by the layer: {"generator/16.0": 0.5}; 1, and no entry: as trained."""


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Sample(_Request):
    """One image of `sagan sample`: the image number `index` of a class and a seed."""

    kind: Literal["sample"] = "sample"
    seed: Seed
    index: Annotated[int, Field(ge=0, lt=MAX_IMAGES)]
    label: Annotated[int, Field(ge=0)] = 0
    """Number of the class; 0 without classes."""
    truncation: Truncation = None


class Walk(_Request):
    """An image between two samples: latents are interpolated along the arc, classes are mixed."""

    kind: Literal["walk"] = "walk"
    start: Sample
    end: Sample
    latent: Share
    """0: the latent of start, 1: that of end."""
    label: Share
    """0: the class of start, 1: that of end."""


class Upload(_Request):
    """The user's own image, as `Explorer.read_upload` returned it."""

    kind: Literal["own"] = "own"
    png: Annotated[str, Field(max_length=2**20)]
    """The PNG file in base64."""

    def data(self) -> bytes:
        """Return the PNG file. Raises UserError if `png` is not base64."""
        try:
            return base64.b64decode(self.png, validate=True)
        except binascii.Error:
            raise UserError("png: not base64") from None


ImageSpec = Annotated[Sample | Walk | Upload, Field(discriminator="kind")]
Points = Annotated[list[tuple[Coordinate, Coordinate]], Field(max_length=len(COLOURS))]


class Grid(_Request):
    """The images of `sagan sample`: `count` of each class."""

    labels: Annotated[tuple[int, ...], Field(max_length=MAX_IMAGES)] = ()
    """Numbers of the classes; () without classes."""
    count: Annotated[int, Field(ge=1, le=MAX_IMAGES)]
    seed: Seed
    truncation: Truncation = None
    gammas: Gammas = {}


class Look(_Request):
    """An image and its query points."""

    image: ImageSpec
    points: Points = []
    """(x, y) in pixels of the image."""
    only: Annotated[list[int], Field(max_length=len(COLOURS))] | None = None
    """Numbers, from 0, of the points whose maps to compute; None: all."""
    choose: bool = False
    """Choose five points from the image's content, as `sagan attend` does, instead of `points`."""
    smooth: bool = True
    """Interpolate maps between the keys' centres instead of drawing cells."""
    own_scale: bool = False
    """Scale each map to its own peak, instead of all to multiples of even attention."""
    over_image: bool = False
    """Composite maps over the image, in grey."""
    gammas: Gammas = {}


class Compare(_Request):
    """A generated image, to be compared with itself without attention."""

    image: ImageSpec
    gammas: Gammas = {}


class Strip(_Request):
    """Evenly spaced images along a walk; the walk's own `latent` and `label` are ignored."""

    walk: Walk
    steps: Annotated[int, Field(ge=2, le=MAX_STEPS)]
    label: Share | None = None
    """Position of all images between the classes; None: the same as their latent's."""
    gammas: Gammas = {}


Request = TypeVar("Request", bound=_Request)


def parse_request(kind: type[Request], body: bytes) -> Request:
    """Parse a request's JSON. Raises UserError with one line that names the field and the problem."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        value = first["input"] if isinstance(first["input"], str | int | float | bool) else None
        got = "" if value is None else f", got {json.dumps(value)[:60]}"
        message = first["msg"][:1].lower() + first["msg"][1:]
        raise UserError(f"{field or 'the request'}: {message}{got}") from None
