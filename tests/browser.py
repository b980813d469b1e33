"""A headless browser for tests of pages."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH: apt-get install chromium")


class Browser:
    """Chromium without a window, spoken to over two pipes in the DevTools protocol."""

    def __init__(self, profile: Path) -> None:
        theirs, self._commands = os.pipe()
        self._answers, ours = os.pipe()
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe")
        # It reads commands from descriptor 3 and answers on 4.
        command = ["bash", "-c", f'exec "$@" 3<&{theirs} 4>&{ours}', "bash", str(CHROMIUM), *flags]
        self._process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}", "--window-size=1366,768"],
            pass_fds=(theirs, ours), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs)
        os.close(ours)
        self._pending = b""
        self._count, self._session = 0, {}
        self._events: list[str] = []
        self.errors: list[Any] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params, **self._session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._count:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._pending:
            assert select.select([self._answers], [], [], 60)[0], "chromium does not answer"
            more = os.read(self._answers, 1 << 20)
            assert more, "chromium ended"
            self._pending += more
        text, _, self._pending = self._pending.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self._events.append(message["method"])
        if message.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.errors.append(message["params"])
        return message

    def open(self, path: Path, fragment: str = "") -> None:
        for address in ("about:blank", path.as_uri() + fragment):
            self._events.clear()
            self.ask("Page.navigate", url=address)
            while "Page.loadEventFired" not in self._events:
                self._read()

    def run(self, script: str) -> Any:
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self) -> None:
        self.ask("Browser.close")
        self._process.wait(30)
        os.close(self._commands)
        os.close(self._answers)
