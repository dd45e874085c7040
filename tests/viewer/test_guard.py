"""The guard: which names, origins and passwords reach the app, and what its answers carry."""

import base64

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from viewer import guard
from viewer.guard import COOKIE, AccessPolicy, Guard


def client_of(policy: AccessPolicy, name: str = "localhost:7860") -> TestClient:
    """A browser that asks for an app under a name."""

    async def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse("the page")

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.close()

    routes = [Route("/", page, methods=["GET", "POST"]), WebSocketRoute("/socket", socket)]
    return TestClient(
        Starlette(routes=routes, middleware=[Middleware(Guard, policy=policy)]), base_url=f"http://{name}"
    )


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "WRONG_PASSWORD_SECONDS", 0.0)


def opens(client: TestClient, **headers: str) -> bool:
    try:
        with client.websocket_connect("ws://localhost:7860/socket", headers=headers) as socket:
            return socket.receive_text() == "hello"
    except WebSocketDisconnect as refused:
        if refused.code != guard.POLICY_VIOLATION:
            raise
        return False


@pytest.mark.parametrize(
    ("listening", "allowed", "asked", "answers"),
    [
        ("127.0.0.1", [], "localhost:7860", True),
        ("127.0.0.1", [], "127.0.0.1", True),
        ("127.0.0.1", [], "[::1]:7860", True),
        ("127.0.0.1", [], "LOCALHOST.", True),
        ("127.0.0.1", [], "evil.example", False),
        ("127.0.0.1", [], "localhost.evil.example:7860", False),
        ("127.0.0.1", [], "10.0.0.7", False),
        ("127.0.0.1", ["Studio.example"], "studio.example", True),
        ("0.0.0.0", [], "10.0.0.7:7860", True),
        ("0.0.0.0", [], "evil.example:7860", False),
        ("10.0.0.7", [], "10.0.0.7:7860", True),
        ("127.0.0.1", ["*"], "anything.example", True),
    ],
)
def test_only_served_names_are_answered(listening: str, allowed: list[str], asked: str, answers: bool) -> None:
    client = client_of(AccessPolicy.of(listening, allowed, None))
    answer = client.get("/", headers={"host": asked})
    assert (answer.status_code == 200) is answers
    if not answers:
        assert answer.status_code == 421
        assert "--allow-host" in answer.text
    assert opens(client, host=asked) is answers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://[::1"])
def test_another_site_changes_nothing_and_opens_no_socket(origin: str) -> None:
    client = client_of(AccessPolicy.of("127.0.0.1", [], None))
    assert client.post("/", headers={"origin": origin}).status_code == 403
    assert not opens(client, origin=origin)
    assert client.get("/", headers={"origin": origin}).status_code == 200  # following a link changes nothing
    assert client.post("/", headers={"origin": "http://localhost:7860"}).status_code == 200
    assert opens(client, origin="http://localhost:7860")


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_with_a_password_nothing_is_open() -> None:
    client = client_of(AccessPolicy.of("127.0.0.1", [], "ann:zwölf"))
    wrong = [{}, {"authorization": basic("ann:wrong")}, {"authorization": "Basic ?"}, {"cookie": f"{COOKIE}=guess"}]
    for headers in wrong:
        for answer in (client.get("/", headers=headers), client.post("/", headers=headers)):
            assert answer.status_code == 401
            assert "the page" not in answer.text
            assert answer.headers["www-authenticate"].startswith("Basic")
            assert "set-cookie" not in answer.headers
        assert not opens(client, **headers)


def test_a_password_earns_a_cookie_for_what_cannot_send_it() -> None:
    client = client_of(AccessPolicy.of("127.0.0.1", [], "ann:zwölf"))
    answer = client.get("/", headers={"authorization": basic("ann:zwölf")})
    assert answer.text == "the page"
    assert "HttpOnly; SameSite=Strict" in answer.headers["set-cookie"]
    assert opens(client)  # the socket sends the cookie alone


def test_answers_tell_browsers_what_to_refuse() -> None:
    headers = client_of(AccessPolicy.of("127.0.0.1", [], None, "https://huggingface.co")).get("/").headers
    assert "frame-ancestors https://huggingface.co" in headers["content-security-policy"]
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
