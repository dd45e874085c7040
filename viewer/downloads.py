"""Files to take away, made when they are asked for and served under the tab's own unguessable key.

Gradio would copy each file into its temporary folder and serve that folder by path; a scene can be gigabytes.
"""

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from spark3r.errors import InputError
from spark3r.export import FORMATS, write
from viewer.session import Session
from viewer.state import SIDES, TITLES, Side


def download_routes(session_of: Callable[[str], Session | None]) -> list[BaseRoute]:
    """GET /download/<key>/<side>.<format>."""

    async def download(request: Request) -> Response:
        session = session_of(request.path_params["key"])
        side, _, suffix = request.path_params["file"].partition(".")
        if session is None or side not in session.scenes or f".{suffix}" not in FORMATS:
            return PlainTextResponse("There is no such file: reload the page and run again.", status_code=404)
        try:
            path = await run_in_threadpool(_make, session, side, suffix)
        except InputError as error:
            return PlainTextResponse(str(error), status_code=422)
        headers = {"cache-control": "no-store"}
        return FileResponse(
            path, filename=_name(session, side, suffix), headers=headers, background=BackgroundTask(path.unlink)
        )

    return [Route("/download/{key}/{file}", download, methods=["GET"])]


def links(session: Session) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """(title, ((label, what it holds, url), …)) for every finished run, Spark3R first."""
    return [
        (
            TITLES[side],
            [(suffix[1:].upper(), kind.title, _url(session, side, suffix)) for suffix, kind in FORMATS.items()],
        )
        for side in reversed(SIDES)
        if side in session.scenes
    ]


def _url(session: Session, side: Side, suffix: str) -> str:
    return f"download/{session.download_key}/{side}{suffix}"


def _make(session: Session, side: Side, suffix: str) -> Path:
    """Write the scene as the panes show it (same confidence and budget) and return the file."""
    view = session.view
    path = Path(tempfile.mkdtemp(dir=session.folder)) / f"scene.{suffix}"
    write(
        session.scenes[side], path,
        min_confidence_percentile=view.min_confidence_percentile, max_points=view.max_points,
    )  # fmt: skip
    return path


def _name(session: Session, side: Side, suffix: str) -> str:
    clip = session.clip.name if session.clip else "scene"
    plain = re.sub(r"[^A-Za-z0-9]+", "-", os.path.splitext(clip)[0]).strip("-").lower()
    return f"{plain or 'scene'}-{'spark3r' if side == 'reduced' else 'dense'}.{suffix}"
