"""The page and its HTTP interface, as an ASGI application."""

import asyncio
import mimetypes
from collections.abc import Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sagan.attention_maps import describe_small_share, format_share
from sagan.device import enough_memory
from sagan.errors import UserError
from sagan.explorer.engine import MAX_PIXELS, Explorer, to_base64, to_png
from sagan.explorer.point_maps import MapStyle
from sagan.explorer.schemas import Compare, Grid, Look, Strip, parse_request
from sagan.explorer.snippets import grid_command, image_commands, python_program
from sagan.figures.map_colours import COLOURS, TOP, ramp_colours, scale_position
from sagan.version import __version__

JSON = "application/json"
MAX_UPLOAD = 20_000_000  # bytes of an uploaded image
MAX_REQUEST = 2_000_000  # bytes of any other request
_UPLOADS = 16  # received at once; further ones wait, so that memory is bounded
_WORKERS = 4  # requests processed at once; further ones wait
_RECEIVE_TIMEOUT = 60  # s, for a whole request
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors "
)


def create_app(explorer: Explorer, *, hosts: Sequence[str] = ("*",), frames: str = "'none'") -> Starlette:
    """Create the ASGI application.

    Args:
        explorer: computes the answers.
        hosts: allowed Host headers; all others are rejected (prevents DNS rebinding).
        frames: sources of the pages that may frame this one, in Content-Security-Policy syntax.
    """

    uploads = asyncio.Semaphore(_UPLOADS)
    workers = asyncio.Semaphore(_WORKERS)

    async def work(task: Callable[..., Any], *arguments: Any) -> Any:
        async with workers:
            with enough_memory("request fewer images, or start the page with --device cpu"):
                return await run_in_threadpool(task, *arguments)

    async def about(request: Request) -> Response:
        return JSONResponse(
            explorer.describe()
            | {"version": __version__, "colours": COLOURS, "max_upload": MAX_UPLOAD, "max_pixels": MAX_PIXELS}
            | {"ramp": ramp_colours(17), "ticks": [[t, scale_position(t)] for t in (0, 1, 2, 4, TOP)]}
        )

    async def grid(request: Request) -> Response:
        parsed = parse_request(Grid, await _body(request, MAX_REQUEST, JSON))
        return JSONResponse(await work(_grid, explorer, parsed))

    async def grid_page(request: Request) -> Response:
        parsed = parse_request(Grid, await _body(request, MAX_REQUEST, JSON))
        return _png(await work(lambda: to_png(explorer.grid_page(parsed))))

    async def look(request: Request) -> Response:
        parsed = parse_request(Look, await _body(request, MAX_REQUEST, JSON))
        return JSONResponse(await work(_look, explorer, parsed))

    async def effect(request: Request) -> Response:
        parsed = parse_request(Compare, await _body(request, MAX_REQUEST, JSON))
        return JSONResponse(await work(_effect, explorer, parsed))

    async def figure(request: Request) -> Response:
        parsed = parse_request(Look, await _body(request, MAX_REQUEST, JSON))
        return _png(await work(lambda: to_png(explorer.figure(parsed))))

    async def strip(request: Request) -> Response:
        parsed = parse_request(Strip, await _body(request, MAX_REQUEST, JSON))
        images = await work(lambda: [to_base64(image) for image in explorer.strip(parsed)])
        return JSONResponse({"images": images})

    async def upload(request: Request) -> Response:
        async with uploads:
            data = await _body(request, MAX_UPLOAD, "application/octet-stream")
            image, (width, height) = await work(explorer.read_upload, data)
        return JSONResponse({"png": to_base64(image), "width": width, "height": height})

    endpoints = [Route("/about", about)]
    for endpoint in (grid, grid_page, look, effect, figure, strip, upload):
        endpoints.append(Route(f"/{endpoint.__name__.replace('_', '-')}", endpoint, methods=["POST"]))
    mimetypes.add_type("text/javascript", ".js")  # on Windows a program may have registered another type
    page = StaticFiles(packages=[("sagan.explorer", "page")], html=True)
    return Starlette(
        routes=[Mount("/api", routes=endpoints), Mount("/", page)],
        middleware=[
            Middleware(_SecurityHeaders, policy=_POLICY + frames),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
        ],
        exception_handlers={
            UserError: _error_response,
            HTTPException: _error_response,
            Exception: _error_response,
        },
    )


def _grid(explorer: Explorer, request: Grid) -> dict[str, Any]:
    """Return a grid's images and the command that generates them, as JSON values."""
    images = explorer.grid(request)
    labels = [label for label in request.labels or [0] for _ in range(request.count)]
    return {
        "images": [
            {"label": label, "index": i % request.count, "png": to_base64(image)}
            for i, (label, image) in enumerate(zip(labels, images, strict=True))
        ],
        "command": grid_command(explorer.networks, request),
    }


def _look(explorer: Explorer, request: Look) -> dict[str, Any]:
    """Return an image, its scores and maps, and the code that computes the same, as JSON values."""
    points = explorer.points(request)
    style = MapStyle(request.smooth, request.own_scale, request.over_image)
    layers = explorer.maps(request.image, points, request.only, style=style, gammas=request.gammas)
    view = explorer.view(request.image, request.gammas)
    return {
        "png": to_base64(view.image),
        "points": points,
        "scores": None if view.scores is None else view.scores.by_class,
        "layers": [
            {
                "network": layer.network,
                "name": layer.name,
                "share": format_share(layer.strength),
                "small": describe_small_share(layer.strength),
                "maps": {
                    number: {
                        "png": to_base64(m.painted),
                        "peak": m.peak,
                        "distance": m.distance,
                        "share": format_share(m.share),
                    }
                    for number, m in layer.maps.items()
                },
            }
            for layer in layers
        ],
        "commands": image_commands(explorer.networks, request.image, points, request.gammas),
        "python": python_program(explorer.networks, request.image, points, request.gammas),
    }


def _effect(explorer: Explorer, request: Compare) -> dict[str, Any]:
    """Return what attention does to an image, as JSON values."""
    effect = explorer.effect(request.image, request.gammas)
    return {
        "on": to_base64(effect.on),
        "off": to_base64(effect.off),
        "difference": to_base64(effect.amplified),
        "gain": effect.gain,
        "size": str(effect.difference),
        "now": str(effect.now),
    }


async def _body(request: Request, max_bytes: int, content_type: str) -> bytes:
    """Receive a request's body.

    Raises:
        HTTPException: the body is too large or too slow, or has another content type. The accepted types are those
            that a page from elsewhere may not send without asking first (CORS).
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != content_type:
        raise HTTPException(415, f"send {content_type}")
    chunks = []
    size = 0
    try:
        async with asyncio.timeout(_RECEIVE_TIMEOUT):
            async for chunk in request.stream():
                size += len(chunk)
                if size > 4 * max_bytes:
                    break
                if size <= max_bytes:  # the excess is read and dropped, so that the sender gets to read the answer
                    chunks.append(chunk)
    except TimeoutError:
        raise HTTPException(408, "the request took too long to arrive") from None
    except ClientDisconnect:
        raise HTTPException(400, "the connection closed before the request was complete") from None
    if size > max_bytes:
        message = f"too large: {max_bytes // 1_000_000} MB at most"
        raise HTTPException(413, message, headers={"connection": "close"})
    return b"".join(chunks)


def _png(data: bytes) -> Response:
    return Response(data, media_type="image/png")


async def _error_response(request: Request, error: Exception) -> Response:
    """Convert an error to JSON: {"error": one line}."""
    if isinstance(error, UserError):
        return JSONResponse({"error": str(error)}, 400)
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)
    return JSONResponse({"error": "the server failed; see its terminal for the reason"}, 500)


class _SecurityHeaders:
    """Add headers to every response that prevent the page from loading anything from elsewhere."""

    def __init__(self, app: ASGIApp, policy: str):
        self.app = app
        headers = _HEADERS | {"content-security-policy": policy}
        self.headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self.headers]
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)
