"""A real browser: Chromium without a window, spoken to by its DevTools protocol over a WebSocket."""

import asyncio
import base64
import itertools
import json
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from deploy.local.chromium import ensure_chromium
from deploy.local.waiting import until

_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip


@dataclass
class Tab:
    """One page, what it asked for over any network, and what it complained of."""

    socket: ClientConnection
    requests: list[str] = field(default_factory=list[str])
    complaints: list[str] = field(default_factory=list[str])
    _numbers: Any = field(default_factory=lambda: itertools.count(1))
    _answers: dict[int, asyncio.Future[Any]] = field(default_factory=dict[int, asyncio.Future[Any]])
    _loaded: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        """Until the socket closes."""
        async for message in self.socket:
            self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        if (number := message.get("id")) is not None:
            self._answers.pop(number).set_result(message)
            return
        given = message.get("params", {})
        match message["method"]:
            case "Network.requestWillBeSent":
                self.requests.append(given["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(given["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if given["type"] in {"error", "warning", "assert"}:
                self.complaints.append(str(given["args"]))
            case "Log.entryAdded" if given["entry"]["level"] in {"error", "warning"}:
                self.complaints.append(given["entry"]["text"])
            case "Page.loadEventFired":
                self._loaded.set()
            case _:
                pass

    async def call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol, and its result."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        answer = await asyncio.wait_for(self._answers[number], 20)
        assert "error" not in answer, answer
        return answer["result"]

    async def open(self, url: str, *, width: int, height: int, dark: bool = False) -> None:
        """Load a page on a screen of this size, offline for whatever is not a file of this machine."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), 20)

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        result = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def screenshot(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])


@asynccontextmanager
async def browsing() -> AsyncGenerator[Tab]:
    """A fresh browser with one empty page. Raises MissingProgram where there is none and none may be installed."""
    program = ensure_chromium()
    with tempfile.TemporaryDirectory(prefix="vitrine-browser-", ignore_cleanup_errors=True) as folder:
        port = Path(folder) / "DevToolsActivePort"
        process = await asyncio.create_subprocess_exec(
            program,
            *_OPTIONS,
            f"--user-data-dir={folder}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:

            async def listens() -> bool:
                return process.returncode is not None or (port.exists() and "\n" in port.read_text())

            await until(listens, 30, "the browser did not start")
            async with _tab(*port.read_text().split("\n", 1)) as tab:
                yield tab
        finally:
            process.terminate()
            await process.wait()


@asynccontextmanager
async def _tab(port: str, path: str) -> AsyncGenerator[Tab]:
    async with connect(f"ws://127.0.0.1:{port}{path}", max_size=None) as socket:
        browser = Tab(socket)
        listening = asyncio.create_task(browser.listen())
        target = (await browser.call("Target.createTarget", url="about:blank"))["targetId"]
        async with connect(f"ws://127.0.0.1:{port}/devtools/page/{target}", max_size=None) as own:
            tab = Tab(own)
            task = asyncio.create_task(tab.listen())
            for domain in ("Page", "Runtime", "Log", "Network"):
                await tab.call(f"{domain}.enable")
            yield tab
            task.cancel()
        listening.cancel()
        await asyncio.gather(task, listening, return_exceptions=True)
