"""The command `sagan explore`."""

from dataclasses import dataclass

from sagan.commands.arguments import DeviceOption, RunArgument
from sagan.config import IntOption


@dataclass(frozen=True)
class Explore:
    """Serve a web page to generate images, click on pixels and see what they attend to."""

    run: RunArgument
    """Folder of the run, or its generator.safetensors (then without the discriminator)."""
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

    launch(options.run, host=options.host, port=options.port, open_browser=options.open, device=options.device)
