"""Where the page sends visitors' files."""

import errno
from pathlib import Path

from gradio.route_utils import upload_fn
from gradio.routes import file_upload_statuses
from starlette.concurrency import run_in_threadpool
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from spark3r.errors import InputError
from viewer.uploads import DISK_FULL, Uploads

UPLOAD_ID = "upload_id"  # the name under which gradio's page follows how far an upload has come


def upload_routes(uploads: Uploads) -> list[BaseRoute]:
    """POST /gradio_api/upload, in the place of gradio's own, which knows a limit per file alone; and what the page
    asks before, so that nobody sends gigabytes to be refused: GET /uploads/room?bytes=…&largest=…, 204 or 413."""

    async def upload(request: Request) -> Response:
        try:
            announced = int(request.headers["content-length"])
        except (KeyError, ValueError):
            return PlainTextResponse("An upload must say how long it is.", status_code=411)
        try:
            folder = await run_in_threadpool(uploads.begin, _address(request), announced)
        except InputError as error:
            return PlainTextResponse(str(error), status_code=413)
        try:
            paths = await _received(request, folder, uploads.quota.file)
            uploads.complete(folder)
        except BaseException as error:  # the visitor may have left, or the app be ending
            _hear_no_more(request)
            await run_in_threadpool(uploads.discard, folder)
            answer = _answer(error, uploads.too_large)
            if answer is None:
                raise
            return answer
        return JSONResponse(paths)

    async def room(request: Request) -> Response:
        try:
            announced, largest = (int(request.query_params[name]) for name in ("bytes", "largest"))
        except (KeyError, ValueError):
            return PlainTextResponse("Name the bytes of all files and of the largest one.", status_code=400)
        try:
            await run_in_threadpool(uploads.ask, _address(request), announced, largest)
        except InputError as error:
            return PlainTextResponse(str(error), status_code=413)
        return Response(status_code=204, headers={"cache-control": "no-store"})

    return [
        Route("/gradio_api/upload", upload, methods=["POST"]),
        Route("/uploads/room", room, methods=["GET"]),
    ]


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


async def _received(request: Request, folder: Path, most_bytes: int) -> list[str]:
    upload_id = request.query_params.get(UPLOAD_ID)
    paths, _, _ = await upload_fn(
        request, str(folder), most_bytes, upload_id, force_move=True,
        upload_progress=file_upload_statuses if upload_id else None,
    )  # fmt: skip
    return [str(path) for path in paths]


def _hear_no_more(request: Request) -> None:
    """Tell those who follow how far an upload has come that it has ended; gradio does so of whole ones alone."""
    upload_id = request.query_params.get(UPLOAD_ID)
    if upload_id:
        file_upload_statuses.set_done(upload_id)


def _answer(error: BaseException, too_large: str) -> Response | None:
    """What to say of an upload that failed; None for what is nobody's fault here."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)  # to nobody
    if isinstance(error, MultiPartException) and "maximum allowed size" in error.message:
        return PlainTextResponse(too_large, status_code=413)
    if isinstance(error, MultiPartException):
        return PlainTextResponse("This is no form with files.", status_code=400)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PlainTextResponse(DISK_FULL, status_code=507)
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return PlainTextResponse("The name of a file is too long: shorten it.", status_code=400)
    return None
