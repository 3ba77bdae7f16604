"""Serves the page: a free port, a browser, and an end without noise."""

import contextlib
import ipaddress
import os
import socket
import sys
import threading
import warnings
import webbrowser
from pathlib import Path

from PIL import Image

from sagan.errors import UserError

PORT = 7860
_PORTS = 20  # that are tried one after the other, where none is asked for
_CONNECTIONS = 256  # at once; the server says 503 to more
_SPACES = "'self' https://huggingface.co https://*.hf.space"  # which show a Space in a frame


def launch(
    run: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = False,
    device: str = "auto",
) -> None:
    """Serves the page of a run until it is interrupted.

    Args:
        run: the run's folder, or its generator.safetensors, which is enough for all but the discriminator's part.
        host: address to listen on; '127.0.0.1' is reached from this machine only, '0.0.0.0' from everywhere.
        port: None: 7860, or the next free one.
        open_browser: open the page in a browser, where there is a screen.
        device: 'auto', 'cpu', 'cuda', ...

    Raises:
        UserError: starlette or uvicorn is missing, no such run, or the address cannot be listened on.
    """
    try:
        import uvicorn

        from sagan.explorer.app import create_app
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "starlette"):
            raise
        raise UserError(f"the page needs {error.name}: pip install 'sagan[explore]'") from error
    from sagan.device import choose_device, enough_memory, full_precision
    from sagan.explorer.explorer import Explorer
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
        url = address(host, listening.getsockname()[1])
        print(f"{run} is shown at {url}; Ctrl-C ends it", flush=True)
        if not local:
            print(f"sagan: --host {host}: everyone who reaches this machine can use the page", file=sys.stderr)
        if open_browser and has_screen():
            threading.Thread(target=webbrowser.open, args=[url], daemon=True).start()
        config = uvicorn.Config(
            app,
            log_level="warning",
            lifespan="off",
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=1 << 16,
        )
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def listen(host: str, port: int | None = None) -> socket.socket:
    """A socket that listens: on the port asked for, else on the first free one from 7860 on.

    Raises:
        UserError: the port is taken, or there is no such address here.
    """
    try:
        family, _, _, _, where = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError(f"--host {host}: no such address ({error.strerror or error})") from error
    for tried in range(PORT, PORT + _PORTS) if port is None else [port]:
        found = socket.socket(family, socket.SOCK_STREAM)
        try:
            if os.name == "posix":
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((where[0], tried))
            found.listen(128)
            return found
        except OSError as error:
            found.close()
            reason = error
    if port is None:
        raise UserError(f"no free port from {PORT} to {PORT + _PORTS - 1} on {host} ({reason.strerror}): give --port")
    raise UserError(f"--port {port} on {host}: {reason.strerror}; leave --port out for the next free one") from reason


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address(host: str, port: int) -> str:
    """What to type into a browser on this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def has_screen() -> bool:
    """Whether a browser would be seen; in a terminal alone, one would be in the way."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
