"""Whether the app lives, and its numbers as Prometheus reads them."""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from viewer.engine import Engine
from viewer.guard import AccessPolicy, Guard
from viewer.health import health_routes
from viewer.sessions import Sessions


def test_health_is_open_and_metrics_want_the_password(engine: Engine, sessions: Sessions) -> None:
    guard = Middleware(Guard, policy=AccessPolicy.of("127.0.0.1", [], "ann:secret"))
    app = Starlette(routes=health_routes(sessions, engine), middleware=[guard])
    client = TestClient(app, base_url="http://localhost:7860")
    assert client.get("/health").json() == {"ok": True}
    assert client.get("/metrics").status_code == 401
    sessions.open("a")
    turns = engine.queue.turns
    with engine.queue.turn(lambda: False, lambda _: None):
        pass
    told = client.get("/metrics", auth=("ann", "secret")).text
    values = dict(line.split(" ") for line in told.splitlines() if not line.startswith("#"))
    assert values["spark3r_sessions"] == "1"
    assert values["spark3r_runs_total"] == str(turns + 1)
    assert values["spark3r_runs_waiting"] == "0"
    assert float(values["spark3r_run_seconds_total"]) >= 0
    assert told.count("# TYPE") == told.count("# HELP") == len(values)
