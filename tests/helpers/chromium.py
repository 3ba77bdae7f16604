"""A headless Chromium (Debian's packages chromium and chromium-driver), driven by Selenium."""

import json
import shutil
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

KEYS = {"ArrowLeft": Keys.ARROW_LEFT, "ArrowUp": Keys.ARROW_UP, "ArrowRight": Keys.ARROW_RIGHT}
KEYS |= {"ArrowDown": Keys.ARROW_DOWN, "Enter": Keys.ENTER, "Escape": Keys.ESCAPE, "Delete": Keys.DELETE}
KEYS |= {"Tab": Keys.TAB}

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


class Chromium:
    """One page of a given size, in pixels, in a browser of its own with a new profile."""

    def __init__(self, width: int, height: int):
        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER or ""
        # Root may not have the browser's sandbox; without the rest it calls home.
        quiet = ("disable-background-networking", "disable-component-update", "disable-sync", "no-first-run")
        for option in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", *quiet):
            options.add_argument(f"--{option}")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.set_script_timeout(120)

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.quit()

    def open(self, url: str) -> None:
        self.driver.get(url)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        return self.driver.execute_async_script(
            f"const done = arguments[arguments.length - 1]; Promise.resolve({script}).then(done)"
        )

    def until(self, script: str, seconds: float = 30) -> None:
        """Waits until a JavaScript expression is true."""
        WebDriverWait(self.driver, seconds, 0.02).until(lambda _: self.run(f"Boolean({script})"), script)

    def text(self, selector: str) -> str:
        return self.driver.find_element(By.CSS_SELECTOR, selector).text

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """A click of the mouse at a share of an element's width and height."""
        element = self.driver.find_element(By.CSS_SELECTOR, selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        size = element.size
        right, down = (x - 0.5) * size["width"], (y - 0.5) * size["height"]
        ActionChains(self.driver, 0).move_to_element_with_offset(element, right, down).click().perform()

    def press(self, *keys: str) -> None:
        """Keys, one after the other."""
        ActionChains(self.driver, 0).send_keys(*(KEYS[key] for key in keys)).perform()

    def give(self, selector: str, path: Path) -> None:
        """Puts a file into a file input."""
        self.driver.find_element(By.CSS_SELECTOR, selector).send_keys(str(path.resolve()))

    def nameless(self) -> list[str]:
        """The controls that have no accessible name, by their role, as a screen reader would be told them."""
        roles = {"button", "checkbox", "combobox", "link", "slider", "spinbutton", "textbox", "image"}
        nodes = self.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        found = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
        assert found
        return [node["role"]["value"] for node in found if not node.get("name", {}).get("value")]

    def screenshot(self, path: Path) -> None:
        self.driver.save_screenshot(str(path))

    def requests(self) -> list[str]:
        """The addresses that the page has asked for since it was opened, or since this was last called."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def errors(self) -> list[str]:
        """What went wrong in the page's own scripts; answers with an error status are not among it."""
        entries = self.driver.get_log("browser")
        return [e["message"] for e in entries if e["level"] == "SEVERE" and e["source"] != "network"]
