"""Tar files for the tests, honest and hostile, and a server of files."""

import io
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sagan.config import DataConfig
from sagan.data import prepare


def add(tar, name, data=b"", **fields):
    """A member; `fields` are of its TarInfo."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(data))


def write_shards(folder, images, per_shard, *, labels=None, name="set"):
    """Plain WebDataset shards of these images; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for start in range(0, len(images), per_shard):
        paths.append(folder / f"{name}-{len(paths):06d}.tar")
        with tarfile.open(paths[-1], "w") as tar:
            for number in range(start, min(start + per_shard, len(images))):
                add(tar, f"{number:06d}.png", images[number])
                if labels is not None:
                    add(tar, f"{number:06d}.cls", str(labels[number]).encode())
                add(tar, f"{number:06d}.json", b"{}")
    return paths


def load(source, resolution=8, **options):
    """The images of a source at 8 px."""
    config = DataConfig(source=str(source), **options)
    return prepare(config, resolution=resolution, image_channels=3, progress=False)


def numbers(images):
    """The images' numbers, by their colours."""
    return (images[:, 0, 0, 0].int() + 256 * images[:, 1, 0, 0].int()).tolist()


@contextmanager
def serve(folder, *, ranges=True):
    """A server of a folder's files; gives its URL, and an object whose `refuses(path)` says which requests fail."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            server.requests.append((self.path, self.headers.get("Range")))
            path = folder / self.path.lstrip("/")
            data = path.read_bytes() if path.is_file() else b""
            status = 200 if path.is_file() else 404
            if status == 200 and server.refuses(self.path):
                status, data = 503, b""
            wanted = self.headers.get("Range")
            if wanted and ranges and status == 200:
                first, last = wanted.removeprefix("bytes=").split("-")
                whole, first = len(data), int(first)
                data, status = data[first : int(last) + 1 if last else None], 206
            self.send_response(status)
            if ranges:
                self.send_header("Accept-Ranges", "bytes")
            if status == 206:
                self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{whole}")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.refuses, server.requests = lambda path: False, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
