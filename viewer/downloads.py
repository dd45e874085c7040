"""Exports, made when they are asked for and served under the tab's own unguessable key.

Gradio would copy each file into its temporary folder and serve that folder by path; a scene can be gigabytes.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from spark3r.errors import InputError
from spark3r.export import FORMATS, OWN_WORLD, Filters, Origin, estimated_bytes, file_name, write
from spark3r.formatting import byte_count
from viewer.session import Session
from viewer.state import SIDES, Side

LETTERS: dict[Side, str] = {"left": "A", "right": "B"}  # as the chips call the panes
ALIGNED = "to the dense run of the same frames, by Sim(3): rotation and place from the cameras, scale from depth"


def download_routes(session_of: Callable[[str], Session | None]) -> list[BaseRoute]:
    """GET /download/<key>/<side>.<format>."""

    async def download(request: Request) -> Response:
        session = session_of(request.path_params["key"])
        side, _, suffix = request.path_params["file"].partition(".")
        if session is None or side not in session.scenes or f".{suffix}" not in FORMATS:
            return PlainTextResponse("There is no such file: reload the page and run again.", status_code=404)
        try:
            path = await run_in_threadpool(_make, session, side, f".{suffix}")
        except InputError as error:
            return PlainTextResponse(str(error), status_code=422)
        headers = {"cache-control": "no-store"}
        return FileResponse(
            path,
            filename=path.name,
            headers=headers,
            background=BackgroundTask(shutil.rmtree, path.parent, ignore_errors=True),
        )

    return [Route("/download/{key}/{file}", download, methods=["GET"])]


def links(session: Session) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """(title, ((label, what it holds and how large it is, url), …)) for every finished run, Spark3R first."""
    return [
        (
            LETTERS[side],
            [(kind.label, f"{kind.title} ({_size(session, side, suffix)})", _url(session, side, suffix))
             for suffix, kind in FORMATS.items() if suffix],
        )
        for side in reversed(SIDES)
        if side in session.scenes
    ]  # fmt: skip


def _url(session: Session, side: Side, suffix: str) -> str:
    return f"download/{session.download_key}/{side}{suffix}"


def _size(session: Session, side: Side, suffix: str) -> str:
    return f"about {byte_count(estimated_bytes(session.scenes[side], suffix, _filters(session)))}"


def _filters(session: Session) -> Filters:
    """As the panes show it."""
    return Filters(session.view.min_confidence_percentile, session.view.max_points)


def _make(session: Session, side: Side, suffix: str) -> Path:
    """Write the scene as the panes show it (same confidence and budget) and return the file."""
    filters, clip = _filters(session), session.clip
    origin = Origin(
        clip=clip.name if clip else "",
        alignment=ALIGNED if side == "right" else OWN_WORLD,
        source=clip.source if clip else None,
    )
    path = Path(tempfile.mkdtemp(dir=session.folder)) / _name(session, side, suffix)
    write(
        session.scenes[side], path, min_confidence_percentile=filters.min_confidence_percentile,
        max_points=filters.max_points, origin=origin,
    )  # fmt: skip
    return path


def _name(session: Session, side: Side, suffix: str) -> str:
    return file_name(session.clip.name if session.clip else "scene", session.scenes[side], suffix)
