"""The server over real HTTP on loopback, and sagan explore from its start to Ctrl-C."""

import base64
import contextlib
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from helpers.runs import STEP

pytest.importorskip("starlette")
uvicorn = pytest.importorskip("uvicorn")

from sagan import UserError  # noqa: E402
from sagan.explorer.app import MAX_REQUEST, MAX_UPLOAD, create_app  # noqa: E402
from sagan.explorer.engine import to_png  # noqa: E402
from sagan.explorer.schemas import Grid, Look, Sample, Strip, Walk  # noqa: E402
from sagan.explorer.serve import browser_url, is_loopback, listen  # noqa: E402

JSON = "application/json"
BYTES = "application/octet-stream"


class Client:
    def __init__(self, port):
        self.port = port

    def ask(self, path, body=None, kind=JSON, **headers):
        """Status, headers and body of an answer; JSON is read."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        body = json.dumps(body).encode() if isinstance(body, dict) else body
        headers = {"Content-Type": kind, **headers}
        connection.request("GET" if body is None else "POST", path, body, headers)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        is_json = response.headers.get("content-type") == JSON
        return response.status, response.headers, json.loads(data) if is_json else data


@pytest.fixture(scope="module")
def client(explorer):
    with listen("127.0.0.1", 0) as listening:
        config = uvicorn.Config(create_app(explorer, hosts=["127.0.0.1"]), log_level="critical", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield Client(listening.getsockname()[1])
        server.should_exit = True
        thread.join()


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def test_the_page_loads_and_names_nothing_from_elsewhere(client):
    status, headers, page = client.ask("/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    names = re.findall(r'(?:src|href)="([^"#]+)"', page.decode())
    assert names
    found = [page, *(client.ask(f"/{name}")[2] for name in names)]
    for name in ("server.js", "stage.js", "state.js"):
        status, headers, script = client.ask(f"/{name}")
        assert (status, headers["content-type"]) == (200, "text/javascript; charset=utf-8")
        assert headers["cache-control"] == "no-cache"
        found.append(script)
    for content in found:
        addresses = re.findall(rb"\w+://[^\s\"'`)]+", content)
        assert set(addresses) <= {b"http://www.w3.org/2000/svg"}  # a name, not an address


def test_what_the_page_asks_is_what_the_explorer_answers(client, explorer):
    about = client.ask("/api/about")[2]
    assert about["classes"] == ["cats", "dogs", "white mice"]
    asked = {"labels": [0, 2], "count": 3, "seed": 5}
    status, _, found = client.ask("/api/grid", asked)
    assert status == 200
    images = explorer.grid(Grid(labels=(0, 2), count=3, seed=5))
    assert [(one["label"], one["index"]) for one in found["images"]] == [(i // 3 * 2, i % 3) for i in range(6)]
    assert all(np.array_equal(pixels(one["png"]), image) for one, image in zip(found["images"], images, strict=True))

    spec = {"kind": "sample", "seed": 5, "index": 4, "label": 2}
    status, _, found = client.ask("/api/look", {"image": spec, "points": [[1, 2], [30, 3]], "only": [1]})
    assert status == 200
    drawn = explorer.maps(Sample(seed=5, index=4, label=2), [(1, 2), (30, 3)])
    assert len(found["layers"]) == 3
    for layer, wanted in zip(found["layers"], drawn, strict=True):
        assert list(layer["maps"]) == ["1"]
        assert (
            np.abs(pixels(layer["maps"]["1"]["png"]).astype(int) - wanted.maps[1].painted).max() <= 3
        )  # threads round differently
    assert found["points"] == [[1, 2], [30, 3]]
    assert found["scores"] == pytest.approx(explorer.view(Sample(seed=5, index=4, label=2)).scores.by_class)
    assert "30,3" in found["commands"][1]
    assert len(client.ask("/api/look", {"image": spec, "choose": True})[2]["points"]) == 5

    walk = {"kind": "walk", "start": spec, "end": spec | {"index": 0}, "latent": 0, "label": 0}
    strip = explorer.strip(Strip(walk=Walk(**walk), steps=4))
    found = client.ask("/api/strip", {"walk": walk, "steps": 4})[2]["images"]
    assert all(np.array_equal(pixels(png), image) for png, image in zip(found, strip, strict=True))
    look = {"image": spec, "points": [[1, 2]]}
    for path, body, wanted in (
        ("figure", look, explorer.figure(Look(image=Sample(seed=5, index=4, label=2), points=[(1, 2)]))),
        ("grid-page", asked, explorer.grid_page(Grid(labels=(0, 2), count=3, seed=5))),
    ):
        status, headers, data = client.ask(f"/api/{path}", body)
        assert (status, headers["content-type"]) == (200, "image/png")
        assert np.array_equal(Image.open(io.BytesIO(data)), wanted)


def test_an_image_of_ones_own_there_and_back(client):
    image = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)
    status, _, found = client.ask("/api/upload", to_png(image), BYTES)
    assert (status, found["width"], found["height"]) == (200, 32, 32)
    assert np.array_equal(pixels(found["png"]), image)
    body = {"image": {"kind": "own", "png": found["png"]}, "points": [[3, 3]]}
    assert [layer["network"] for layer in client.ask("/api/look", body)[2]["layers"]] == ["discriminator"] * 2


@pytest.mark.parametrize(
    ("path", "body", "kind", "status", "message"),
    [
        ("/api/upload", b"text", BYTES, 400, r"\bformat\b"),
        ("/api/upload", bytes(MAX_UPLOAD + 1), BYTES, 413, r"\b20 MB\b"),
        ("/api/upload", b"x", "text/plain", 415, "application/octet-stream"),
        ("/api/upload", b"x", "multipart/form-data; boundary=x", 415, "application/octet-stream"),
        ("/api/grid", bytes(MAX_REQUEST + 1), JSON, 413, r"\b2 MB\b"),
        ("/api/grid", b"[", JSON, 400, r"\bJSON\b"),
        ("/api/grid", {"count": 1, "seed": 0, "labels": [7]}, JSON, 400, r"\bclass 7\b"),
        ("/api/grid", {"count": 1, "seed": 0}, "text/plain", 415, "application/json"),
        ("/api/figure", {"image": {"kind": "sample", "seed": 0, "index": 0}}, JSON, 400, r"\bpoints\b"),
        ("/api/nothing", b"", JSON, 404, "Not Found"),
        ("/../pyproject.toml", None, JSON, 404, "Not Found"),
        ("/api/grid", None, JSON, 405, "Method Not Allowed"),
    ],
)
def test_errors_are_words(client, path, body, kind, status, message):
    found, headers, answer = client.ask(path, body, kind)
    assert found == status
    assert re.search(message, answer["error"])
    assert "\n" not in answer["error"]
    assert headers["x-content-type-options"] == "nosniff"


def test_a_failure_of_the_server_is_said_without_its_insides(client, explorer, monkeypatch):
    def fail(*_):
        raise RuntimeError("a secret path")

    monkeypatch.setattr(explorer, "grid", fail)
    status, _, answer = client.ask("/api/grid", {"count": 1, "seed": 0})
    assert (status, list(answer)) == (500, ["error"])
    assert "secret" not in answer["error"]


def test_other_names_of_this_machine_are_refused(client):
    assert client.ask("/api/about", Host="elsewhere.example")[0] == 400
    assert client.ask("/api/about", Host="127.0.0.1:1")[0] == 200


def test_an_upload_that_never_ends_is_dropped(client):
    with socket.create_connection(("127.0.0.1", client.port), timeout=20) as connection:
        head = (
            f"POST /api/grid HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {JSON}\r\nContent-Length: 900000000\r\n\r\n"
        )
        connection.sendall(head.encode())
        sent, answer = 0, b""
        try:
            while sent < 900_000_000 and not answer:
                sent += connection.send(bytes(1 << 16))
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    answer = connection.recv(1000)
                connection.settimeout(20)
        except ConnectionError:
            pass
    assert sent < 100_000_000
    assert client.ask("/api/about")[0] == 200


def test_several_clients_at_once_get_their_own(client, explorer):
    asked = [{"kind": "sample", "seed": 200 + i, "index": 0, "label": i % 3} for i in range(24)]
    points = [[[i % 32, (5 * i) % 32]] for i in range(24)]
    wanted = [
        explorer.maps(Sample(**one), [tuple(at) for at in where]) for one, where in zip(asked, points, strict=True)
    ]

    def ask(i):
        return client.ask("/api/look", {"image": asked[i], "points": points[i]})[2]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(24)))
    for i, answer in enumerate(found):
        assert np.array_equal(pixels(answer["png"]), explorer.view(Sample(**asked[i])).image)
        for layer, drawn in zip(answer["layers"], wanted[i], strict=True):
            assert (
                np.abs(pixels(layer["maps"]["0"]["png"]).astype(int) - drawn.maps[0].painted).max() <= 3
            )  # threads round differently


def test_the_next_free_port_is_taken():
    with listen("127.0.0.1") as first, listen("127.0.0.1") as second:
        assert 7860 <= first.getsockname()[1] < second.getsockname()[1] < 7880
        port = first.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port}\b.*Address already in use"):
            listen("127.0.0.1", port)
    with pytest.raises(UserError, match=r"--host no-such-host\.invalid\b"):
        listen("no-such-host.invalid")


def test_addresses():
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::", "192.168.0.1", "x")] == [
        True, True, True, False, False, False, False,
    ]  # fmt: skip
    assert browser_url("127.0.0.1", 80) == "http://127.0.0.1:80"
    assert browser_url("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert browser_url("::1", 80) == "http://[::1]:80"


def test_too_little_memory_is_said_in_words(client, explorer, monkeypatch):
    def exhausted(asked):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")

    monkeypatch.setattr(explorer, "grid", exhausted)
    status, _, found = client.ask("/api/grid", {"labels": [0], "count": 1, "seed": 5})
    assert status == 400
    assert found["error"].startswith("out of memory: request fewer images")


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another thing there")
def test_sagan_explore_serves_and_ends_quietly(run):
    command = [sys.executable, "-m", "sagan", "explore", str(run), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            port = int(re.search(r"http://127\.0\.0\.1:(\d+)", line)[1])
            client = Client(port)
            assert client.ask("/api/about")[2]["step"] == STEP
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, output, errors) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nothing-here", r"nothing-here\b.*\brun\b"),
        ("RUN --port 99999", r"port\b.*\b65535\b.*\b99999\b"),
        ("RUN --host no-such-host.invalid", r"--host no-such-host\.invalid\b"),
        ("RUN --device cuda:99", r"--device cuda:99\b"),
    ],
)
def test_bad_options_are_one_clear_line(command, run, arguments, message):
    words = [run if word == "RUN" else word for word in arguments.split()]
    status, output, errors = command("explore", *words)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert re.search(message, errors)


def test_without_the_server_s_packages_what_to_install_is_said(command, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "sagan.explorer.app", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    status, _, errors = command("explore", run)
    assert status == 2
    assert "pip install 'sagan-torch[explore]'" in errors
