"""The page and what it asks of the server, as an ASGI application that any server for such can run."""

import asyncio
import importlib.resources
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sagan import __version__
from sagan.device import enough_memory
from sagan.errors import UserError
from sagan.explorer.asked import Grid, Look, Strip, read
from sagan.explorer.explorer import MAX_PIXELS, Explorer, to_png, to_text
from sagan.explorer.settings import grid_command, picture_commands, python
from sagan.figures.attention import COLOURS

MAX_UPLOAD = 20_000_000  # bytes of a picture of the user's own
MAX_REQUEST = 2_000_000  # bytes of any other request
_UPLOADS = 16  # that arrive at once; others wait, so that memory is bounded
_WORKERS = 4  # requests that are worked on at once; others wait their turn
_SECONDS_TO_SEND = 60  # that a request may take to arrive
_PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{f"/{name}": (name, "text/javascript") for name in ("page.js", "server.js", "stage.js", "state.js")},
}
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors "
)

Answer = Callable[[Request], Awaitable[Response]]


def create_app(explorer: Explorer, *, hosts: Sequence[str] = ("*",), frames: str = "'none'") -> Starlette:
    """The application.

    Args:
        explorer: what answers.
        hosts: names under which the page may be asked for; others are refused, so that no page elsewhere can reach
            a server on this machine by a name of its own.
        frames: sources of the pages that may frame this one, as Content-Security-Policy has them.
    """

    uploads, workers = asyncio.Semaphore(_UPLOADS), asyncio.Semaphore(_WORKERS)

    async def work(answer: Callable[..., Any], *arguments: Any) -> Any:
        async with workers:
            with enough_memory("ask for fewer pictures, or start the page with --device cpu"):
                return await run_in_threadpool(answer, *arguments)

    async def about(request: Request) -> Response:
        return JSONResponse(
            explorer.describe()
            | {"version": __version__, "colours": COLOURS, "max_upload": MAX_UPLOAD, "max_pixels": MAX_PIXELS}
        )

    async def grid(request: Request) -> Response:
        asked = read(Grid, await _body(request, MAX_REQUEST, "application/json"))

        def answer() -> dict[str, Any]:
            images = explorer.grid(asked)
            labels = [label for label in asked.labels or [0] for _ in range(asked.count)]
            pictures = [
                {"label": y, "index": i, "png": to_text(x)} for i, (y, x) in enumerate(zip(labels, images, strict=True))
            ]
            return {"pictures": pictures, "command": grid_command(explorer.networks, asked)}

        return JSONResponse(await work(answer))

    async def grid_page(request: Request) -> Response:
        asked = read(Grid, await _body(request, MAX_REQUEST, "application/json"))
        return _png(await work(lambda: to_png(explorer.grid_page(asked))))

    async def look(request: Request) -> Response:
        asked = read(Look, await _body(request, MAX_REQUEST, "application/json"))
        return JSONResponse(await work(_look, explorer, asked))

    async def figure(request: Request) -> Response:
        asked = read(Look, await _body(request, MAX_REQUEST, "application/json"))
        return _png(await work(lambda: to_png(explorer.figure(asked))))

    async def strip(request: Request) -> Response:
        asked = read(Strip, await _body(request, MAX_REQUEST, "application/json"))
        images = await work(lambda: [to_text(image) for image in explorer.strip(asked)])
        return JSONResponse({"pictures": images})

    async def upload(request: Request) -> Response:
        async with uploads:
            data = await _body(request, MAX_UPLOAD, "application/octet-stream")
            image, (width, height) = await work(explorer.read_upload, data)
        return JSONResponse({"png": to_text(image), "width": width, "height": height})

    files = importlib.resources.files("sagan.explorer") / "page"
    routes = [Route(path, _file(files.joinpath(name).read_bytes(), kind)) for path, (name, kind) in _PAGE.items()]
    routes.append(Route("/api/about", about))
    for answer in (grid, grid_page, look, figure, strip, upload):
        routes.append(Route(f"/api/{answer.__name__.replace('_', '-')}", answer, methods=["POST"]))
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(_Headers, policy=_POLICY + frames),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
        ],
        exception_handlers={
            UserError: _in_words,
            HTTPException: _in_words,
            Exception: _in_words,
        },
    )


def _look(explorer: Explorer, asked: Look) -> dict[str, Any]:
    """The picture, its scores, the maps asked for, and what draws them again, as JSON values."""
    points = explorer.points(asked)
    layers = explorer.maps(asked.picture, points, asked.only, smooth=asked.smooth)
    seen = explorer.see(asked.picture)
    return {
        "png": to_text(seen.image),
        "points": points,
        "scores": None if seen.scores is None else seen.scores.of_classes,
        "layers": [
            {
                "network": layer.network,
                "name": layer.name,
                "maps": {
                    number: {"png": to_text(found.overlay), "peak": found.peak, "distance": found.distance}
                    for number, found in layer.maps.items()
                },
            }
            for layer in layers
        ],
        "commands": picture_commands(explorer.networks, asked.picture, points),
        "python": python(explorer.networks, asked.picture, points),
    }


async def _body(request: Request, most: int, kind: str) -> bytes:
    """A request's body.

    Raises:
        HTTPException: too large, too slow, or of another kind. Only kinds that a page elsewhere may not send without
            asking first are taken.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != kind:
        raise HTTPException(415, f"send {kind}")
    found, size = [], 0
    try:
        async with asyncio.timeout(_SECONDS_TO_SEND):
            async for chunk in request.stream():
                size += len(chunk)
                if size > 4 * most:
                    break
                if size <= most:  # what is beyond is read and dropped, so that the sender comes to hear the answer
                    found.append(chunk)
    except TimeoutError:
        raise HTTPException(408, "the request took too long to arrive") from None
    except ClientDisconnect:
        raise HTTPException(400, "the request was cut off") from None
    if size > most:
        raise HTTPException(413, f"too large: {most // 1_000_000} MB at most", headers={"connection": "close"})
    return b"".join(found)


def _file(content: bytes, kind: str) -> Answer:
    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


def _png(data: bytes) -> Response:
    return Response(data, media_type="image/png")


async def _in_words(request: Request, error: Exception) -> Response:
    """Errors as JSON: {"error": one line}."""
    if isinstance(error, UserError):
        return JSONResponse({"error": str(error)}, 400)
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)
    return JSONResponse({"error": "the server failed; its terminal says why"}, 500)


class _Headers:
    """Adds to every answer what keeps the page to itself: nothing is loaded from elsewhere."""

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
