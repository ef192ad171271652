"""Headless Chromium by its DevTools protocol, over a pipe: no driver, no port, no waiting by the clock."""

import fcntl
import json
import os
import shutil
import signal
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
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
        words = [PROGRAM, *flags, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        self._process, self._from, self._to = _spawn(words)
        self._buffer = b""
        self._session = None
        try:
            self._open(address)
        except BaseException:
            self.__exit__()
            raise

    def _open(self, address: str) -> None:
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
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._from)
        os.close(self._to)

    def send(self, method: str, **parameters) -> dict:
        """A command's result."""
        self._last += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._last, "method": method, "params": parameters} | session
        with os.fdopen(self._to, "wb", closefd=False) as pipe:
            pipe.write(json.dumps(message).encode() + b"\0")
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
            more = os.read(self._from, 1 << 16)
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


def _spawn(words: list[str]) -> tuple[int, int, int]:
    """The browser's process, and the descriptors from which it is read and by which it is told.

    It reads commands from its descriptor 3 and writes to 4: ours are moved above those first.
    """
    low = [*os.pipe(), *os.pipe()]
    theirs_read, told, read, theirs_write = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low)
    quiet = [(os.POSIX_SPAWN_OPEN, descriptor, os.devnull, os.O_RDWR, 0) for descriptor in range(3)]
    ends = [(os.POSIX_SPAWN_DUP2, theirs_read, 3), (os.POSIX_SPAWN_DUP2, theirs_write, 4)]
    process = os.posix_spawn(words[0], words, os.environ, file_actions=[*quiet, *ends])
    for end in (*low, theirs_read, theirs_write):
        os.close(end)
    return process, read, told
