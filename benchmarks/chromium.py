"""A headless Chromium, driven over its debugging pipe: no package is needed but the browser."""

import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Escape": 27, "Delete": 46}
KEYS |= {"Tab": 9, "Home": 36, "End": 35}


def find_chromium() -> str | None:
    """The browser's path; None where there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Chromium:
    """One page in a browser of its own, with a profile that is thrown away."""

    def __init__(self, width: int, height: int):
        command = find_chromium()
        if command is None:
            raise FileNotFoundError("no chromium here: apt-get install chromium")
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.numbers = itertools.count(1)
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, from_browser = os.pipe(), os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to 4; these are moved out of their way first.
        reads, writes = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (to_browser[0], from_browser[1]))

        def put_in_place() -> None:
            os.dup2(reads, 3)
            os.dup2(writes, 4)

        options = ["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--no-first-run", "--disable-gpu"]
        self.process = subprocess.Popen(
            [command, *options, f"--user-data-dir={self.profile.name}", "about:blank"],
            close_fds=False,
            preexec_fn=put_in_place,
            stderr=subprocess.DEVNULL,
        )
        for fd in (to_browser[0], from_browser[1], reads, writes):
            os.close(fd)
        self.commands, self.answers = os.fdopen(to_browser[1], "wb", 0), os.fdopen(from_browser[0], "rb")
        self.rest = b""
        self.session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(self, *_: object) -> None:
        self.session = None
        try:
            self.send("Browser.close")
            self.process.wait(10)
        except (subprocess.TimeoutExpired, RuntimeError, OSError):
            self.process.kill()
        self.profile.cleanup()

    def send(self, method: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol, and its result."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        self.commands.write(
            json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0"
        )
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _receive(self) -> Any:
        while b"\0" not in self.rest:
            data = self.answers.read1(1 << 16)
            if not data:
                raise RuntimeError("the browser has ended")
            self.rest += data
        text, _, self.rest = self.rest.partition(b"\0")
        message = json.loads(text)
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(message["params"]["exceptionDetails"])[:500])
        return message

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        found = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"].get("exception", {}).get("description", script))
        return found["result"].get("value")

    def until(self, script: str, seconds: float = 20) -> None:
        """Waits until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({script})"):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds} s: {script}")
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)}).textContent")

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """A click of the mouse at a share of an element's width and height."""
        found = json.dumps(selector)
        self.run(f"document.querySelector({found}).scrollIntoView({{ block: 'center', behavior: 'instant' }})")
        box = self.run(f"(({{ x, y, width, height }}) => [x, y, width, height])"
                       f"(document.querySelector({found}).getBoundingClientRect())")  # fmt: skip
        at = {"x": box[0] + x * box[2], "y": box[1] + y * box[3], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, **at)

    def press(self, *keys: str) -> None:
        """Keys, one after the other."""
        for key in keys:
            at = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
            text = {"text": "\r"} if key == "Enter" else {}
            self.send("Input.dispatchKeyEvent", type="keyDown", **at, **text)
            self.send("Input.dispatchKeyEvent", type="keyUp", **at)

    def give(self, selector: str, path: Path) -> None:
        """Puts a file into a file input."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", files=[str(path.resolve())], nodeId=node)

    def screenshot(self, path: Path) -> None:
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))
