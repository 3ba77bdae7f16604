"""Connections that never finish, over real sockets: they may not keep others out."""

import http.client
import socket
import threading
import time

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from sagan.explorer import connections, serve

CONNECTIONS = 6  # the server answers 503 to this many and more at once
LARGE = 30_000_000  # bytes: more than the buffers of two sockets


@pytest.fixture
def port(monkeypatch):
    """The port of a server for few connections, with short deadlines."""
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT", 0.8)
    monkeypatch.setattr(connections, "RESPONSE_TIMEOUT", 0.8)
    monkeypatch.setattr(serve, "_MAX_CONNECTIONS", CONNECTIONS)

    async def small(request):
        return Response(b"page")

    async def large(request):
        return Response(bytes(LARGE))

    server = serve.create_server(Starlette(routes=[Route("/", small), Route("/large", large)]))
    with serve.listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()


def status(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/")
    code = connection.getresponse().status
    connection.close()
    return code


def is_served_within(port, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if status(port) == 200:
            return True
        time.sleep(0.05)
    return False


def send_slowly(connection, stop):
    try:
        while not stop.wait(0.05):
            connection.sendall(b"x")
    except OSError:
        pass


@pytest.mark.parametrize(
    "start",
    [
        b"",  # connected, and nothing more
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Endless: ",  # then a byte at a time
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET / HTTP/1.1\r\nX-Endless: ",  # a second request, after an answer
    ],
)
def test_headers_that_never_end_keep_nobody_out(port, start):
    stop = threading.Event()
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS - 1)]
    threads = []
    for connection in held:
        connection.sendall(start)
        if b"\r\n\r\n" in start:
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")
        if start:
            threads.append(threading.Thread(target=send_slowly, args=(connection, stop)))
            threads[-1].start()
    try:
        assert status(port) == 503  # they do hold all connections
        assert is_served_within(port, 5)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for connection in held:
            connection.close()


def test_responses_that_nobody_reads_keep_nobody_out(port):
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS - 1)]
    for connection in held:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
    try:
        assert status(port) == 503
        assert is_served_within(port, 5)
    finally:
        for connection in held:
            connection.close()


def test_a_slow_but_honest_client_is_served(port):
    """Headers in pieces within the deadline, then a second request on the same connection, after a pause."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for pause in (0.0, 1.2):
            time.sleep(pause)
            for piece in (b"GET / HTTP/1.1\r\n", b"Host: 127.0.0.1\r\n", b"\r\n"):
                connection.sendall(piece)
                time.sleep(0.02)
            assert connection.recv(1000).endswith(b"page")
