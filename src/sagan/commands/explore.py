"""The command `sagan explore`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sagan.commands.arguments import DeviceOption
from sagan.config import IntOption
from sagan.errors import UserError


@dataclass(frozen=True)
class Explore:
    """Serve a web page to generate images, click on pixels and see what they attend to."""

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]", help_behavior_hint="")] = None
    """Folder of the run, its generator.safetensors (then without the discriminator), or a name that sagan list shows;
    default: the first of these names."""
    host: str = "127.0.0.1"
    """Address to listen on; the default is reachable only from this machine."""
    port: IntOption = None
    """Port to listen on; default: 7860, or the next free one."""
    open: bool = True
    """Open the page in a browser, where there is a screen."""
    device: DeviceOption = "auto"

    def __post_init__(self) -> None:
        if self.port is not None and not 0 <= self.port <= 65535:
            raise ValueError(f"port must be from 0 (any free one) to 65535, got {self.port}")


def explore(options: Explore) -> None:
    """Run `sagan explore`."""
    from sagan.explorer import launch
    from sagan.trained import names

    run = options.run or next(map(Path, names()), None)
    if run is None:
        raise UserError("this package has no trained model: pass a RUN to explore")
    launch(run, host=options.host, port=options.port, open_browser=options.open, device=options.device)
