"""A small stand-in for the Hugging Face hub: one repository's files, and the ways in which a hub can fail."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server has and how it behaves; `requests` tells what was asked of it, as (method, path, range)."""

    files: dict[str, bytes]  # "owner/name/file" → content
    refuse: int = 0  # answer every request with this status
    error_code: str = ""  # the hub's own name for the refusal
    cut_after: int = 0  # drop the connection after so many bytes of a file
    cuts: int = 1  # so many times
    corrupt: bool = False  # send other bytes than promised
    silent: threading.Event | None = None  # send half of a file, and nothing more until this is set
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            span = self.headers.get("Range", "")
            hub.requests.append((self.command, self.path, span))
            match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/([^?]+).*", self.path)
            content = hub.files.get(f"{match[1]}/{match[2]}") if match else None
            if hub.refuse or content is None:
                self._refuse(hub.refuse or 404, hub.error_code or "EntryNotFound")
                return
            start = int(span.removeprefix("bytes=").split("-")[0]) if span else 0
            self.send_response(206 if span else 200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Accept-Ranges", "bytes")
            if span:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if with_body:
                self._send(content[start:])

        def _send(self, body: bytes) -> None:
            if hub.corrupt:
                body = bytes(len(body))
            if hub.cut_after and hub.cuts:
                self.wfile.write(body[: hub.cut_after if hub.cut_after > 1 else 0])
                self.wfile.flush()
                hub.cuts -= 1
                self.close_connection = True
                self.connection.close()
                return
            if hub.silent is not None:
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                hub.silent.wait(60)
                body = body[len(body) // 2 :]
            self.wfile.write(body)

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", "as the test wants it")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
