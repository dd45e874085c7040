"""Do cameras and depth agree with what the pictures show? Judging without truth, by matched features.

SIFT features are matched between frames a few steps apart. Where both see the same point of a scene that stands still,
the second view lies on the epipolar line that the predicted cameras draw for the first, and where the predicted depth
puts it. How many pixels it misses them by is a measure of the prediction that needs no truth, and judges a dense and a
reduced result of the same frames by the very same matches.

What it can tell: wrong relative rotation, lens and direction of travel (both distances), wrong depth relative to the
cameras (reprojection), and whether one result of a clip fits it as well as another.
What it cannot: the scale of the scene; drift over more than the largest gap; depth where nothing is matched, such as
blank walls; anything in a clip whose frames hardly differ, as there everything fits. The distance to a line is blind
along that line. Moving things, mirrors and repeated patterns count as errors of the prediction; they are the same for
every prediction of a clip. An exact prediction misses by what matching misses by: a few tenths of a pixel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from spark3r.geometry import unproject_pixels
from spark3r.metrics.depth import known
from spark3r.reconstruction import Reconstruction
from spark3r.stopping import may_stop

GAPS = (1, 4, 16)  # frames between the two pictures of a pair
STARTS = 24  # first frames of pairs, spread evenly over a clip, so that a long clip costs no more than a short one
FEATURES = 1000  # at most, per frame
RATIO = 0.75  # a match is this much nearer than the second best (Lowe 2004, IJCV 60(2), section 7.1)
WITHIN_PX = (1, 2, 4)

_SEARCHED_SIDE = 384  # smaller pictures are enlarged to this longer side, where SIFT finds more
_CONTRAST = 0.02  # half of SIFT's usual threshold: rooms have faint textures
_STANDING = 1e-6  # of a pair's median depth: a shorter baseline draws no line
_MISSED = np.inf  # the distance where a camera is not finite, or the point lands behind it


@dataclass(frozen=True, eq=False)
class Matches:
    """M points that two frames of a clip both show, found in the pictures alone."""

    frames: np.ndarray  # [M, 2] int64
    pixels: np.ndarray  # [M, 2, 2] float64: (column, row) in each of the two, integer pixel centres
    size: tuple[int, int]  # (H, W) of the pictures that the pixels belong to

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class Consistency:
    """How far matched features are from where a prediction puts them; NaN where there is no match.

    Pixels of the reconstruction. Each gap counts alike, however many matches it has.
    """

    epipolar_px: float  # median distance to the epipolar line, mean of both frames; infinite if most miss altogether
    below_1px: float  # share of matches whose distance to the line is below so many pixels
    below_2px: float
    below_4px: float
    reprojection_px: float  # median distance to where the depth of the other frame puts the point, both directions
    matches: int

    def to_json(self) -> dict[str, float | None]:
        """Numbers by name, None for undefined ones."""
        values = dataclasses.asdict(self)
        return {name: value if np.isfinite(value) else None for name, value in values.items()}


def match_features(
    images: np.ndarray,  # [S, H, W, 3] uint8 RGB
    gaps: tuple[int, ...] = GAPS,
) -> Matches:
    """Features of a clip, matched between frames `gaps` apart: mutual nearest neighbours that pass the ratio test.

    Deterministic; knows nothing of cameras. Empty for one frame.
    """
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    frames, pixels = [np.empty((0, 2), np.int64)], [np.empty((0, 2, 2))]
    for pair in _pairs(len(images), gaps):
        may_stop()
        for frame in pair:
            if frame not in found:
                found[frame] = _features(images[frame])
        (places, words), (other_places, other_words) = (found[frame] for frame in pair)
        first, second = _mutual(words, other_words)
        frames.append(np.tile(np.array(pair, np.int64), (len(first), 1)))
        pixels.append(np.stack((places[first], other_places[second]), axis=1))
    return Matches(np.concatenate(frames), np.concatenate(pixels), images.shape[1:3])


def consistency(scene: Reconstruction, matches: Matches | None = None) -> Consistency:
    """How well a result fits its own pictures.

    matches  as `match_features` found them in the clip's frames, for several results to be judged by the same ones;
             None: found in the pictures of the result
    """
    matches = match_features(scene.images) if matches is None else matches
    if len(matches) == 0:
        return Consistency(*[np.nan] * 5, matches=0)
    pixels = _resized(matches, scene.height, scene.width)
    weights = _equal_gaps(matches)
    may_stop()
    line = epipolar_distances(scene, matches.frames, pixels)
    may_stop()
    point = reprojection_distances(scene, matches.frames, pixels)
    below_1px, below_2px, below_4px = (float(weights @ (line < limit)) for limit in WITHIN_PX)
    epipolar, reprojection = _median(line, weights), _median(point, weights)
    return Consistency(epipolar, below_1px, below_2px, below_4px, reprojection, len(matches))


def epipolar_distances(
    scene: Reconstruction,
    frames: np.ndarray,  # [M, 2]
    pixels: np.ndarray,  # [M, 2, 2] (column, row) in pixels of the scene
) -> np.ndarray:  # [M]
    """Distance of each point to the line its partner draws, mean over the two frames (Hartley & Zisserman 2004, 9.2).

    A pair without a baseline draws no line: there it is the distance to where pure rotation moves the partner.
    """
    depth = scene.depth[known(scene.depth)]
    reach = np.median(depth) if depth.size else 1.0
    distances = np.full((2, len(frames)), _MISSED)
    for way, (here, there) in enumerate(((0, 1), (1, 0))):
        rays = _rays(scene, frames[:, here], pixels[:, here])
        move, finite = _relative(scene, frames[:, here], frames[:, there])
        ahead = (move[:, :3, :3] @ rays[..., None])[..., 0]
        line = np.cross(move[:, :3, 3], ahead)
        lens = scene.intrinsics[frames[:, there]].astype(np.float64)
        seen = _rays(scene, frames[:, there], pixels[:, there])
        line_px = line / np.stack((lens[:, 0, 0], lens[:, 1, 1], np.ones(len(line))), -1)
        with np.errstate(invalid="ignore", divide="ignore"):
            to_line = np.abs((line * seen).sum(-1)) / np.hypot(line_px[:, 0], line_px[:, 1])
        still = np.linalg.norm(move[:, :3, 3], axis=-1) <= _STANDING * reach
        distance = np.where(still, _pixel_distances(lens, ahead, pixels[:, there]), to_line)
        distances[way] = np.where(finite, distance, _MISSED)
    return np.nan_to_num(distances.mean(0), nan=_MISSED, posinf=_MISSED)


def reprojection_distances(
    scene: Reconstruction,
    frames: np.ndarray,  # [M, 2]
    pixels: np.ndarray,  # [M, 2, 2] (column, row) in pixels of the scene
) -> np.ndarray:  # [M]
    """Distance of each point to the image of its partner, moved to 3-D by the depth there; mean over both ways.

    Depth is read at the nearest pixel. NaN where it says nothing on either side.
    """
    distances = np.full((2, len(frames)), _MISSED)
    for way, (here, there) in enumerate(((0, 1), (1, 0))):
        column, row = pixels[:, here].T
        rows = np.rint(row).astype(np.int64).clip(0, scene.height - 1)
        columns = np.rint(column).astype(np.int64).clip(0, scene.width - 1)
        depth = scene.depth[frames[:, here], rows, columns].astype(np.float64)
        depth[~known(depth)] = np.nan
        points = unproject_pixels(column, row, depth, scene.intrinsics[frames[:, here]].astype(np.float64))
        move, finite = _relative(scene, frames[:, here], frames[:, there])
        moved = (move[:, :3, :3] @ points[..., None].astype(np.float64))[..., 0] + move[:, :3, 3]
        lens = scene.intrinsics[frames[:, there]].astype(np.float64)
        distance = _pixel_distances(lens, moved, pixels[:, there])
        distances[way] = np.where(finite, np.where(np.isnan(depth), np.nan, distance), _MISSED)
    return distances.mean(0)


def _pairs(frames: int, gaps: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """(first, second) frame of every pair: the same first frames for every gap, as far as the clip goes."""
    for gap in gaps:
        if gap < frames:
            count = min(STARTS, frames - gap)
            for start in np.unique(np.linspace(0, frames - 1 - gap, count).round().astype(int)).tolist():
                yield start, start + gap


def _features(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places [F, 2] (column, row) and descriptors [F, 128] of one picture [H, W, 3]."""
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    larger = max(1.0, _SEARCHED_SIDE / max(grey.shape))
    if larger > 1:
        grey = cv2.resize(grey, None, fx=larger, fy=larger, interpolation=cv2.INTER_CUBIC)
    sift = cv2.SIFT_create  # pyright: ignore[reportAttributeAccessIssue]  OpenCV's stubs lack it
    points, words = sift(nfeatures=FEATURES, contrastThreshold=_CONTRAST).detectAndCompute(grey, None)
    if words is None:
        return np.empty((0, 2)), np.empty((0, 128), np.float32)
    height, width = image.shape[0] / grey.shape[0], image.shape[1] / grey.shape[1]
    places = np.array([point.pt for point in points])
    return (places + 0.5) * (width, height) - 0.5, words


def _mutual(words: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of descriptors that are each other's nearest, and clearly so."""
    if min(len(words), len(others)) < 2:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    squared = (words**2).sum(1)[:, None] + (others**2).sum(1) - 2 * words @ others.T
    nearest, second = np.partition(squared, 1, axis=1)[:, :2].T
    forth, back = squared.argmin(1), squared.argmin(0)
    clear = nearest < RATIO**2 * second
    first = np.flatnonzero(clear & (back[forth] == np.arange(len(words))))
    return first, forth[first]


def _resized(matches: Matches, height: int, width: int) -> np.ndarray:  # [M, 2, 2]
    scale = np.array([width / matches.size[1], height / matches.size[0]])
    return (matches.pixels + 0.5) * scale - 0.5


def _equal_gaps(matches: Matches) -> np.ndarray:  # [M], sum 1
    """Weights under which every gap counts alike."""
    gap = matches.frames[:, 1] - matches.frames[:, 0]
    present, counts = np.unique(gap, return_counts=True)
    return 1 / (len(present) * counts[np.searchsorted(present, gap)])


def _rays(scene: Reconstruction, frame: np.ndarray, pixels: np.ndarray) -> np.ndarray:  # [M, 3] float64, z = 1
    ones = np.ones(len(frame))
    columns, rows = pixels.T
    return unproject_pixels(columns, rows, ones, scene.intrinsics[frame].astype(np.float64)).astype(np.float64)


def _relative(scene: Reconstruction, here: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """there_from_here [M, 4, 4], and whether [M] both cameras and lenses are finite; the identity where not."""
    finite = np.asarray(np.isfinite(scene.world_from_camera).all((1, 2)) & np.isfinite(scene.intrinsics).all((1, 2)))
    cameras = np.where(finite[:, None, None], scene.world_from_camera, np.eye(4)).astype(np.float64)
    return np.linalg.inv(cameras)[there] @ cameras[here], finite[here] & finite[there]


def _pixel_distances(lens: np.ndarray, points: np.ndarray, pixels: np.ndarray) -> np.ndarray:  # [M]
    """How far points [M, 3] in camera coordinates project from pixels [M, 2]; those behind the camera miss."""
    with np.errstate(invalid="ignore", divide="ignore"):
        column = lens[:, 0, 0] * points[:, 0] / points[:, 2] + lens[:, 0, 2]
        row = lens[:, 1, 1] * points[:, 1] / points[:, 2] + lens[:, 1, 2]
        distance = np.hypot(column - pixels[:, 0], row - pixels[:, 1])
    return np.where(points[:, 2] > 0, distance, _MISSED)


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    """The weighted median of those that are numbers."""
    counted = ~np.isnan(values)
    if not counted.any():
        return np.nan
    order = np.argsort(values[counted], kind="stable")
    reached = np.cumsum(weights[counted][order])
    return float(values[counted][order][np.searchsorted(reached, reached[-1] / 2)])
