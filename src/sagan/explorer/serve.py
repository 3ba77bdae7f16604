"""Serve the page: find a free port, open a browser, stop quietly on Ctrl-C."""

import contextlib
import ipaddress
import os
import socket
import sys
import threading
import warnings
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from sagan.errors import UserError

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

PORT = 7860
_PORTS = 20  # ports to try, from PORT upwards, if the user names none
_MAX_CONNECTIONS = 256  # at once; the server answers 503 to more
_SPACES = "'self' https://huggingface.co https://*.hf.space"  # sources of the pages that frame a Space


def launch(
    run: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = False,
    device: str = "auto",
) -> None:
    """Serve the page of a run until it is interrupted.

    Args:
        run: the run's folder, its generator.safetensors (then without the discriminator), or a trained model's name.
        host: address to listen on: '127.0.0.1' is reachable only from this machine, '0.0.0.0' from everywhere.
        port: None: 7860, or the next free one.
        open_browser: open the page in a browser, if there is a screen.
        device: 'auto', 'cpu', 'cuda', ...

    Raises:
        UserError: starlette or uvicorn is missing, there is no such run, or the address is not available.
    """
    try:
        import uvicorn  # noqa: F401

        from sagan.explorer.app import create_app
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "starlette"):
            raise
        raise UserError(f"the page needs {error.name}: pip install 'sagan-torch[explore]'") from error
    from sagan.device import choose_device, enough_memory, full_precision
    from sagan.explorer.engine import Explorer
    from sagan.explorer.networks import read_networks

    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # such uploads are refused in words
    chosen = choose_device(device)
    # In full precision from here on, for the threads of all requests.
    with listen(host, port) as listening, full_precision():
        with enough_memory("try --device cpu"):
            explorer = Explorer(read_networks(Path(run), chosen))
        local = is_loopback(host)
        hosts = ("localhost", "127.0.0.1", "::1", "[::1]", host) if local else ("*",)
        app = create_app(explorer, hosts=hosts, frames="'none'" if local else _SPACES)
        url = browser_url(host, listening.getsockname()[1])
        print(f"serving {run} at {url}; press Ctrl-C to stop", flush=True)
        if not local:
            print(f"sagan: --host {host}: everyone who can reach this machine can use the page", file=sys.stderr)
        if open_browser and has_screen():
            threading.Thread(target=webbrowser.open, args=[url], daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            create_server(app).run(sockets=[listening])


def create_server(app: "ASGIApp") -> "uvicorn.Server":
    """Create the server of the page, with limits on what a connection may cost."""
    import uvicorn

    from sagan.explorer.connections import TimedConnection

    config = uvicorn.Config(
        app,
        http=TimedConnection,
        ws="none",
        log_level="warning",
        lifespan="off",
        server_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=2**16,
    )
    return uvicorn.Server(config)


def listen(host: str, port: int | None = None) -> socket.socket:
    """Return a listening socket on the given port, or on the first free one from 7860 upwards.

    Raises:
        UserError: the port is taken, or this machine has no such address.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError(f"--host {host}: no such address ({error.strerror or error})") from error
    candidates = range(PORT, PORT + _PORTS) if port is None else [port]
    for candidate in candidates:
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            if os.name == "posix":
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((address[0], candidate))
            listening.listen(128)
            return listening
        except OSError as error:
            listening.close()
            reason = error
    if port is None:
        raise UserError(f"no free port from {PORT} to {PORT + _PORTS - 1} on {host} ({reason.strerror}): pass --port")
    raise UserError(f"--port {port} on {host}: {reason.strerror}; omit --port to use the next free one") from reason


def is_loopback(host: str) -> bool:
    """Return whether an address is reachable only from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def browser_url(host: str, port: int) -> str:
    """Return the URL at which a browser on this machine finds the page."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{reachable}:{port}"


def has_screen() -> bool:
    """Return whether a browser could show a window; a text browser would take over the terminal."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
