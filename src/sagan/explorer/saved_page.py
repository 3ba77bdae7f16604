"""Write a run's images and all of their attention maps as one HTML file that needs no server and no network."""

import base64
import hashlib
import html
import importlib.resources
import json
import shlex
import string
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sagan.attention_effect import amplified_difference, attention_effect, difference_of, visible_gain
from sagan.attention_maps import Observation, describe_small_share, format_share, observe_attention
from sagan.errors import UserError
from sagan.explorer.engine import to_base64
from sagan.explorer.networks import Networks, read_networks
from sagan.figures.attention import choose_points
from sagan.figures.map_colours import COLOURS, TOP, ramp_colours, scale_position
from sagan.files import write_atomically
from sagan.sampling import draw_latents
from sagan.version import __version__

IMAGES = 24
"""Images of a page."""
MAX_MAP_BYTES = 2**26
"""Bytes of all maps before compression; where attention is at a large size, a page has fewer images."""


def save_page(run: Path, out: Path, device: torch.device) -> tuple[int, int]:
    """Write the page of a run: images as trained and with attention off, and every row of the generator's maps.

    Args:
        run: the run's folder, or its generator.safetensors.
        out: HTML file to write, atomically.
        device: where the generator runs.

    Returns:
        The number of images, and the size of the file in bytes.

    Raises:
        UserError: there is no such run, its generator has no self-attention layer, or the file cannot be written.
    """
    networks = read_networks(run, device)
    if not networks.layers("generator"):
        raise UserError(networks.missing["generator_maps"])
    page, count = draw_page(networks)
    data = page.encode()
    write_atomically(out, lambda temporary: temporary.write_bytes(data))
    return count, len(data)


def draw_page(networks: Networks) -> tuple[str, int]:
    """Return the page as HTML, and the number of its images: the first of `sagan sample`, as many of each class."""
    # The images, as trained and without attention, and the forward pass that made them.
    generator, names = networks.generator, networks.class_names
    layers = observe_attention(generator, torch.zeros(1, generator.config.latent_dim), torch.tensor([0])).layers
    grids = [int(name.partition(".")[0]) for name in layers]
    keys = [grid // 2 if layer.pooled else grid for grid, layer in zip(grids, layers.values(), strict=True)]
    map_bytes = sum(grid**2 * (side**2 + 8) for grid, side in zip(grids, keys, strict=True))
    count = max(1, min(IMAGES, MAX_MAP_BYTES // map_bytes))
    classes = len(names[:count])
    per_class = -(-count // max(1, classes))
    y = torch.arange(max(1, classes)).repeat_interleave(per_class)[:count]
    z = draw_latents(count, generator.config.latent_dim, seed=0)
    effect = attention_effect(generator, z, y)

    # One image at a time, so that one set of maps is in memory.
    images, blobs = [], []
    for i, (on, off) in enumerate(zip(effect.on, effect.off, strict=True)):
        observation = observe_attention(generator, z[i : i + 1], y[i : i + 1])
        difference = difference_of(on, off)
        gain = visible_gain(difference.largest)
        strengths = [strength.item() for strength in observation.strengths().values()]
        images.append(
            {
                "name": (f"{names[int(y[i])]}, " if names else "") + f"seed 0, no. {i + 1}",
                "on": _data_url(on),
                "off": _data_url(off),
                "difference": _data_url(amplified_difference(on, off, gain)),
                "gain": gain,
                "size": str(difference),
                "layers": [{"share": format_share(s), "small": describe_small_share(s)} for s in strengths],
            }
        )
        packed = base64.b64encode(zlib.compress(pack_maps(observation), 9)).decode()
        blobs.append(f'<script type="text/plain" id="maps-{i}">{packed}</script>')

    # The page around them.
    lut = bytes.fromhex("".join(ramp_colours(256)).replace("#", ""))
    data: dict[str, Any] = {
        "images": images,
        "layers": [
            {"name": name, "grid": grid, "keys": side, "gamma": layer.gamma.item()}
            for (name, layer), grid, side in zip(layers.items(), grids, keys, strict=True)
        ],
        "resolution": generator.config.resolution,
        "transparent": generator.config.image_channels == 4,
        "colours": COLOURS,
        "ramp": ramp_colours(17),
        "ticks": [[tick, scale_position(tick)] for tick in (0, 1, 2, 4, TOP)],
        "lut": base64.b64encode(lut).decode(),
        "point": choose_points(effect.on[:1], 1)[0, 0].tolist(),
    }
    options = ["--classes", *map(str, range(classes))] if classes < len(names) else []
    command = ["sagan", "sample", networks.path.name or "RUN", *options, "--count", str(per_class), "--seed", "0"]
    facts = [f"step {networks.step:,}", f"{generator.config.resolution} × {generator.config.resolution} px"]
    facts += [f"{len(names)} classes"] if len(names) > 1 else []
    return _fill(networks.path.name or "A run", " · ".join(facts), shlex.join(command), data, blobs), count


def pack_maps(observation: Observation) -> bytes:
    """Pack the maps of one image: for each layer peaks and shares, float32 per query, and a byte per query and key.

    Peaks are in multiples of even attention, shares |gamma · o| / |x|, and bytes 255 · sqrt(weight / peak).
    """
    parts = []
    shares = observation.shares("all")
    for name, maps_1QKK in observation.maps("all").items():
        maps_QK = maps_1QKK[0].flatten(1).float().cpu().numpy()
        peaks: NDArray[np.float32] = maps_QK.max(1)
        rows = np.sqrt(maps_QK / np.maximum(peaks, 1e-30)[:, None]) * 255
        parts += [(peaks * maps_QK.shape[1]).astype("<f4"), shares[name][0].float().cpu().numpy().astype("<f4")]
        parts += [rows.round().astype(np.uint8)]
    return b"".join(part.tobytes() for part in parts)


def _fill(title: str, facts: str, command: str, data: dict[str, Any], blobs: list[str]) -> str:
    """Fill the template. Names are escaped, and only this script may run: the policy has its digest."""
    folder = importlib.resources.files("sagan.explorer")
    texts = [(folder / path).read_text(encoding="utf-8") for path in ("page/stage.js", "page/bar.js", "saved/saved.js")]
    script = "\n".join(text.replace("export class", "class") for text in texts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # No character of the JSON can end its script element, or start a comment in it.
    as_json = json.dumps(data).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    template = string.Template((folder / "saved/index.html").read_text(encoding="utf-8"))
    return template.substitute(
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'",
        version=__version__,
        title=html.escape(title),
        facts=html.escape(facts),
        command=html.escape(command),
        style=(folder / "saved/saved.css").read_text(encoding="utf-8"),
        data=as_json,
        blobs="\n".join(blobs),
        script=script,
    )


def _data_url(image: NDArray[np.uint8]) -> str:
    return f"data:image/png;base64,{to_base64(image)}"
