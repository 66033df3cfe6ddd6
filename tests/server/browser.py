"""A headless Chromium, driven through its DevTools protocol: enough to look at a page and press its buttons."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.server.installation import until

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._number = socket, 0
        self.asked: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command, return its answer; addresses that the page asks meanwhile are noted."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("method") == "Network.requestWillBeSent":
                self.asked.append(answer["params"]["request"]["url"])
            self._complained(answer)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _complained(self, event: dict[str, Any]) -> None:
        """Note what the browser's console would show in red: errors of scripts, refused or missing files."""
        about = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(about["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.complaints.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
        elif event.get("method") == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert"):
            self.complaints.append(str(about["args"]))

    def look(self, width: int, height: int, dark: bool = False) -> None:
        """The size of the window, and the colours that the reader's system asks for."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def script(self, expression: str) -> Any:
        """Value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, url: str, shows: str) -> None:
        """Load a page and wait until it shows a text."""
        self.call("Page.navigate", url=url)
        self.until_shown(shows)

    @property
    def text(self) -> str:
        return self.script("document.body ? document.body.innerText : ''")

    def until_shown(self, text: str, timeout: float = 60) -> None:
        try:
            until(lambda: text in self.text, timeout, f"{text!r} on the page")
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows: {self.text[:2000]}") from error

    def press(self, label: str, last: bool = False) -> None:
        """Click what has that label, when it is there."""
        order = ".reverse()" if last else ""
        said = f"e.innerText?.trim() === {json.dumps(label)}"
        find = (  # the innermost element of that text; the click bubbles up to what listens
            f"[...document.querySelectorAll('body *')]{order}.find(e => {said} && e.getClientRects().length"
            f" && ![...e.children].some(e => {said}))"
        )
        until(lambda: self.script(f"!!{find}"), 30, f"button {label!r} among {self.text[:500]!r}")
        self.script(f"{find}.click()")

    def picture(self, path: Path, width: int = 1400, height: int = 1000) -> None:
        """A screenshot."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        time.sleep(2.0)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser with one empty tab, its profile in a folder."""
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--window-size=1400,1000", f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port_file = folder / "DevToolsActivePort"
        until(lambda: port_file.exists() and len(port_file.read_text().splitlines()) == 2, 60, "the browser")
        port = port_file.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            tab = next(each for each in json.loads(answer.read()) if each["type"] == "page")
        with connect(tab["webSocketDebuggerUrl"], max_size=64 << 20) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(timeout=20)
