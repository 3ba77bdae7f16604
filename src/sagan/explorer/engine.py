"""Compute what the page shows: grids, images, attention maps and scores. Knows nothing of HTTP or HTML."""

import base64
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sagan.attention_effect import difference_of, scaled_gammas
from sagan.attention_maps import Observation, attention_layers, describe_small_share, format_share, observe_attention
from sagan.data.decode import Unreadable, decode
from sagan.device import full_precision
from sagan.errors import UserError
from sagan.explorer.effect import Effect
from sagan.explorer.networks import Networks
from sagan.explorer.point_maps import LayerMaps, MapStyle, draw_point_maps
from sagan.explorer.schemas import (
    MAX_IMAGES,
    Gammas,
    Grid,
    ImageSpec,
    Look,
    NetworkName,
    Sample,
    Strip,
    Upload,
    Walk,
)
from sagan.figures.attention import MapSection, choose_points, draw_maps, to_image
from sagan.figures.interpolation import slerp
from sagan.pixels import to_bytes, to_signed
from sagan.render.samples import draw_page
from sagan.sampling import SampleSet, sample

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
        self._cache: OrderedDict[Any, View] = OrderedDict()
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
        with self._scaled(request.gammas):
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
        with self._scaled(request.gammas):
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

    @contextmanager
    def _scaled(self, gammas: Gammas) -> Iterator[None]:
        """Hold the networks, with the gammas of their layers multiplied by factors.

        Raises:
            UserError: there is no such layer.
        """
        with self._network_lock, ExitStack() as scaled:
            for key, factor in gammas.items():
                name, _, layer = key.partition("/")
                network = {"generator": self.networks.generator, "discriminator": self.networks.discriminator}.get(name)
                if network is None:
                    raise UserError(f"gammas: {key!r} is not a layer of this run")
                scaled.enter_context(scaled_gammas(network, {layer: factor}))
            yield

    def view(self, spec: ImageSpec, gammas: Gammas | None = None) -> View:
        """Return an image with its forward passes and scores, from the cache if it was viewed recently."""
        changed = {name: factor for name, factor in (gammas or {}).items() if factor != 1}
        key = spec, tuple(sorted(changed.items()))
        with self._scaled(changed):
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
            view = self._compute_view(spec)
            self._cache[key] = view
            while len(self._cache) > _CACHE_SIZE:
                self._cache.popitem(last=False)
            return view

    def effect(self, spec: ImageSpec, gammas: Gammas) -> Effect:
        """Compare a generated image as trained with the same image with the generator's attention off.

        Raises:
            UserError: the image is not generated, or the generator has no self-attention layer.
        """
        layers = self.networks.layers("generator")
        if isinstance(spec, Upload) or not layers:
            raise UserError("the generator's attention has no part in this image")
        on, now = self.view(spec).image, self.view(spec, gammas).image
        off = self.view(spec, {f"generator/{name}": 0.0 for name in layers}).image
        return Effect(on, off, difference_of(on, off), difference_of(on, now))

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
        chosen = choose_points(self.view(request.image, request.gammas).image[None], CHOSEN_POINTS)[0]
        return [(float(x), float(y)) for x, y in chosen]

    def maps(
        self,
        spec: ImageSpec,
        points: Sequence[tuple[float, float]],
        only: Sequence[int] | None = None,
        *,
        style: MapStyle | None = None,
        gammas: Gammas | None = None,
    ) -> list[LayerMaps]:
        """Compute an image's maps in every layer of each network that processed it.

        Args:
            points: all points of the image; their order determines their colours.
            only: numbers of the points whose maps to compute; None: all.
            style: how maps are painted.
            gammas: factors of the layers' gammas.

        Raises:
            UserError: a point lies outside of the image, or a number has no point.
        """
        numbers = list(range(len(points)) if only is None else only)
        if not all(0 <= i < len(points) for i in numbers):
            raise UserError(f"only: there are {len(points)} points, numbered from 0")
        queries = {i: points[i] for i in numbers}
        view = self.view(spec, gammas)
        layers = []
        for network, observation in view.observations.items():
            with self._scaled(gammas or {}):
                strengths = observation.strengths()
                maps = observation.maps(list(queries.values())) if queries else {}
                shares = observation.shares(list(queries.values())) if queries else {}
            for name, strength in strengths.items():
                point_maps = {}
                if queries:
                    grid = observation.inputs[name].shape[-1]
                    maps_QKK = maps[name][0].float().cpu()
                    at_points = shares[name][0].tolist()
                    point_maps = draw_point_maps(view.image, maps_QKK, at_points, queries, grid, style or MapStyle())
                layers.append(LayerMaps(network, name, strength.item(), point_maps))
        return layers

    def figure(self, request: Look) -> Image.Image:
        """Draw the paper's figure of one image: a section for each layer.

        Raises:
            UserError: there is no point or no layer with maps, or a point lies outside of the image.
        """
        points = self.points(request)
        if not points:
            raise UserError("no points: set one on the image first")
        view = self.view(request.image, request.gammas)
        pixels = np.floor(np.asarray(points)).astype(np.int64)[None]
        sections = []
        for network, observation in view.observations.items():
            with self._scaled(request.gammas):
                maps, shares = observation.maps(points), observation.shares(points)
                strengths = observation.strengths()
            for name, maps_1QKK in maps.items():
                grid, keys = observation.inputs[name].shape[-1], maps_1QKK.shape[-1]
                gamma = observation.layers[name].gamma.item() * request.gammas.get(f"{network}/{name}", 1.0)
                share = strengths[name].item()
                subtitle = (
                    f"{grid} × {grid} queries, {keys} × {keys} keys\nγ {gamma:+.3g}   ·   "
                    f"{describe_small_share(share).capitalize() or f'adds {format_share(share)} to its features'}"
                )
                maps_NQKK, shares_NQ = (t.float().cpu().numpy() for t in (maps_1QKK, shares[name]))
                title = f"{network.capitalize()}, layer {name}"
                image = view.image[None]
                sections.append(MapSection(title, subtitle, image, pixels, maps_NQKK, shares=shares_NQ))
        if not sections:
            raise UserError("no self-attention layer has processed this image, so there are no maps to draw")
        return to_image(draw_maps(sections, smooth=request.smooth, own_scale=request.own_scale))

    def read_upload(self, data: bytes) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Decode an uploaded file to the networks' size (R, R, C); also return its own (width, height).

        Raises:
            UserError: the file is not an image in a supported format, or is too large.
        """
        try:
            with self._upload_lock:  # one at a time, so that memory is bounded
                return self._decode(data, MAX_PIXELS)
        except Unreadable as error:
            formats = "use a JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC file"
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
