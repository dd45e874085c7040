"""Whether the app lives and what it does, for whoever runs it: off unless asked for with --health yes.

`/metrics` is Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from viewer.engine import Engine
from viewer.sessions import Sessions

HEALTH, METRICS = "/health", "/metrics"


class Metric(NamedTuple):
    """One number and what it means."""

    name: str
    kind: str  # "gauge" or "counter"
    meaning: str
    read: Callable[[Sessions, Engine], float]


METRICS_TOLD = (
    Metric("spark3r_sessions", "gauge", "Open tabs.", lambda sessions, _: len(sessions)),
    Metric("spark3r_runs_waiting", "gauge", "Runs in line.", lambda _, engine: engine.queue.length),
    Metric("spark3r_runs_total", "counter", "Runs that had their turn.", lambda _, engine: engine.queue.turns),
    Metric("spark3r_run_seconds_total", "counter", "Seconds of these runs.", lambda _, engine: engine.queue.seconds),
    Metric("spark3r_result_bytes", "gauge", "Results that tabs keep.", lambda sessions, _: sessions.held_bytes()),
    Metric(
        "spark3r_upload_bytes", "gauge", "Files that visitors brought.",
        lambda _, engine: 0 if engine.uploads is None else engine.uploads.bytes,
    ),
)  # fmt: skip


def health_routes(sessions: Sessions, engine: Engine) -> list[BaseRoute]:
    """GET /health, which needs no password and tells nothing else, and GET /metrics."""

    async def health(request: Request) -> Response:
        return JSONResponse({"ok": True})

    async def metrics(request: Request) -> Response:
        values = {each.name: each.read(sessions, engine) for each in METRICS_TOLD}
        return PlainTextResponse(exposition(values), media_type="text/plain; version=0.0.4")

    return [Route(HEALTH, health, methods=["GET"]), Route(METRICS, metrics, methods=["GET"])]


def exposition(values: Mapping[str, float]) -> str:
    """The numbers as Prometheus reads them."""
    lines = []
    for each in METRICS_TOLD:
        lines += [f"# HELP {each.name} {each.meaning}", f"# TYPE {each.name} {each.kind}"]
        lines.append(f"{each.name} {values[each.name]:g}")
    return "\n".join(lines) + "\n"
