"""What every request passes before anything of the app sees it: host, origin, password, and the headers of the answer.

A page that listens on this machine alone can still be reached by other web pages: one may point its own name at
127.0.0.1 (DNS rebinding), post a form, or open a socket. So the name asked for must be one that is served, and what
changes something or opens a socket must come from the page itself (OWASP, Cross-Site Request Forgery Prevention).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
READING = frozenset({"GET", "HEAD", "OPTIONS"})
COOKIE = "spark3r"
# What gradio offers and this page has no use for: other sites' files, states of the page that stay on the disk beyond
# every quota, and a stream that tells developers of their changes.
CLOSED = ("/gradio_api/proxy=", "/gradio_api/deep_link", "/gradio_api/dev/")
LONGEST_NAME = 255  # bytes between two slashes of a path: what file systems take
WRONG_PASSWORD_SECONDS = 1.0  # before the answer, so that guessing takes its time
# What tells nothing and is asked without a password: gradio's own call at its start, and whether the app lives.
OPEN_PATHS = frozenset({"/gradio_api/startup-events", "/health"})
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")  # NUL among them
POLICY_VIOLATION = 1008  # close code of RFC 6455 for "not allowed"

# Gradio and viser write styles and small scripts into their pages, and viser runs workers and wasm from blobs; nothing
# comes from elsewhere.
_SOURCES = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'"


@dataclass(frozen=True)
class AccessPolicy:
    """Who may come in: the names that are served, the password, and the sites that may show the page in a frame.

    hosts            names without a port, beside those of this machine; "*" allows every name
    credentials      "user:password", or None for everybody
    frame_ancestors  as in Content-Security-Policy: "'self'", or the address of a site
    """

    hosts: frozenset[str] = LOCAL_NAMES
    credentials: str | None = None
    frame_ancestors: str = "'self'"
    cookie: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @classmethod
    def of(
        cls, listening: str, allowed: Iterable[str], credentials: str | None, frame_ancestors: str = "'self'"
    ) -> AccessPolicy:
        """For an app that listens at an address; a bare address (0.0.0.0) is reached by any number, but by no name
        that is not allowed."""
        return cls(LOCAL_NAMES | {listening.lower()} | {name.lower() for name in allowed}, credentials, frame_ancestors)

    def serves(self, host: str) -> bool:
        """Whether a Host header, with or without a port, names this app."""
        name = _name(host)
        if name in self.hosts or "*" in self.hosts:
            return True
        return bool({"0.0.0.0", "::"} & self.hosts) and _is_number(name)  # a number cannot be rebound

    def knows(self, headers: Headers) -> bool:
        """Whether a request carries the password, or the cookie that an earlier one earned."""
        if self.credentials is None:
            return True
        return _same(_basic(headers), self.credentials) or _same(_cookie(headers), self.cookie)


class Guard:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, policy: AccessPolicy):
        self.app, self.policy = app, policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _refuse(refusal, scope, receive, send)
            return
        if not self.policy.knows(headers) and scope["path"] not in OPEN_PATHS:
            if "authorization" in headers:
                await asyncio.sleep(WRONG_PASSWORD_SECONDS)
            await _refuse(_password_wanted(), scope, receive, send)
            return
        await self.app(scope, receive, self._with_headers(send, headers))

    def _refusal(self, scope: Scope, headers: Headers) -> PlainTextResponse | None:
        host = headers.get("host", "")
        if not self.policy.serves(host):
            name = _name(host) or "no name"
            sentence = f"The app does not answer to {name}: start it with --allow-host {name} if it should."
            return PlainTextResponse(sentence, status_code=421)
        changes = scope["type"] == "websocket" or scope["method"] not in READING
        if changes and not same_origin(headers):
            return PlainTextResponse("This request came from another site.", status_code=403)
        return _no_address(scope)

    def _with_headers(self, send: Send, asked: Headers) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["content-security-policy"] = f"{_SOURCES}; frame-ancestors {self.policy.frame_ancestors}"
                headers["x-content-type-options"] = "nosniff"
                headers.setdefault("referrer-policy", "same-origin")
                if self.policy.credentials is not None and "authorization" in asked:
                    secure = "; Secure" if asked.get("x-forwarded-proto") == "https" else ""
                    headers.append(
                        "set-cookie", f"{COOKIE}={self.policy.cookie}; HttpOnly; SameSite=Strict; Path=/{secure}"
                    )
            await send(message)

        return sending


def _no_address(scope: Scope) -> PlainTextResponse | None:
    """The refusal of what can be no address here, and what opens files or builds addresses would break off over."""
    if _CONTROLS.search(scope["path"]) or b"%00" in scope["query_string"]:
        return PlainTextResponse("No address of this app holds control characters.", status_code=400)
    if any(len(name.encode()) > LONGEST_NAME for name in scope["path"].split("/")):
        return PlainTextResponse("No address of this app has so long a name in it.", status_code=414)
    if scope["path"].startswith(CLOSED):
        return PlainTextResponse("Not Found", status_code=404)
    return None


def same_origin(headers: Headers) -> bool:
    """True when the page that sent the request came from this very host, or no browser is involved."""
    origin = headers.get("origin")
    if origin is None:
        return True
    own = (headers.get("x-forwarded-host"), headers.get("host"))
    try:
        site = urlsplit(origin).netloc  # empty for the opaque origin "null"
    except ValueError:  # an address that none is
        return False
    return bool(site) and site in own


def _password_wanted() -> PlainTextResponse:
    return PlainTextResponse(
        "This page wants a user name and a password.",
        status_code=401,
        headers={"www-authenticate": 'Basic realm="Spark3R", charset="UTF-8"'},
    )


async def _refuse(response: PlainTextResponse, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()  # the handshake, which is answered by closing
        await send({"type": "websocket.close", "code": POLICY_VIOLATION})
    else:
        await response(scope, receive, send)


def _name(host: str) -> str:
    """The name of a Host header without its port: "[::1]:7860" → "::1"."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _basic(headers: Headers) -> str:
    """ "user:password" of an Authorization header (RFC 7617), "" if there is none."""
    kind, _, code = headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return ""
    try:
        return base64.b64decode(code, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
