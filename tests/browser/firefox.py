"""The page in Firefox: `python tests/browser/firefox.py [PICTURE.png]`, for Debian's firefox-esr.

Starts the app, opens it in Firefox, waits for the first example, presses the button and waits for the end; prints what
it saw, and ends with 1 where something is missing. Firefox is driven by its own protocol, Marionette, as Playwright
drives only a Firefox of its own. Without a display it has no WebGL: then the panes' clouds are not asked for, but all
else is. With software WebGL: `xvfb-run python tests/browser/firefox.py`.
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.browser.conftest import HURRIED, free_port, wait_for_server  # noqa: E402  the path comes first, in a script

PATIENCE_SECONDS = 240
SOFTWARE = ("webgl.force-enabled", "webgl.disable-fail-if-major-performance-caveat", "gfx.webrender.software")
SEEN = """const shown = (side) => document.querySelector(`#pane-${side} iframe`)?.contentWindow?.__viserMutable;
return {
  runs: document.querySelectorAll(".dot").length,
  frames: document.querySelector(".strip-root")?.dataset.complete === "true",
  clouds: ["left", "right"].every((side) => shown(side)?.nodeRefFromName?.["/cloud"]),
  phase: document.querySelector("#progress .progress")?.dataset.phase,
  factor: document.querySelector("[data-testid=speedup]")?.textContent ?? "",
  verdict: document.querySelector("[data-testid=verdict]")?.textContent ?? "",
  overflows: document.documentElement.scrollWidth > innerWidth,
};"""


class Marionette:
    """A connection to a Firefox that was started with --marionette."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self._socket, self._number, self._rest = self._connected(port, process), 0, b""
        self._message()  # the greeting

    def ask(self, command: str, **parameters: Any) -> Any:
        """The answer to a command. Raises RuntimeError for a refusal."""
        self._number += 1
        words = json.dumps([0, self._number, command, parameters]).encode()
        self._socket.sendall(str(len(words)).encode() + b":" + words)
        _, _, refusal, answer = self._message()
        if refusal:
            raise RuntimeError(refusal["message"])
        return answer

    def run(self, script: str) -> Any:
        """What a script in the page returns."""
        return self.ask("WebDriver:ExecuteScript", script=script, args=[])["value"]

    def close(self) -> None:
        self._socket.close()

    def _connected(self, port: int, process: subprocess.Popen[bytes]) -> socket.socket:
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            assert process.poll() is None, "Firefox ended at its start"
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
            except OSError:
                assert time.monotonic() < end, "Firefox did not come up"
                time.sleep(0.5)

    def _message(self) -> Any:
        while b":" not in self._rest:
            self._rest += self._received()
        length, _, self._rest = self._rest.partition(b":")
        while len(self._rest) < int(length):
            self._rest += self._received()
        words, self._rest = self._rest[: int(length)], self._rest[int(length) :]
        return json.loads(words)

    def _received(self) -> bytes:
        came = self._socket.recv(1 << 16)
        assert came, "Firefox hung up"
        return came


def main() -> int:
    with app() as url, firefox() as browser:
        browser.ask("WebDriver:Navigate", url=url)
        has_webgl = browser.run("return Boolean(document.createElement('canvas').getContext('webgl2'))")
        wanted = ("frames", "clouds") if has_webgl else ("frames",)
        first = wait(browser, lambda seen: seen["runs"] >= 2 and all(seen[part] for part in wanted))
        print("WebGL: yes" if has_webgl else "WebGL: no, so no clouds")
        print(f"first example: {first['verdict'].strip()}", flush=True)
        browser.run("document.querySelector('#run').click()")
        wait(browser, lambda seen: seen["phase"] not in ("done", None))
        last = wait(browser, lambda seen: seen["phase"] == "done" and seen["factor"])
        print(f"measured again: {last['factor']}, {last['verdict'].strip()}")
        if sys.argv[1:]:
            time.sleep(5)  # what came is drawn
            picture = browser.ask("WebDriver:TakeScreenshot", full=False)["value"]
            Path(sys.argv[1]).write_bytes(base64.b64decode(picture))
    return int(last["overflows"])


def wait(browser: Marionette, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """What the page shows, once that holds."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds(seen := browser.run(SEEN)):
        assert time.monotonic() < end, f"it did not come true in time: {seen}"
        time.sleep(0.25)
    return seen


@contextmanager
def app() -> Iterator[str]:
    url = f"http://127.0.0.1:{(port := free_port())}/"
    server = subprocess.Popen([sys.executable, str(HURRIED), "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        wait_for_server(url, server)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


@contextmanager
def firefox() -> Iterator[Marionette]:
    program = shutil.which("firefox-esr") or shutil.which("firefox") or sys.exit("no Firefox: install firefox-esr")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        settings = {"marionette.port": (port := free_port()), **dict.fromkeys(SOFTWARE, True)}
        lines = [f'user_pref("{name}", {json.dumps(value)});\n' for name, value in settings.items()]
        (Path(profile) / "user.js").write_text("".join(lines))
        shown = [] if os.environ.get("DISPLAY") else ["--headless"]
        process = subprocess.Popen(
            [program, *shown, "--marionette", "--no-remote", "--profile", profile],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            browser = Marionette(port, process)
            with closing(browser):
                browser.ask("WebDriver:NewSession")
                browser.ask("WebDriver:SetWindowRect", width=1440, height=960)
                yield browser
        finally:
            process.terminate()
            process.wait(timeout=30)


if __name__ == "__main__":
    sys.exit(main())
