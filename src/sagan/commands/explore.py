"""The command `sagan explore`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sagan.commands.arguments import DeviceOption
from sagan.config import FileOption, IntOption
from sagan.errors import UserError


@dataclass(frozen=True)
class Explore:
    """Serve a web page to generate images, click on pixels and see what they attend to."""

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]", help_behavior_hint="")] = None
    """Folder of the run, its generator.safetensors (then without the discriminator), or a name that sagan list shows;
    default: the first of these names."""
    save: FileOption = None
    """HTML file to write instead: 24 images with all their maps, and without attention; it needs no server."""
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
        if self.save is not None and self.save.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"save must be a .html file, got {self.save}")


def explore(options: Explore) -> None:
    """Run `sagan explore`."""
    from sagan.trained import names

    run = options.run or next(map(Path, names()), None)
    if run is None:
        raise UserError("this package has no trained model: pass a RUN to explore")
    if options.save is not None:
        from sagan.device import DRAW_LESS, choose_device, enough_memory
        from sagan.explorer.saved_page import save_page

        with enough_memory(DRAW_LESS):
            count, size = save_page(run, options.save, choose_device(options.device))
        print(f"{options.save}: {count} images with their maps, {size / 1e6:.1f} MB, in one file")
        return
    from sagan.explorer import launch

    launch(run, host=options.host, port=options.port, open_browser=options.open, device=options.device)
