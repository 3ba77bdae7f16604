"""Compute what the page shows: grids, images, attention maps and scores. Knows nothing of HTTP or HTML."""

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

from sagan.attention_maps import Observation, attention_layers, observe_attention, resize_maps
from sagan.data.decode import Unreadable, decode
from sagan.device import full_precision
from sagan.errors import UserError
from sagan.explorer.networks import Networks
from sagan.explorer.schemas import MAX_IMAGES, Grid, ImageSpec, Look, Sample, Strip, Upload, Walk
from sagan.figures.attention import COLOURS, MapSection, choose_points, draw_maps, overlay, to_image
from sagan.figures.interpolation import slerp
from sagan.pixels import to_bytes, to_signed
from sagan.render.samples import draw_page
from sagan.sampling import SampleSet, sample

NetworkName = Literal["generator", "discriminator"]

MAX_PIXELS = 40_000_000  # in an uploaded image
CHOSEN_POINTS = 5  # points that the page chooses by itself
_CACHE_SIZE = 16  # views that are kept, so that the next click on an image needs no forward pass
_FAST_VIEW = 0.05  # s; if one thread computes a view within it, a second thread costs more than it gains


@dataclass(frozen=True)
class Scores:
    """The discriminator's scores of an image: logits, higher for real."""

    by_class: tuple[float, ...]
    """The logit for each class that the image could be of; a single one without classes."""


@dataclass(frozen=True)
class View:
    """An image, and the forward passes that it took part in."""

    image: NDArray[np.uint8]
    """(R, R, C)."""
    observations: dict[NetworkName, Observation]
    """Forward passes of the generator, if it generated the image, and of the discriminator, if there is one."""
    scores: Scores | None


@dataclass(frozen=True)
class PointMap:
    """The attention map of one query point in one layer."""

    overlay: NDArray[np.uint8]
    """(R, R, 3): the map in its point's colour over the dimmed image."""
    peak: float
    """The largest weight, in multiples of uniform attention."""
    distance: float
    """Mean attention distance, in pixels of the image."""


@dataclass(frozen=True)
class LayerMaps:
    """The maps of one layer."""

    network: NetworkName
    name: str
    maps: dict[int, PointMap]
    """Number of the point -> map."""


class Explorer:
    """Answer the page's requests with a run's networks.

    Threads take turns: attention is observed with hooks on the shared networks, and small networks gain nothing from
    running side by side. Equal requests always get equal answers.
    """

    def __init__(self, networks: Networks):
        self.networks = networks
        self.model = networks.generator.config
        self._network_lock = threading.Lock()
        self._upload_lock = threading.Lock()
        self._cache: OrderedDict[ImageSpec, View] = OrderedDict()
        self.seconds = self._warm_up()

    def _warm_up(self) -> float:
        """Set the number of threads, 1 for small networks, and return the seconds that a view takes."""
        spec = Sample(seed=0, index=0)
        for threads in (1, torch.get_num_threads()):
            torch.set_num_threads(threads)
            self.view(spec)
            self._cache.clear()
            start = time.perf_counter()
            self.view(spec)
            self._cache.clear()
            seconds = time.perf_counter() - start
            if seconds < _FAST_VIEW:
                break
        return seconds

    def grid(self, request: Grid) -> NDArray[np.uint8]:
        """Generate the images (N, R, R, C) of `sagan sample` with the same options, on the same device bit for bit.

        Raises:
            UserError: a class does not exist, or there are too many images.
        """
        images = self._sample_set(request)
        if images.total > MAX_IMAGES:
            raise UserError(f"{images.total} images are too many for one grid: ask for {MAX_IMAGES} or fewer")
        with self._network_lock:
            return sample(self.networks.generator, *images.inputs())

    def _sample_set(self, request: Grid) -> SampleSet:
        labels = self._check_labels(request.labels) or ([0] if self.model.num_classes else [])
        return SampleSet(self.model.latent_dim, request.count, labels, (request.seed,), request.truncation)

    def grid_page(self, request: Grid) -> Image.Image:
        """Draw the grid as `sagan sample` does."""
        return draw_page(self.grid(request), self._sample_set(request), self.networks.class_names)

    def strip(self, request: Strip) -> NDArray[np.uint8]:
        """Generate images (steps, R, R, C) along a walk, from its start to its end."""
        latents = []
        classes = []
        for t in torch.linspace(0, 1, request.steps).tolist():
            label = t if request.label is None else request.label
            z, y = self.generator_inputs(request.walk.model_copy(update={"latent": t, "label": label}))
            latents.append(z)
            classes.append(y)
        with self._network_lock:
            return sample(self.networks.generator, torch.cat(latents), torch.cat(classes))

    def generator_inputs(self, spec: Sample | Walk) -> tuple[Tensor, Tensor]:
        """Return an image's latent z (1, latent_dim), and its class y (1,) or weights of classes (1, num_classes)."""
        if isinstance(spec, Sample):
            labels = self._check_labels((spec.label,))
            images = SampleSet(self.model.latent_dim, spec.index + 1, labels, (spec.seed,), spec.truncation)
            return images.inputs(spec.index)
        z_start, y_start = self.generator_inputs(spec.start)
        z_end, y_end = self.generator_inputs(spec.end)
        z = slerp(z_start, z_end, torch.tensor([spec.latent]))
        if not self.model.num_classes or y_start.equal(y_end):
            return z, y_start
        start = F.one_hot(y_start, self.model.num_classes).float()
        end = F.one_hot(y_end, self.model.num_classes).float()
        return z, torch.lerp(start, end, spec.label)

    def view(self, spec: ImageSpec) -> View:
        """Return an image with its forward passes and scores, from the cache if it was viewed recently."""
        with self._network_lock:
            if spec in self._cache:
                self._cache.move_to_end(spec)
                return self._cache[spec]
            view = self._compute_view(spec)
            self._cache[spec] = view
            while len(self._cache) > _CACHE_SIZE:
                self._cache.popitem(last=False)
            return view

    def _compute_view(self, spec: ImageSpec) -> View:
        networks = self.networks
        observations: dict[NetworkName, Observation] = {}

        # The image: uploaded, or generated while the generator's attention is observed.
        if isinstance(spec, Upload):
            image = self._decode_upload(spec)
            x = to_signed(torch.from_numpy(image).permute(2, 0, 1)[None])
        else:
            z, y = self.generator_inputs(spec)
            observations["generator"] = observe_attention(networks.generator, z, y, layers=networks.layers("generator"))
            x = observations["generator"].output
            image = to_bytes(x)[0].permute(1, 2, 0).contiguous().numpy()

        # The discriminator's attention and scores.
        scores = None
        if networks.discriminator is not None:
            with _record_inputs(networks.discriminator.head) as features:
                observations["discriminator"] = observe_attention(
                    networks.discriminator, x, torch.tensor([0]), layers=networks.layers("discriminator")
                )
            scores = self._scores(features[0])
        return View(image, observations, scores)

    @torch.no_grad()
    @full_precision()
    def _scores(self, h: Tensor) -> Scores:
        """Return the logits of all classes from the discriminator's features h (1, C): head(h) + <embed(y), h>."""
        discriminator = self.networks.discriminator
        assert discriminator is not None
        logits = discriminator.head(h).squeeze(1)
        if discriminator.embed is not None:
            classes = torch.arange(self.model.num_classes, device=h.device)
            logits = logits + discriminator.embed(classes) @ h[0]
        return Scores(tuple(logits.tolist()))

    def points(self, request: Look) -> list[tuple[float, float]]:
        """Return the request's points (x, y) in pixels, or choose them from the image's content if it asks so."""
        if not request.choose:
            return request.points
        chosen = choose_points(self.view(request.image).image[None], CHOSEN_POINTS)[0]
        return [(float(x), float(y)) for x, y in chosen]

    def maps(
        self,
        spec: ImageSpec,
        points: Sequence[tuple[float, float]],
        only: Sequence[int] | None = None,
        *,
        smooth: bool,
    ) -> list[LayerMaps]:
        """Compute an image's maps in every layer of each network that processed it, each in its point's colour.

        Args:
            points: all points of the image; their order determines their colours.
            only: numbers of the points whose maps to compute; None: all.

        Raises:
            UserError: a point lies outside of the image, or a number has no point.
        """
        numbers = list(range(len(points)) if only is None else only)
        if not all(0 <= i < len(points) for i in numbers):
            raise UserError(f"only: there are {len(points)} points, numbered from 0")
        queries = {i: points[i] for i in numbers}
        view = self.view(spec)
        layers = []
        for network, observation in view.observations.items():
            if not queries:
                layers += [LayerMaps(network, name, {}) for name in observation.layers]
                continue
            with self._network_lock:
                maps = observation.maps(list(queries.values()))
            for name, maps_1QKK in maps.items():
                grid = observation.inputs[name].shape[-1]
                point_maps = _draw_point_maps(view.image, maps_1QKK[0].float().cpu(), queries, grid, smooth)
                layers.append(LayerMaps(network, name, point_maps))
        return layers

    def figure(self, request: Look) -> Image.Image:
        """Draw the paper's figure of one image: a section for each layer.

        Raises:
            UserError: there is no point or no layer with maps, or a point lies outside of the image.
        """
        points = self.points(request)
        if not points:
            raise UserError("no points: set one on the image first")
        view = self.view(request.image)
        pixels = np.floor(np.asarray(points)).astype(np.int64)[None]
        sections = []
        for network, observation in view.observations.items():
            with self._network_lock:
                maps = observation.maps(points)
            for name, maps_1QKK in maps.items():
                grid = observation.inputs[name].shape[-1]
                keys = maps_1QKK.shape[-1]
                gamma = observation.layers[name].gamma.item()
                title = f"{network.capitalize()}, layer {name}"
                subtitle = f"{grid} × {grid} queries, {keys} × {keys} keys   ·   γ {gamma:+.3g}"
                sections.append(MapSection(title, subtitle, view.image[None], pixels, maps_1QKK.float().cpu().numpy()))
        if not sections:
            raise UserError("no self-attention layer has processed this image, so there are no maps to draw")
        return to_image(draw_maps(sections, smooth=request.smooth))

    def read_upload(self, data: bytes) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Decode an uploaded file to the networks' size (R, R, C); also return its own (width, height).

        Raises:
            UserError: the file is not an image in a supported format, or is too large.
        """
        try:
            with self._upload_lock:  # one at a time, so that memory is bounded
                return self._decode(data, MAX_PIXELS)
        except Unreadable as error:
            formats = "use a JPEG, PNG, WebP, GIF, BMP or TIFF file"
            raise UserError(f"the image cannot be used: {error}; {formats}") from error

    def _decode_upload(self, upload: Upload) -> NDArray[np.uint8]:
        """Decode an image that `read_upload` returned and the page sent back; its content is not trusted."""
        resolution = self.model.resolution
        try:
            return self._decode(upload.data(), resolution**2)[0]
        except Unreadable as error:
            raise UserError(f"png: not an image of {resolution} x {resolution} pixels; upload it again") from error

    def _decode(self, data: bytes, max_pixels: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        model = self.model
        options: dict[str, Any] = {"resolution": model.resolution, "image_channels": model.image_channels}
        image, size = decode(data, **options, background=self.networks.background, max_pixels=max_pixels)
        return image.copy(), size  # Pillow's array is read-only, of which PyTorch warns

    def describe(self) -> dict[str, Any]:
        """Return what the page needs to know about the run before it requests an image, as JSON values."""
        networks = self.networks
        layers: list[dict[str, Any]] = []
        for name, network in (("generator", networks.generator), ("discriminator", networks.discriminator)):
            if network is None or not networks.layers(name):
                continue
            for layer_name, layer in attention_layers(network).items():
                size = int(layer_name.partition(".")[0])
                layers.append(
                    {
                        "network": name,
                        "name": layer_name,
                        "grid": size,
                        "keys": size // 2 if layer.pooled else size,
                        "gamma": layer.gamma.item(),
                    }
                )
        return {
            "run": str(networks.path),
            "step": networks.step,
            "resolution": self.model.resolution,
            "channels": self.model.image_channels,
            "classes": list(networks.class_names),
            "layers": layers,
            "missing": networks.missing,
            "logits": networks.logits,
            "seconds": self.seconds,
        }

    def _check_labels(self, labels: Sequence[int]) -> list[int]:
        """Return the labels, or [] if the run has no classes. Raises UserError if a class does not exist."""
        count = self.model.num_classes
        if not count:
            return []
        for label in labels:
            if not 0 <= label < count:
                raise UserError(f"class {label} does not exist: the run has the classes 0 to {count - 1}")
        return list(labels)


def to_png(image: NDArray[np.uint8] | Image.Image) -> bytes:
    """Encode an image, an array (H, W, C) or Pillow's, as a PNG file."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
    file = BytesIO()
    image.save(file, format="PNG", compress_level=1)
    return file.getvalue()


def to_base64(image: NDArray[np.uint8]) -> str:
    """Encode an image (H, W, C) as a PNG file in base64."""
    return base64.b64encode(to_png(image)).decode()


@contextmanager
def _record_inputs(layer: torch.nn.Module) -> Iterator[list[Tensor]]:
    """Record the inputs of a layer while the context lasts."""
    inputs: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    try:
        yield inputs
    finally:
        hook.remove()


def _draw_point_maps(
    image: NDArray[np.uint8], maps_QKK: Tensor, points: Mapping[int, tuple[float, float]], grid: int, smooth: bool
) -> dict[int, PointMap]:
    """Draw maps over their image, and measure them.

    Args:
        points: number -> (x, y) in pixels, in the order of the maps.
        grid: side of the layer's grid of queries.
    """
    resolution = image.shape[0]
    keys = maps_QKK.shape[-1]
    upsampled_QRR = resize_maps(maps_QKK, resolution, smooth=smooth).numpy()
    centres = (torch.arange(keys) + 0.5) * (resolution / keys)  # of the keys, px
    point_maps = {}
    for (number, point), map_KK, map_RR in zip(points.items(), maps_QKK, upsampled_QRR, strict=True):
        # The query is the grid location that holds the point; distances are from its centre.
        x, y = ((int(c * grid / resolution) + 0.5) * (resolution / grid) for c in point)
        distances = torch.hypot(centres[None, :] - x, centres[:, None] - y)
        point_maps[number] = PointMap(
            overlay=overlay(image, map_RR, COLOURS[number]),
            peak=float(map_KK.max()) * keys**2,
            distance=float((map_KK * distances).sum()),
        )
    return point_maps
