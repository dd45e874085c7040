"""A soak: visitors who come, run and leave in every way, six at once, and what of them stays.

    python tests/soak.py            an hour
    python tests/soak.py 60         a minute

Prints what the process held before and after, and ends with 1 where something has grown.
"""

import gc
import json
import os
import random
import re
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import viser
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from websockets.typing import Subprotocol

sys.path.insert(0, str(Path(__file__).parents[1]))

from viewer import forgetting as forgetting_module
from viewer import sessions as sessions_module
from viewer import uploads as uploads_module
from viewer.memory import give_back
from viewer.opening import Opening
from viewer.scratch import open_scratch
from viewer.server import Access, Running, running
from viewer.sessions import Lifetimes, Limits

AT_ONCE = 6
LIFETIMES = Lifetimes(closed_s=1.0, unseen_s=3.0, lost_s=3.0)  # as in life, only shorter
LEAVING_SECONDS = 60.0  # that the last visitors' traces may take to go
SMALL = {"Max. frames": 2, "Resolution": 128}  # runs of a moment
POOL = "AnyIO worker thread"  # the server keeps forty at most, and lets idle ones go when it likes
MAY_GROW = {"threads": 4, "files": 12, "ports": 0, "children": 0, "temporary bytes": 0, "RSS MiB": 120}


class Held(NamedTuple):
    """What the process holds."""

    threads: int
    files: int
    ports: int
    children: int
    temporary_bytes: int
    rss_mib: int

    @classmethod
    def now(cls, place: Path) -> "Held":
        """Read from /proc."""
        give_back()
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        listening = sum(
            line.split()[3] == "0A" and int(line.split()[9]) in _own_sockets()
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        )
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        temporary = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        files, rss = len(os.listdir("/proc/self/fd")), int(status["VmRSS"].split()[0]) // 1024
        threads = _threads().total()
        return cls(threads, files, listening, len(children), temporary, rss)


def _threads() -> Counter[str]:
    """How many there are of each name, but for the server's pool."""
    return Counter(thread.name for thread in threading.enumerate() if not thread.name.startswith(POOL))


def _own_sockets() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
    return found


class Visitor:
    """A page as the server sees it."""

    def __init__(self, url: str, config: dict[str, Any]) -> None:
        self.http = httpx.Client(base_url=url, timeout=120, trust_env=False)
        self.hash, self.page, self.beats = secrets.token_hex(5), secrets.token_hex(16), 0
        self.panes: set[str] = set()  # addresses of 3-D views that the page was told
        self._calls = {each["api_name"]: each for each in config["dependencies"]}
        self._parts = {each["id"]: each["props"] for each in config["components"]}

    def call(self, name: str, *given: Any) -> None:
        """Press something; the answer is not awaited."""
        call = self._calls[name]
        data = list(given) or [self._value(part) for part in call["inputs"]]
        body = {"data": data, "fn_index": call["id"], "session_hash": self.hash, "trigger_id": None, "event_data": None}
        self.http.post("/gradio_api/queue/join", json=body).raise_for_status()

    def hear(self, seconds: float) -> None:
        """Follow what the server sends for a while, with signs of life."""
        end = time.monotonic() + seconds
        with suppress(httpx.HTTPError), self.http.stream(
            "GET", "/gradio_api/queue/data", params={"session_hash": self.hash}, timeout=2
        ) as answer:  # fmt: skip
            for line in answer.iter_lines():
                self.panes.update(re.findall(r"viewer/[\w-]{20,}/", line))
                self.live()
                if time.monotonic() > end:
                    return

    def open(self, patience: float = 1.0) -> None:
        """Load the page, and follow for so many seconds at most what it is told first."""
        self.http.get("/").raise_for_status()
        self.call("opened", json.dumps({"page": self.page, "query": "?clip=room_walk"}))
        self.hear(patience)
        self.call("clip_settled")
        self.hear(0.5)

    def press_stop(self) -> None:
        """Stop is heard at once, beside the line of other calls."""
        body = {"data": [], "fn_index": self._calls["stop"]["id"], "session_hash": self.hash}
        self.http.post("/gradio_api/run/predict", json=body).raise_for_status()

    def live(self, what: str = "") -> None:
        self.beats += 1
        self.http.post(f"/alive/{self.page}{what}", json={"beat": self.beats, "key": ""})

    def _value(self, part: int) -> Any:
        props = self._parts[part]
        return SMALL.get(props.get("label", ""), props.get("value"))


def closes(visitor: Visitor) -> None:
    """Looks around, runs, waits for the end, says goodbye."""
    visitor.open()
    visitor.call("run")
    visitor.hear(4.0)
    visitor.live("/bye")


def stops(visitor: Visitor) -> None:
    """Changes their mind in the middle of a run."""
    visitor.open(30.0)  # Stop is nobody's before the page is there
    visitor.live()
    visitor.call("run")
    visitor.live()
    visitor.press_stop()
    visitor.hear(1.0)
    visitor.live("/bye")


def comes_back(visitor: Visitor) -> None:
    """Loses the connection in the middle of a run, and finds it again."""
    visitor.open()
    visitor.call("run")
    visitor.hear(0.3)
    time.sleep(LIFETIMES.lost_s / 2)
    visitor.live()
    visitor.hear(1.0)
    visitor.live("/bye")


def looks(visitor: Visitor) -> None:
    """Opens the 3-D views; their sockets drop."""
    visitor.open(30.0)
    url = visitor.http.base_url
    for pane in visitor.panes:
        visitor.http.get(f"/{pane}").raise_for_status()
        address, spoken = f"ws://{url.host}:{url.port}/{pane}", [Subprotocol(f"viser-v{viser.__version__}")]
        view = connect(address, subprotocols=spoken, max_size=None, proxy=None)
        view.recv(timeout=10.0)
        view.socket.close()
    visitor.live("/bye")


def sends_half(visitor: Visitor) -> None:
    """Begins requests and ends none; says nothing at all."""
    url = visitor.http.base_url
    head = b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n"
    for text in (b"", b"GET / HT", head + b"{"):
        with socket.create_connection((url.host, url.port or 80)) as connection:
            connection.sendall(text)
            time.sleep(0.2)


def falls_silent(visitor: Visitor) -> None:
    """Loses its connection in the middle of a run."""
    visitor.open()
    visitor.call("run")
    visitor.hear(0.3)


def closes_at_a_press(visitor: Visitor) -> None:
    """Presses Run and is gone."""
    visitor.open()

    def press() -> None:
        with suppress(httpx.HTTPError):  # the page is gone: so may its connection be
            visitor.call("run")

    pressing = threading.Thread(target=press)
    pressing.start()
    visitor.live("/bye")
    pressing.join()


def never_lives(visitor: Visitor) -> None:
    """A script that opens a session and no page."""
    visitor.call("opened", "{}")
    visitor.hear(0.5)


def brings_files(visitor: Visitor) -> None:
    """Uploads, breaks one upload off, leaves."""
    visitor.open()
    brought = {"files": ("clip.mp4", os.urandom(200_000))}
    visitor.http.post(f"/gradio_api/upload?upload_id={visitor.hash}", files=brought).raise_for_status()
    url = visitor.http.base_url
    with socket.create_connection((url.host, url.port or 80)) as connection:
        head = f"POST /gradio_api/upload?upload_id={visitor.page} HTTP/1.1\r\nHost: {url.host}\r\n"
        kind = "Content-Length: 900000\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n"
        part = '--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
        connection.sendall((head + kind + part).encode() + b"x" * 100_000)
    visitor.live("/bye")


WAYS: tuple[Callable[[Visitor], None], ...] = (
    closes, stops, falls_silent, comes_back, closes_at_a_press, never_lives, looks, brings_files, sends_half,
)  # fmt: skip


def visit(page: Running, config: dict[str, Any], way: Callable[[Visitor], None], seen: Counter[str]) -> None:
    """One visitor from start to end."""
    visitor = Visitor(page.url, config)
    try:
        way(visitor)
        seen[way.__name__] += 1
    except (httpx.HTTPError, OSError, WebSocketException) as error:
        seen[f"{way.__name__}: {type(error).__name__}"] += 1
    finally:
        visitor.http.close()


def soak(page: Running, seconds: float, place: Path) -> tuple[Held, Held, Counter[str]]:
    """Before and after so many seconds of visitors, and who came."""
    config = httpx.get(f"{page.url}config", trust_env=False).json()
    seen: Counter[str] = Counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:  # what is made once per process is made now
        list(pool.map(lambda way: visit(page, config, way, Counter()), 3 * WAYS))
    settle(page)
    before, end = Held.now(place), time.monotonic() + seconds

    def visitors(number: int) -> None:
        chance, first = random.Random(number), iter(WAYS[number::AT_ONCE])  # so that each comes in a short soak too
        while (way := next(first, None)) or time.monotonic() < end:
            visit(page, config, way or chance.choice(WAYS), seen)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(visitors, range(AT_ONCE)))
    settle(page)
    return before, Held.now(place), seen


def settle(page: Running) -> None:
    """Until the last visitor's session and files are gone, or have had their time."""
    end = time.monotonic() + LEAVING_SECONDS
    engine = page.sessions._engine
    uploads = engine.uploads
    while time.monotonic() < end and (len(page.sessions) or engine.queue.length or (uploads and uploads.bytes)):
        time.sleep(0.2)
    time.sleep(2.0)  # threads that are told to end do so
    gc.collect()


def main(seconds: float) -> int:
    """Print the table; 1 where something has grown."""
    sessions_module.MOST_PAGES = 4
    uploads_module.UNUSED_SECONDS = 1.0
    forgetting_module.KEPT_SECONDS = 1.0
    scratch = open_scratch()
    Opening.start = Opening.stop = lambda opening: None  # type: ignore[method-assign]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    try:
        with running(Access(port=port, limits=Limits(64, 64), lifetimes=LIFETIMES), "mini") as page:
            before, after, seen = soak(page, seconds, Path(tempfile.gettempdir()))
            threads = _threads()
    finally:
        scratch.remove()
    print(f"{seconds:g} s, {AT_ONCE} visitors at once: " + ", ".join(f"{n} × {way}" for way, n in sorted(seen.items())))
    grown = []
    print(f"{'':18}{'before':>12}{'after':>12}{'may grow by':>14}")
    for (name, allowed), was, now in zip(MAY_GROW.items(), before, after, strict=True):
        print(f"{name:18}{was:12}{now:12}{allowed:14}")
        if now - was > allowed:
            grown.append(name)
    if "threads" in grown:
        print("threads now: " + ", ".join(f"{n} × {name}" for name, n in sorted(threads.items())))
    print("grown: " + ", ".join(grown) if grown else "nothing has grown")
    return 1 if grown or not seen else 0


if __name__ == "__main__":
    code = main(float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0)
    sys.stdout.flush()
    os._exit(code)
