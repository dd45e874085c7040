"""The frames of a comparison side by side: input, both depths, their difference; all a browser needs to scrub alone.

A browser fetches the description once, then sheets of small pictures, and needs no server from there on. Depth and
difference are sent as grey levels and coloured in the browser, so that a moved scale needs no new pictures.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from spark3r.metrics import depth_difference
from spark3r.reconstruction import Reconstruction
from viewer.framing import Look
from viewer.palette import PALETTES, Scale
from viewer.scene import wxyz_from_matrix
from viewer.state import SIDES, Side
from viewer.world import Baseline

TILE_PIXELS = 192  # longer side of a picture in a sheet
PER_SHEET = 48
COLUMNS = 8
LEVELS = 254  # of grey; 0 is "unknown"
TOP_DIFFERENCE = 0.5  # of the diagonal: the last grey level. Levels go by the root, so that small ones are told apart
ASPECTS = (0.6, 1.0, 1.35, 1.7, 2.2, 3.0)  # of panes for which views are worked out
KINDS = ("input", *SIDES, "difference")


@dataclass(frozen=True, eq=False)
class Timeline:
    """What the two panes show, frame by frame; runs are given in the world of the baseline."""

    baseline: Baseline
    runs: Mapping[Side, Reconstruction]
    titles: Mapping[Side, str]
    version: int = 0
    key: str = field(default="", repr=False)

    @property
    def address(self) -> str:
        """Where the browser finds it, below the page's own address."""
        return f"timeline/{self.key}/{self.version}"

    @cached_property
    def description(self) -> dict[str, Any]:
        """Everything but the pictures, as plain values."""
        scene = self.baseline.scene
        width, height = self._tile
        return {
            "baseline": id(self.baseline), "hasTruth": self.baseline.has_truth,
            "frames": len(scene), "width": width, "height": height, "perSheet": PER_SHEET, "columns": COLUMNS,
            "seconds": [float(second) for second in scene.timestamps], "names": list(scene.names),
            "titles": dict(self.titles), "kinds": [kind for kind in KINDS if self._has(kind)],
            "topDifference": TOP_DIFFERENCE, "levels": LEVELS,
            "scales": {
                "depth": _ends(self.baseline.depth, self.baseline.diagonal),
                "confidence": _ends(self.baseline.confidence),
            },
            "palettes": {name: base64.b64encode(steps.tobytes()).decode() for name, steps in PALETTES.items()},
            "looks": self._looks(),
            "cameras": {side: self._cameras(run) for side, run in self.runs.items()},
        }  # fmt: skip

    def sheet(self, kind: str, number: int) -> bytes:
        """PER_SHEET frames of one kind in rows of COLUMNS: JPEG for the input, grey PNG for the others.

        Raises KeyError for a kind or a sheet that is not there.
        """
        frames = range(number * PER_SHEET, min((number + 1) * PER_SHEET, len(self.baseline.scene)))
        if not self._has(kind) or not frames:
            raise KeyError(kind)
        tiles = [self._picture(kind, frame) for frame in frames]
        tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % min(COLUMNS, len(tiles)))
        columns = min(COLUMNS, len(tiles))
        rows = [np.concatenate(tiles[start : start + columns], axis=1) for start in range(0, len(tiles), columns)]
        picture = np.concatenate(rows)
        if kind == "input":
            return cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
        return cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()

    def _picture(self, kind: str, frame: int) -> np.ndarray:  # [h, w, 3] or [h, w] uint8
        if kind == "input":
            return cv2.resize(self.baseline.scene.images[frame], self._tile, interpolation=cv2.INTER_AREA)
        if kind == "difference":
            left, right = self.runs["left"], self.runs["right"]
            moved = depth_difference(right, left, frame, self.baseline.diagonal)
            place = np.sqrt(np.clip(moved / TOP_DIFFERENCE, 0, 1))
        else:
            run: Reconstruction = self.runs[kind]  # pyright: ignore[reportArgumentType]
            depth = run.depth[frame]
            place = self.baseline.depth.place(np.where(depth > 0, depth, np.nan))
        grey = np.where(np.isfinite(place), 1 + np.round(LEVELS * np.nan_to_num(place)), 0).astype(np.uint8)
        return cv2.resize(grey, self._tile, interpolation=cv2.INTER_NEAREST)

    def _has(self, kind: str) -> bool:
        return kind == "input" or kind in self.runs or (kind == "difference" and len(self.runs) == len(SIDES))

    @property
    def _tile(self) -> tuple[int, int]:  # width, height
        scene = self.baseline.scene
        shrink = min(1.0, TILE_PIXELS / max(scene.height, scene.width))
        return max(1, round(scene.width * shrink)), max(1, round(scene.height * shrink))

    def _looks(self) -> dict[str, Any]:
        framing = self.baseline.framing
        return {
            "fit": [{"aspect": aspect, **_plain(framing.fit(aspect))} for aspect in ASPECTS],
            "top": [{"aspect": aspect, **_plain(framing.top(aspect))} for aspect in ASPECTS],
            "inside": [{"aspect": 1.0, **_plain(framing.inside())}],
        }

    def _cameras(self, run: Reconstruction) -> list[list[float] | None]:
        """Per frame wxyz, position, vertical field of view (radians), in the panes' coordinates; None if not finite."""
        cameras = self.baseline.viewer_from_world.apply_to_cameras(run.world_from_camera).astype(np.float64)
        fov = 2 * np.arctan(run.height / 2 / run.intrinsics[:, 1, 1].astype(np.float64))
        usable = np.isfinite(cameras).all((1, 2)) & np.isfinite(fov)
        wxyz = wxyz_from_matrix(np.where(usable[:, None, None], cameras, np.eye(4))[:, :3, :3])
        rows = np.column_stack([wxyz, cameras[:, :3, 3], fov]).round(5)
        return [row.tolist() if good else None for row, good in zip(rows, usable, strict=True)]


def timeline_routes(
    timeline_of: Callable[[str], Timeline | None], choose: Callable[[str, int], None]
) -> list[BaseRoute]:
    """GET /timeline/<key>/<version>/world.json and /<kind>-<number>; POST /timeline/<key>/frame/<n> chooses a frame."""

    async def world(request: Request) -> Response:
        timeline = _asked(request)
        return _gone() if timeline is None else JSONResponse(await run_in_threadpool(lambda: timeline.description))

    async def sheet(request: Request) -> Response:
        timeline, kind = _asked(request), request.path_params["kind"]
        try:
            content = await run_in_threadpool(timeline.sheet, kind, request.path_params["number"]) if timeline else None
        except KeyError:
            content = None
        if content is None:
            return _gone()
        kept = {"cache-control": "private, max-age=86400, immutable"}
        return Response(content, media_type="image/jpeg" if kind == "input" else "image/png", headers=kept)

    async def frame(request: Request) -> Response:
        timeline = timeline_of(request.path_params["key"])
        number = request.path_params["number"]
        if timeline is None or not 0 <= number < len(timeline.baseline.scene):
            return _gone()
        await run_in_threadpool(choose, request.path_params["key"], number)
        return Response(status_code=204)

    def _asked(request: Request) -> Timeline | None:
        timeline = timeline_of(request.path_params["key"])
        return timeline if timeline is not None and timeline.version == request.path_params["version"] else None

    return [
        Route("/timeline/{key}/{version:int}/world.json", world, methods=["GET"]),
        Route("/timeline/{key}/{version:int}/{kind}-{number:int}", sheet, methods=["GET"]),
        Route("/timeline/{key}/frame/{number:int}", frame, methods=["POST"]),
    ]


def _gone() -> Response:
    return PlainTextResponse("There are no such frames: reload the page and run again.", status_code=404)


def _ends(scale: Scale, unit: float = 1.0) -> list[float]:
    return [round(scale.low / unit, 4), round(scale.high / unit, 4)]


def _plain(look: Look) -> dict[str, Any]:
    return {
        "position": look.position.round(5).tolist(), "lookAt": look.look_at.round(5).tolist(),
        "fov": round(look.fov, 5), "nearRatio": round(look.near_ratio, 5),
    }  # fmt: skip
