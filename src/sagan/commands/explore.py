"""The command `sagan explore`."""

from dataclasses import dataclass

from sagan.commands.arguments import DeviceOption, RunArgument
from sagan.config import FileOption, IntOption


@dataclass(frozen=True)
class Explore:
    """Serve a web page to generate images, click on pixels and see what they attend to."""

    run: RunArgument
    """Folder of the run, or its generator.safetensors (then without the discriminator)."""
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
    if options.save is not None:
        from sagan.device import DRAW_LESS, choose_device, enough_memory
        from sagan.explorer.saved_page import save_page

        with enough_memory(DRAW_LESS):
            count, size = save_page(options.run, options.save, choose_device(options.device))
        print(f"{options.save}: {count} images with their maps, {size / 1e6:.1f} MB, in one file")
        return
    from sagan.explorer import launch

    launch(options.run, host=options.host, port=options.port, open_browser=options.open, device=options.device)
