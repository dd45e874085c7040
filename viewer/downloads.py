"""Exports, made when they are asked for and served under the tab's own unguessable key.

Gradio would copy each file into its temporary folder and serve that folder by path; a scene can be gigabytes.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from spark3r.errors import Cancelled, InputError
from spark3r.export import FORMATS, OWN_WORLD, Filters, Origin, estimated_bytes, file_name, write
from spark3r.formatting import byte_count
from spark3r.measure import machine
from spark3r.stopping import stoppable
from viewer import address, readout
from viewer.report import Compared, Content, Dot, recording
from viewer.runs import KeptRun
from viewer.session import Session
from viewer.state import SIDES, Side

LETTERS: dict[Side, str] = {"left": "A", "right": "B"}  # as the chips call the panes
ALIGNED = "to the dense run of the same frames, by Sim(3): rotation and place from the cameras, scale from depth"
RECORDING = ".viser"
RECORDED_POINT_BYTES = 9
REPORT = "report.html"
REPORT_BYTES = 5 << 20  # of viser's own pages and points; frames come on top
LOOK_SECONDS = 0.2  # between looks whether the reader has left
GONE = "There is no such file: reload the page and run again."


def download_routes(session_of: Callable[[str], Session | None]) -> list[BaseRoute]:
    """GET /download/<key>/<side>.<format>, and /download/<key>/report.html."""

    async def download(request: Request) -> Response:
        session = session_of(request.path_params["key"])
        make = None if session is None else _maker(session, request.path_params["file"])
        if session is None or make is None:
            return PlainTextResponse(GONE, status_code=404)
        folder = Path(tempfile.mkdtemp(dir=session.folder))
        tidy = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
        try:
            path = await _made(make, folder, session, request)
        except InputError as error:
            return PlainTextResponse(str(error), status_code=422, background=tidy)
        except Cancelled:
            return PlainTextResponse("Stopped.", status_code=409, background=tidy)
        return FileResponse(path, filename=path.name, headers={"cache-control": "no-store"}, background=tidy)

    return [Route("/download/{key}/{file}", download, methods=["GET"])]


async def _made(make: Callable[[Path], Path], folder: Path, session: Session, request: Request) -> Path:
    """The file, made in a thread; Stop, the end of the session and a reader who leaves stop it. Raises Cancelled."""
    with session.exporting() as stop:

        def working() -> Path:
            with stoppable(stop.is_set):
                return make(folder)

        task = asyncio.ensure_future(run_in_threadpool(working))
        while not (await asyncio.wait([task], timeout=LOOK_SECONDS))[0]:
            if await request.is_disconnected():
                stop.set()
        return task.result()


def links(session: Session) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """(title, ((label, what it holds and how large it is, url), …)) for each pane, B first, and for both together."""
    formats = [suffix for suffix in FORMATS if suffix]
    rows = [
        (LETTERS[side], [*(_link(session, side, suffix) for suffix in formats), _recording_link(session, side)])
        for side in reversed(SIDES)
        if side in session.scenes
    ]
    if len(rows) == len(SIDES):
        held = "one HTML file that needs no network: both clouds, frames, times, scores, plot, command"
        size = f"{byte_count(REPORT_BYTES + _frames_bytes(session))}"
        rows.append(("A, B", [("Report", f"{held} (about {size})", f"download/{session.download_key}/{REPORT}")]))
    return rows


def _link(session: Session, side: Side, suffix: str) -> tuple[str, str, str]:
    kind, size = FORMATS[suffix], estimated_bytes(session.scenes[side], suffix, _filters(session, suffix))
    return kind.label, f"{kind.title} (about {byte_count(size)})", f"download/{session.download_key}/{side}{suffix}"


def _recording_link(session: Session, side: Side) -> tuple[str, str, str]:
    size = byte_count(RECORDED_POINT_BYTES * session.view.max_points)
    held = f"viser recording: the pane as it is drawn, for viser's own player (up to {size})"
    return "viser", held, f"download/{session.download_key}/{side}{RECORDING}"


def _frames_bytes(session: Session) -> int:
    """Of the strip's pictures in a report, about two of their bits a pixel each."""
    scene = session.scenes["left"]
    return len(scene) * min(scene.height * scene.width, 192 * 144)


def _filters(session: Session, suffix: str) -> Filters:
    """As the panes show it, but never more points than the format is made for."""
    view, most = session.view, FORMATS[suffix].default_points
    return Filters(view.min_confidence_percentile, min(view.max_points, most) if most else view.max_points)


def _maker(session: Session, file: str) -> Callable[[Path], Path] | None:
    """What writes the file into a folder; None where nothing of that name is offered."""
    left, right = session.runs.at("left"), session.runs.at("right")
    if file == REPORT:
        if left is None or right is None or left.scene is None or right.scene is None:
            return None
        return lambda folder: _report(session, left, right, folder)
    side, dot, suffix = file.partition(".")
    run = {"left": left, "right": right}.get(side)
    suffix = dot + suffix
    if run is None or run.scene is None or not suffix or suffix not in (*FORMATS, RECORDING):
        return None
    return lambda folder: _export(session, run, suffix, folder)


def _export(session: Session, run: KeptRun, suffix: str, folder: Path) -> Path:
    """One run as the pane shows it (same confidence and budget)."""
    assert run.scene is not None
    clip = run.input.clip
    path = folder / file_name(clip.name, run.scene, suffix)
    if suffix == RECORDING:
        path.write_bytes(recording(run.scene, run.baseline, session.view))
        return path
    filters = _filters(session, suffix)
    origin = Origin(clip.name, OWN_WORLD if run.is_dense else ALIGNED, clip.source)
    write(
        run.scene, path, min_confidence_percentile=filters.min_confidence_percentile, max_points=filters.max_points,
        origin=origin,
    )  # fmt: skip
    return path


def _report(session: Session, left: KeptRun, right: KeptRun, folder: Path) -> Path:
    """What stands side by side, with every run of the clip in the plot."""
    assert right.scene is not None
    titles = [readout.title(left), readout.title(right)]
    if titles[0] == titles[1]:
        titles = [f"{LETTERS[side]}: {title}" for side, title in zip(SIDES, titles, strict=True)]
    content = Content(
        right.input.clip.name, address.command(right), right.baseline, *map(_compared, titles, (left, right)),
        right.difference, readout.factor_of(left, right), right.against.aggregator, right.against.arithmetic,  # pyright: ignore[reportCallIssue]
        machine(torch.device(right.scene.device)), _dots(session, left, right), right.against.doubt,  # pyright: ignore[reportCallIssue]
    )  # fmt: skip
    path = folder / file_name(right.input.clip.name, right.scene, "-report.html")
    path.write_text(content.html(), encoding="utf-8")
    return path


def _compared(title: str, run: KeptRun) -> Compared:
    assert run.scene is not None
    return Compared(title, run.scene, run.cost, run.total, run.truth, run.fit)


def _dots(session: Session, left: KeptRun, right: KeptRun) -> tuple[Dot, ...]:
    """The other runs of the same frames."""
    dots = []
    for run in session.runs.of(right.input):
        error = run.truth.abs_rel if run.truth else run.difference.abs_rel if run.difference else 0.0
        if run not in (left, right):
            dots.append(Dot(str(run.schedule), run.total.median / 1000, error, "dense" if run.is_dense else "reduced"))
    return tuple(dots)
