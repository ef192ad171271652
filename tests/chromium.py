"""Headless Chromium by its DevTools protocol, over a pipe: no driver, no port, no waiting by the clock."""

import json
import os
import shutil
import subprocess
from pathlib import Path

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """A page in a browser of its own, without network. Use it in a `with`; the browser ends with it.

    Attributes:
        requested: addresses that the page asked for, in order.
        messages: what the page's console and its uncaught errors said.
    """

    def __init__(self, address: str, profile: Path) -> None:
        self.requested: list[str] = []
        self.messages: list[str] = []
        self._last, self._loaded = 0, False
        read, child_write = os.pipe()
        child_read, write = os.pipe()
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
        # The browser reads commands from descriptor 3 and writes to descriptor 4.
        shell = f'exec "$@" 3<&{child_read} 4>&{child_write}'
        self._process = subprocess.Popen(
            ["sh", "-c", shell, "sh", PROGRAM, *flags, f"--user-data-dir={profile}", "--remote-debugging-pipe"],
            pass_fds=(child_read, child_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(child_read)
        os.close(child_write)
        self._from, self._to = os.fdopen(read, "rb"), os.fdopen(write, "wb")
        self._buffer = b""
        self._session = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "DOM"):
            self.send(f"{domain}.enable")
        no_network = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        self.send("Network.emulateNetworkConditions", **no_network)
        self.send("Page.navigate", url=address)
        while not self._loaded:
            self._note(self._receive())

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.wait()
        self._from.close()
        self._to.close()

    def send(self, method: str, **parameters) -> dict:
        """A command's result."""
        self._last += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._last, "method": method, "params": parameters} | session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while (answer := self._receive()).get("id") != self._last:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def evaluate(self, expression: str) -> object:
        """The value of an expression of JavaScript, awaited."""
        found = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']} {self.messages}")
        return found["result"].get("value")

    def choose_file(self, selector: str, path: Path) -> None:
        """Give a file to an input, as its user would."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def _receive(self) -> dict:
        while b"\0" not in self._buffer:
            more = os.read(self._from.fileno(), 1 << 16)
            if not more:
                raise RuntimeError(f"{PROGRAM}: ended by itself")
            self._buffer += more
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: dict) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requested.append(parameters["request"]["url"])
            case "Runtime.exceptionThrown":
                self.messages.append(str(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.messages.append(str(parameters["args"]))
