"""Push to a Hub and load again, over huggingface_hub's own client and a small server that speaks its protocol."""

import base64
import hashlib
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import sagan
from helpers.runs import NAMES, STEP, make_run
from sagan.cli import main
from sagan.errors import UserError
from sagan.figures.grid import draw_grid, save
from sagan.files import load_tensors, save_tensors
from sagan.hub.repository import load, push, save_pretrained
from sagan.marks import step_of
from sagan.model.generator import Generator
from sagan.run import Run, read_generator
from sagan.sampling import draw_latents

hub = pytest.importorskip("huggingface_hub")


class Server(ThreadingHTTPServer):
    """Repositories in memory: `files` by repository and name, `commits` a list of the names in each."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.commits, self.requests, self.refuses = {}, [], [], False

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, content, status=200, **headers):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(self.path)
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            wanted = json.loads(body)
            self.server.files.setdefault(f"{wanted['organization']}/{wanted['name']}", {})
            return self.answer({"url": f"{self.server.url}/{wanted['organization']}/{wanted['name']}"})
        if path == "/api/validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---")[1])
            return self.answer({"errors": [], "warnings": []})
        repo = "/".join(path.split("/")[3:5])
        if path.endswith("/preupload/main"):
            sent = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in sent]
            return self.answer({"files": modes})
        assert path == f"/api/models/{repo}/commit/main"
        if self.server.refuses:
            return self.answer({"error": "Invalid credentials in Authorization header"}, 401)
        lines = [json.loads(line) for line in body.splitlines()]
        assert lines[0]["key"] == "header"
        files = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines[1:]}
        self.server.files[repo] |= files
        self.server.commits.append(sorted(files))
        return self.answer({"commitUrl": f"{self.server.url}/{repo}/commit/1", "commitOid": "1" * 40, "success": True})

    def do_GET(self):
        self.server.requests.append(self.path)
        user, name, _, _, file = self.path.partition("?")[0].strip("/").split("/")
        data = self.server.files.get(f"{user}/{name}", {}).get(file)
        if data is None:
            return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        etag = hashlib.sha256(data).hexdigest()
        return self.answer(data, ETag=f'"{etag}"', X_Repo_Commit="1" * 40)

    do_HEAD = do_GET


@pytest.fixture
def server(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_pushed_and_loaded_again_it_is_the_same(server, tmp_path):
    run = make_run(tmp_path / "run")
    Image.new("RGB", (8, 8)).save(run.path / "attend.png")
    said = []

    def log(line):
        assert server.requests == []  # it is said before anything is sent
        said.append(line)

    url = push(run.path, "someone/owls", licence="cc-by-4.0", endpoint=server.url, log=log)
    assert url.startswith(server.url)
    names = ["README.md", "attend.png", "config.json", "generator.safetensors", "samples.png"]
    assert server.commits == [names]  # all of it in one commit
    assert [line.split()[0] for line in sorted(said[1:])] == names

    z, y = draw_latents(6, 8, seed=0), torch.arange(6) % 3
    ours, theirs = sagan.load(run.path), load("someone/owls", endpoint=server.url)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(t, theirs.state_dict()[name]) for name, t in ours.state_dict().items())
    assert torch.equal(ours(z, y), theirs(z, y))
    assert server.files["someone/owls"]["generator.safetensors"] == run.generator_path.read_bytes()


def test_a_fetched_repository_is_a_run(server, tmp_path):
    run = make_run(tmp_path / "run")
    push(run.path, "someone/owls", endpoint=server.url, log=lambda line: None)
    (tmp_path / "fetched").mkdir()
    for name, data in server.files["someone/owls"].items():
        (tmp_path / "fetched" / name).write_bytes(data)
    assert Run(tmp_path / "fetched").info == run.info
    assert main(["sample", str(tmp_path / "fetched"), "--classes", "white mice", "--count", "2"]) == 0


def test_a_local_path_wins(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / "someone" / "owls", seed=1)
    push(make_run(tmp_path / "other", seed=2).path, "someone/owls", endpoint=server.url, log=lambda line: None)
    before = len(server.requests)
    weights = load("someone/owls", endpoint=server.url).state_dict()
    assert len(server.requests) == before
    assert torch.equal(weights["bn.shift"], read_generator(run.path)[0].bn.shift)


def test_what_is_fetched_is_checked(server, tmp_path):
    run = make_run(tmp_path / "run")
    push(run.path, "someone/owls", endpoint=server.url, log=lambda line: None)
    files = server.files["someone/owls"]
    whole = files["generator.safetensors"]
    for damaged in (whole[:-50], whole[:-1] + bytes([whole[-1] ^ 1]), b"\x80\x04cos\nsystem\n"):
        files["generator.safetensors"] = damaged
        with pytest.raises(UserError, match=r"\bdamaged\b"):
            load("someone/owls", endpoint=server.url)


def test_a_small_file_of_a_huge_network_takes_no_memory(tmp_path):
    tensors, metadata = load_tensors(make_run(tmp_path / "run").generator_path)
    metadata["model"]["base_channels"] = 10**6
    save_tensors(tmp_path / "x.safetensors", tensors, metadata)
    with pytest.raises(UserError, match=r"x\.safetensors\b.*\bconfiguration\b"):
        sagan.load(tmp_path / "x.safetensors")


def test_nothing_is_sent_on_a_dry_run(server, tmp_path, capsys):
    run = make_run(tmp_path / "run")
    assert push(run.path, "someone/owls", dry_run=True, endpoint=server.url) is None
    assert "someone/owls" in capsys.readouterr().out
    assert server.requests == []
    assert main(["push", str(run.path), "someone/owls", "--dry-run", "True"]) == 0
    assert re.search(r"\blicence\b.*\bunknown\b", capsys.readouterr().out)


def test_refused(server, tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    server.refuses = True
    with pytest.raises(UserError, match=r"someone/owls\b.*401.*\bhf auth login\b") as caught:
        push(run.path, "someone/owls", endpoint=server.url, log=lambda line: None)
    assert "\n" not in str(caught.value)
    assert server.files == {"someone/owls": {}}
    with pytest.raises(UserError, match="USER/NAME"):
        push(run.path, "owls", endpoint=server.url)
    with pytest.raises(UserError, match=r"no/where\b.*\bHub\b.*404"):
        load("no/where", endpoint=server.url)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: push(run.path, "a/b"), lambda: load("a/b")):
        with pytest.raises(UserError, match=r"pip install 'sagan-torch\[hub\]'"):
            call()


@pytest.mark.slow  # huggingface_hub tries again for 20 s
def test_a_hub_that_nobody_answers_for():
    with pytest.raises(UserError, match=r"no/where\b.*\bHub\b") as caught:
        load("no/where", endpoint="http://127.0.0.1:9")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", [NAMES, ()])
def test_save_pretrained_and_from_pretrained(tmp_path, names):
    run = make_run(tmp_path / "run", names=names)
    z, y = draw_latents(6, 8, seed=0), torch.arange(6) % 3
    as_trained = read_generator(run.path)[0]
    loaded = Generator.from_pretrained(run.path)
    for number, generator in enumerate((as_trained, loaded)):
        folder = tmp_path / str(number)
        assert generator.save_pretrained(folder, class_names=names) == folder / "generator.safetensors"
        again, class_names, _ = read_generator(folder / "generator.safetensors")
        assert class_names == names
        assert all(torch.equal(t, generator.state_dict()[name]) for name, t in again.state_dict().items())
        assert torch.equal(Generator.from_pretrained(folder)(z, y), loaded(z, y))
    with pytest.raises(ValueError, match="class_names"):
        save_pretrained(loaded, tmp_path / "x", class_names=("one", "two"))


def test_normalised_class_tables_are_kept_and_loaded_ones_are_plain(tmp_path):
    run = make_run(tmp_path / "run", architecture="imported", class_spectral_norm=True)
    z, y = draw_latents(6, 8, seed=0), torch.arange(6) % 3
    as_trained, loaded = read_generator(run.path)[0], Generator.from_pretrained(run.path)
    for number, generator in enumerate((as_trained, loaded)):
        again, _, _ = read_generator(generator.save_pretrained(tmp_path / str(number)))
        assert again.config.generator_spectral_norm == (generator is as_trained)
        assert hasattr(again.blocks[0].bn1, "scale_sn") == (generator is as_trained)
        assert torch.equal(sagan.load(tmp_path / str(number))(z, y), loaded(z, y))


@pytest.mark.parametrize("shown", [STEP, STEP - 3, None])
def test_all_that_is_pushed_is_of_the_same_step(server, tmp_path, shown):
    """An attention figure of other weights is drawn again, and the card writes the step under each figure."""
    run = make_run(tmp_path / "run")
    page = draw_grid(np.zeros((1, 8, 8, 3), np.uint8), columns=1)
    save(page, run.path / "attend.png", step=shown)
    before = (run.path / "attend.png").read_bytes()
    push(run.path, "someone/owls", endpoint=server.url, log=lambda line: None)
    files = server.files["someone/owls"]
    assert (files["attend.png"] == before) == (shown == STEP)
    assert step_of(files["attend.png"]) == step_of(files["samples.png"]) == STEP
    assert len(re.findall(rf"; step {STEP}\.\*$", files["README.md"].decode(), re.MULTILINE)) == 2
    assert (run.path / "attend.png").read_bytes() == before  # the run's own stays
