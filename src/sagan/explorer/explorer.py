"""What the page shows, computed: grids, pictures, their maps and scores. Knows nothing of HTTP or HTML."""

import base64
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sagan.attention import Observation, attention_layers, lay_on_picture, observe_attention
from sagan.data.decode import Unreadable, decode
from sagan.device import full_precision
from sagan.errors import UserError
from sagan.explorer.asked import MOST_PICTURES, Grid, Look, Own, Picture, Sample, Strip, Walk
from sagan.explorer.networks import Networks
from sagan.figures.attention import COLOURS, MapSection, choose_points, draw_maps, overlay, to_image
from sagan.figures.grid import draw_grid
from sagan.figures.walk import slerp
from sagan.sampling import draw_latents, sample, to_bytes
from sagan.training.step import to_signed

NetworkName = Literal["generator", "discriminator"]

MAX_PIXELS = 40_000_000  # of a picture of the user's own
POINTS = 5  # that are chosen
_KEPT = 16  # pictures whose features are kept, so that the next click needs no forward pass
_SMALL = 0.05  # seconds for a picture, up to which a second thread costs more than it brings


@dataclass(frozen=True)
class Scores:
    """What the discriminator says of a picture: logits, higher for real."""

    of_classes: tuple[float, ...]
    """One for each class that the picture might be of; without classes just one."""


@dataclass(frozen=True)
class Seen:
    """A picture, and what the networks made of it."""

    image: NDArray[np.uint8]
    """(R, R, C)."""
    observed: dict[NetworkName, Observation]
    """The generator's forward pass, if it drew the picture, and the discriminator's, if there is one."""
    scores: Scores | None


@dataclass(frozen=True)
class PointMap:
    """What one point attends to in one layer."""

    overlay: NDArray[np.uint8]
    """(R, R, 3): the map in its point's colour over the dimmed picture."""
    peak: float
    """The largest weight, in multiples of uniform attention."""
    distance: float
    """Mean distance to what is attended to, in pixels of the picture."""


@dataclass(frozen=True)
class LayerMaps:
    """The maps of one layer."""

    network: NetworkName
    name: str
    maps: dict[int, PointMap]
    """By the points' numbers."""


class Explorer:
    """Answers what the page asks of a run's networks.

    One request is worked on at a time, whatever thread it comes from: the networks are looked into by hooks, and a
    small network gains nothing from a second thread. The same request always gets the same answer.
    """

    def __init__(self, networks: Networks):
        self.networks = networks
        self.model = networks.generator.config
        self._one_at_a_time = threading.Lock()
        self._one_upload = threading.Lock()
        self._seen: OrderedDict[Picture, Seen] = OrderedDict()
        self.seconds = self._warm_up()

    def _warm_up(self) -> float:
        """Seconds that a picture takes; small networks are set to one thread."""
        first = Sample(seed=0, index=0)
        threads = torch.get_num_threads()
        for count in (1, threads):
            torch.set_num_threads(count)
            self.see(first)
            self._seen.clear()
            start = time.perf_counter()
            self.see(first)
            self._seen.clear()
            seconds = time.perf_counter() - start
            if seconds < _SMALL:
                break
        return seconds

    def grid(self, asked: Grid) -> NDArray[np.uint8]:
        """The pictures (N, R, R, C) that `sagan sample` draws with the same options, on the same device bit for bit."""
        y = torch.tensor(self._known(asked.labels) or [0]).repeat_interleave(asked.count)
        if len(y) > MOST_PICTURES:
            raise UserError(f"{len(y)} pictures are too many for one grid: ask for {MOST_PICTURES} or fewer")
        z = draw_latents(len(y), self.model.latent_dim, seed=asked.seed, truncation=asked.truncation)
        with self._one_at_a_time:
            return sample(self.networks.generator, z, y)

    def grid_page(self, asked: Grid) -> Image.Image:
        """The grid as `sagan sample` writes it."""
        images, names = self.grid(asked), self.networks.class_names
        columns = asked.count if asked.labels else max(1, round(asked.count**0.5))
        return draw_grid(images, columns=columns, row_labels=[names[i] for i in asked.labels] or None)

    def strip(self, asked: Strip) -> NDArray[np.uint8]:
        """Pictures (steps, R, R, C) along a walk, from its start to its end."""
        shares = torch.linspace(0, 1, asked.steps).tolist()
        walks = [
            asked.walk.model_copy(update={"latent": t, "label": t if asked.label is None else asked.label})
            for t in shares
        ]
        z, y = zip(*(self.latent(walk) for walk in walks), strict=True)
        with self._one_at_a_time:
            return sample(self.networks.generator, torch.cat(z), torch.cat(y))

    def latent(self, picture: Sample | Walk) -> tuple[Tensor, Tensor]:
        """The latent z (1, latent_dim) of a picture; its class y (1,), or weights (1, num_classes) of two."""
        if isinstance(picture, Sample):
            (label,) = self._known((picture.label,)) or [0]
            z = draw_latents(picture.index + 1, self.model.latent_dim, seed=picture.seed, truncation=picture.truncation)
            return z[-1:], torch.tensor([label])
        (z_start, y_start), (z_end, y_end) = self.latent(picture.start), self.latent(picture.end)
        z = slerp(z_start, z_end, torch.tensor([picture.latent]))
        if not self.model.num_classes or y_start.equal(y_end):
            return z, y_start
        start, end = (F.one_hot(y, self.model.num_classes).float() for y in (y_start, y_end))
        return z, torch.lerp(start, end, picture.label)

    def see(self, picture: Picture) -> Seen:
        """The picture, what its forward passes showed, and its scores."""
        with self._one_at_a_time:
            if picture in self._seen:
                self._seen.move_to_end(picture)
                return self._seen[picture]
            seen = self._see(picture)
            self._seen[picture] = seen
            while len(self._seen) > _KEPT:
                self._seen.popitem(last=False)
            return seen

    def _see(self, picture: Picture) -> Seen:
        networks, observed = self.networks, dict[NetworkName, Observation]()
        if isinstance(picture, Own):
            image = self._read_back(picture)
            x = to_signed(torch.from_numpy(image).permute(2, 0, 1)[None])
        else:
            generated = observe_attention(
                networks.generator, *self.latent(picture), layers=networks.layers("generator")
            )
            observed["generator"], x = generated, generated.output
            image = to_bytes(x)[0].permute(1, 2, 0).contiguous().numpy()
        scores = None
        if networks.discriminator is not None:
            with _input_of(networks.discriminator.head) as features:
                observed["discriminator"] = observe_attention(
                    networks.discriminator, x, torch.tensor([0]), layers=networks.layers("discriminator")
                )
            scores = self._scores(features[0])
        return Seen(image, observed, scores)

    @torch.no_grad()
    @full_precision()
    def _scores(self, h: Tensor) -> Scores:
        """The logits of every class from the discriminator's features h (1, C): head(h) + <embed(y), h>."""
        discriminator = self.networks.discriminator
        assert discriminator is not None
        logits = discriminator.head(h).squeeze(1)
        if discriminator.embed is not None:
            classes = torch.arange(self.model.num_classes, device=h.device)
            logits = logits + discriminator.embed(classes) @ h[0]
        return Scores(tuple(logits.tolist()))

    def points(self, asked: Look) -> list[tuple[float, float]]:
        """The points asked for: as they are, or chosen by what the picture shows."""
        if not asked.choose:
            return asked.points
        chosen = choose_points(self.see(asked.picture).image[None], POINTS)[0]
        return [(float(x), float(y)) for x, y in chosen]

    def maps(
        self,
        picture: Picture,
        points: Sequence[tuple[float, float]],
        only: Sequence[int] | None = None,
        *,
        smooth: bool,
    ) -> list[LayerMaps]:
        """The maps of every layer of each network that saw the picture, each in its point's colour.

        Args:
            points: all points of the picture; their order decides their colours.
            only: numbers of those whose maps are wanted; None: all.

        Raises:
            UserError: a point outside of the picture, or a number of none.
        """
        numbers = list(range(len(points)) if only is None else only)
        if not all(0 <= i < len(points) for i in numbers):
            raise UserError(f"only: there are {len(points)} points, numbered from 0")
        asked = {i: points[i] for i in numbers}
        seen = self.see(picture)
        found = []
        for network, observation in seen.observed.items():
            if not asked:
                found += [LayerMaps(network, name, {}) for name in observation.layers]
                continue
            with self._one_at_a_time:
                maps = observation.maps(list(asked.values()))
            for name, maps_1QKK in maps.items():
                grid = observation.inputs[name].shape[-1]
                found.append(
                    LayerMaps(network, name, _draw(seen.image, maps_1QKK[0].float().cpu(), asked, grid, smooth))
                )
        return found

    def figure(self, asked: Look) -> Image.Image:
        """The paper's figure for one picture: a section for each layer.

        Raises:
            UserError: no points, a point outside of the picture, or no layer with maps.
        """
        points = self.points(asked)
        if not points:
            raise UserError("no points: set one on the picture first")
        seen = self.see(asked.picture)
        pixels = np.floor(np.asarray(points)).astype(np.int64)[None]
        sections = []
        for network, observation in seen.observed.items():
            with self._one_at_a_time:
                maps = observation.maps(points)
            for name, maps_1QKK in maps.items():
                grid, keys = observation.inputs[name].shape[-1], maps_1QKK.shape[-1]
                gamma = observation.layers[name].gamma.item()
                about = f"{grid} × {grid} queries, {keys} × {keys} keys   ·   γ {gamma:+.3g}"
                title = f"{network.capitalize()}, layer {name}"
                sections.append(MapSection(title, about, seen.image[None], pixels, maps_1QKK.float().cpu().numpy()))
        if not sections:
            raise UserError("no self-attention layer has seen this picture, so there are no maps to draw")
        return to_image(draw_maps(sections, smooth=asked.smooth))

    def read_upload(self, data: bytes) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """A picture of the user's own, at the networks' size (R, R, C), and its own (width, height).

        Raises:
            UserError: the bytes are no picture that is read, or one that is too large.
        """
        try:
            with self._one_upload:  # one at a time, so that memory is bounded
                return self._decode(data, MAX_PIXELS)
        except Unreadable as error:
            kinds = "give a JPEG, PNG, WebP, GIF, BMP or TIFF file"
            raise UserError(f"the picture cannot be used: {error}; {kinds}") from error

    def _read_back(self, own: Own) -> NDArray[np.uint8]:
        """What `read_upload` gave, as the page sends it again: small, but no more to be trusted."""
        resolution = self.model.resolution
        try:
            return self._decode(own.data(), resolution**2)[0]
        except Unreadable as error:
            raise UserError(f"png: not a picture of {resolution} x {resolution} pixels; upload it again") from error

    def _decode(self, data: bytes, max_pixels: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        model = self.model
        options: dict[str, Any] = {"resolution": model.resolution, "image_channels": model.image_channels}
        image, size = decode(data, **options, background=self.networks.background, max_pixels=max_pixels)
        return image.copy(), size  # what comes from Pillow cannot be written to, which PyTorch warns of

    def describe(self) -> dict[str, Any]:
        """What the page has to know of the run before anything is drawn, as JSON values."""
        networks, model = self.networks, self.model
        layers: list[dict[str, Any]] = []
        for network, found in (("generator", networks.generator), ("discriminator", networks.discriminator)):
            if found is None or not networks.layers(network):
                continue
            for name, layer in attention_layers(found).items():
                size = int(name.partition(".")[0])
                keys = size // 2 if layer.pooled else size
                gamma = layer.gamma.item()
                layers.append({"network": network, "name": name, "grid": size, "keys": keys, "gamma": gamma})
        return {
            "run": str(networks.path),
            "step": networks.step,
            "resolution": model.resolution,
            "channels": model.image_channels,
            "classes": list(networks.class_names),
            "layers": layers,
            "missing": networks.missing,
            "logits": networks.logits,
            "seconds": self.seconds,
        }

    def _known(self, labels: Sequence[int]) -> list[int]:
        """The labels, none without classes. Raises UserError for a class that the run does not have."""
        count = self.model.num_classes
        for label in labels if count else ():
            if not 0 <= label < count:
                raise UserError(f"class {label} is not there: the run has the classes 0 to {count - 1}")
        return list(labels) if count else []


def to_png(image: NDArray[np.uint8] | Image.Image) -> bytes:
    """A picture (H, W, C) as a PNG file."""
    file = BytesIO()
    picture = (
        image if isinstance(image, Image.Image) else Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
    )
    picture.save(file, format="PNG", compress_level=1)
    return file.getvalue()


def to_text(image: NDArray[np.uint8]) -> str:
    """A picture (H, W, C) as a PNG file in base64."""
    return base64.b64encode(to_png(image)).decode()


@contextmanager
def _input_of(layer: torch.nn.Module) -> Iterator[list[Tensor]]:
    """What goes into a layer while the context lasts."""
    kept: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, arguments: kept.append(arguments[0]))
    try:
        yield kept
    finally:
        hook.remove()


def _draw(
    image: NDArray[np.uint8], maps_QKK: Tensor, points: Mapping[int, tuple[float, float]], grid: int, smooth: bool
) -> dict[int, PointMap]:
    """Maps of numbered points laid over their picture; `grid` is the side of the layer's grid of queries."""
    resolution, keys = image.shape[0], maps_QKK.shape[-1]
    laid = lay_on_picture(maps_QKK, resolution, smooth=smooth).numpy()
    centres = (torch.arange(keys) + 0.5) * (resolution / keys)
    found = {}
    for (number, point), weights, on_picture in zip(points.items(), maps_QKK, laid, strict=True):
        x, y = ((int(c * grid / resolution) + 0.5) * (resolution / grid) for c in point)
        distances = torch.hypot(centres[None, :] - x, centres[:, None] - y)
        peak, distance = float(weights.max()) * keys**2, float((weights * distances).sum())
        found[number] = PointMap(overlay(image, on_picture, COLOURS[number]), peak, distance)
    return found
