"""The result of a run: depth, confidence and cameras per frame, what they cost, and the one filter."""

import dataclasses
import io
import json
import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spark3r.errors import InputError
from spark3r.files import replacing
from spark3r.geometry import Similarity, unproject_pixels
from spark3r.reduction.schedule import ReductionSchedule
from spark3r.stages import AGGREGATOR
from spark3r.stopping import may_stop

FILE_VERSION = 1  # of the .npz layout

USUAL_PERCENTILE = 15  # of the least sure points, left out where a cloud is looked at

# The confidence percentile of a larger clip is read off about this many pixels, spread over all frames.
PERCENTILE_SAMPLE = 1 << 20

# z-depth beyond this leaves no room in float32 for the products of unprojection.
_FAR = np.float32(1e18)

_GOLDEN = 0.6180339887  # multiples of it modulo 1 spread as evenly as any sequence can

_ARRAYS = (
    ("images", "uint8", ("S", "H", "W", 3)),
    ("depth", "float32", ("S", "H", "W")),
    ("confidence", "float32", ("S", "H", "W")),
    ("world_from_camera", "float32", ("S", 4, 4)),
    ("intrinsics", "float32", ("S", 3, 3)),
    ("indices", "int64", ("S",)),
    ("timestamps", "float64", ("S",)),
)


@dataclass(frozen=True)
class RankCost:
    """What one of several ranks did of a run (distributed.py)."""

    frames: int  # that it held
    elapsed_ms: float
    waited_ms: float  # of these, for other ranks and for what they sent
    received_bytes: dict[str, int]  # by stage
    peak_bytes: int
    waited_by_stage_ms: dict[str, float] = field(default_factory=dict)
    block_bytes: dict[str, int] = field(default_factory=dict)  # received, by number of the trunk's block
    block_waited_ms: dict[str, float] = field(default_factory=dict)  # the same


@dataclass(frozen=True)
class Cost:
    """What a run took. A stage's time includes all blocks of that kind, their MLPs too."""

    milliseconds: dict[str, float]  # STAGES and "total"
    peak_bytes: int
    tokens: int  # N, entering a global layer
    query_tokens: int  # M, after merging in a base layer
    kv_tokens: int  # K, after pruning in a base layer
    ranks: tuple[RankCost, ...] = ()  # where the clip was shared by several

    @property
    def aggregator_ms(self) -> float:
        """Frame attention, global attention and matching: the part the method changes."""
        return sum(self.milliseconds.get(stage, 0.0) for stage in AGGREGATOR)

    @property
    def total_ms(self) -> float:
        """The whole run as the caller waited for it."""
        return self.milliseconds.get("total", 0.0)


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Coloured points that remember the pixel they came from."""

    xyz: np.ndarray  # [N, 3] float32, world, OpenCV axes
    rgb: np.ndarray  # [N, 3] uint8
    confidence: np.ndarray  # [N] float32
    depth: np.ndarray  # [N] float32, z-depth in its own camera
    frame: np.ndarray  # [N] int32
    pixel: np.ndarray  # [N] int64, row * W + column

    def __len__(self) -> int:
        return len(self.xyz)

    def select(self, chosen: np.ndarray) -> "PointCloud":
        """Some of the points: [N] bool, or positions."""
        return PointCloud(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """One clip reconstructed. OpenCV axes (x right, y down, z forward), numpy arrays on the CPU.

    Pixel centres are integers: a pixel (u, v) with depth z stands at X = (u - cx) / fx · z, Y = (v - cy) / fy
    · z.
    """

    images: np.ndarray  # [S, H, W, 3] uint8 RGB
    depth: np.ndarray  # [S, H, W] float32 z-depth
    confidence: np.ndarray  # [S, H, W] float32 in (0, 1]
    world_from_camera: np.ndarray  # [S, 4, 4] float32
    intrinsics: np.ndarray  # [S, 3, 3] float32, pixels of H x W
    cost: Cost
    schedule: ReductionSchedule
    model: str
    device: str
    dtype: str
    kernel: str  # of the attention
    indices: np.ndarray  # [S] int64, position of each frame in its source
    timestamps: np.ndarray  # [S] float64 seconds
    names: tuple[str, ...]  # S
    # The part of each frame that the images show, as fractions of its sides: top, left, height, width. Some families
    # crop frames of an unusual aspect; with this, intrinsics can be told for the frames as they came.
    seen: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        sizes = dict(zip("SHW", np.shape(self.depth), strict=False))
        for name, dtype, shape in _ARRAYS:
            array = getattr(self, name)
            expected = tuple(sizes.get(size, -1) if isinstance(size, str) else size for size in shape)
            if array.shape != expected or array.dtype != dtype:
                came, legal = f"{array.dtype} {list(array.shape)}", f"{dtype} {list(expected)}"
                raise InputError(f"Reconstruction.{name} is {came}: must be {legal}.")
        if len(self.names) != len(self):
            raise InputError(f"Reconstruction.names has {len(self.names)} entries for {len(self)} frames.")

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.depth)

    @property
    def height(self) -> int:
        """H, pixels."""
        return self.depth.shape[1]

    @property
    def width(self) -> int:
        """W, pixels."""
        return self.depth.shape[2]

    def points(self, min_confidence_percentile: float = 0.0, max_points: int | None = None) -> PointCloud:
        """The cloud that viewer and every export show; the only filter there is.

        Keeps pixels whose confidence reaches the given percentile of the clip (0 keeps all, 100 the very
        best), drops whatever is not finite or not in front of its camera, then takes `max_points` evenly from
        the frames: each frame gives the same number, or all it has. Deterministic; a larger budget adds
        points to those shown.
        """
        if not 0 <= min_confidence_percentile <= 100:
            raise InputError(f"min_confidence_percentile={min_confidence_percentile}: must lie between 0 and 100.")
        if max_points is not None and max_points < 1:
            raise InputError(f"max_points={max_points}: must be 1 or more, or None for all points.")
        threshold = self._confidence_at(min_confidence_percentile)
        available = np.array([np.count_nonzero(self._usable(frame, threshold)) for frame in range(len(self))])
        shares = even_shares(available, max_points)
        order = np.random.default_rng(0).permutation(self.height * self.width)
        return self._cloud([
            _first_usable(self._usable(frame, threshold), _turned(order, frame), int(share))
            for frame, share in enumerate(shares)
        ])  # fmt: skip

    def transformed(self, similarity: Similarity) -> "Reconstruction":
        """The same scene in other world coordinates: cameras moved, depth scaled."""
        return dataclasses.replace(
            self,
            depth=self.depth * np.float32(similarity.scale),
            world_from_camera=similarity.apply_to_cameras(self.world_from_camera),
        )

    def save(self, path: str | Path, notes: dict[str, str] | None = None) -> None:
        """Writes everything to one .npz, without pickle; `load` gives the same bits. Raises InputError.

        notes  what a person who opens the file should know (units, axes, …); `load` passes over them
        """
        about = {
            "software": "Spark3R",
            "version": FILE_VERSION,
            "notes": notes or {},
            "seen": self.seen,
            "cost": dataclasses.asdict(self.cost),
            "schedule": self.schedule.to_json(),
            "names": self.names,
            **{name: getattr(self, name) for name in ("model", "device", "dtype", "kernel")},
        }
        arrays = {name: getattr(self, name) for name, _, _ in _ARRAYS}
        with replacing(path) as temporary, _AskingFile(io.FileIO(temporary, "wb")) as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)

    @staticmethod
    def load(path: str | Path) -> "Reconstruction":
        """Reads what `save` wrote. Raises InputError for a missing, damaged or foreign file."""
        try:
            with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                about: dict[str, Any] = json.loads(str(file["about"]))
                arrays = {name: file[name] for name, _, _ in _ARRAYS}
        except FileNotFoundError as error:
            raise InputError(f"{path} does not exist: name a .npz that spark3r wrote.") from error
        except (OSError, KeyError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is not a reconstruction: name a .npz that spark3r wrote.") from error
        if about.pop("version", None) != FILE_VERSION:
            raise InputError(f"{path} was written by another version of spark3r: reconstruct the clip again.")
        ranks = tuple(RankCost(**rank) for rank in about["cost"].get("ranks", ()))
        about["cost"] = Cost(**{**about["cost"], "ranks": ranks})
        about["schedule"] = ReductionSchedule.from_json(about["schedule"])
        about["names"] = tuple(about["names"])
        about["seen"] = tuple(about.get("seen", (0.0, 0.0, 1.0, 1.0)))
        for words in ("software", "notes"):
            about.pop(words, None)
        return Reconstruction(**arrays, **about)

    def _usable(self, frame: int, threshold: float) -> np.ndarray:  # [H * W] bool
        """Pixels of one frame that may become points; comparisons with NaN are false, so NaN drops out."""
        depth, confidence = self.depth[frame].reshape(-1), self.confidence[frame].reshape(-1)
        intrinsics = self.intrinsics[frame]
        camera = np.isfinite(self.world_from_camera[frame]).all() and np.isfinite(intrinsics).all()
        camera = camera and intrinsics[0, 0] > 0 and intrinsics[1, 1] > 0
        return (depth > 0) & (depth < _FAR) & (confidence >= threshold) & (confidence < np.inf) & camera

    def _confidence_at(self, percentile: float) -> float:
        if percentile == 0 or self.depth.size == 0:
            return -np.inf
        step = math.ceil(self.depth.size / PERCENTILE_SAMPLE)
        while step > 1 and math.gcd(step, self.width) > 1:
            step += 1  # a step that shares a factor with the width would look at a few columns only
        depth, confidence = self.depth.reshape(-1)[::step], self.confidence.reshape(-1)[::step]
        confidence = confidence[(depth > 0) & (depth < _FAR) & np.isfinite(confidence)]
        return float(np.percentile(confidence, percentile)) if confidence.size else -np.inf

    def _cloud(self, pixels: list[np.ndarray]) -> PointCloud:
        """The points of the chosen pixels, one array of them per frame."""
        counts = [len(chosen) for chosen in pixels]
        xyz = np.empty((sum(counts), 3), np.float32)
        end = 0
        for frame, chosen in enumerate(pixels):
            start, end = end, end + len(chosen)
            rows, columns = np.divmod(chosen, self.width)
            xyz[start:end] = unproject_pixels(
                columns,
                rows,
                self.depth[frame, rows, columns],
                self.intrinsics[frame],
                self.world_from_camera[frame],
            )
        frame, pixel = np.repeat(np.arange(len(self), dtype=np.int32), counts), np.concatenate(pixels)
        rows, columns = np.divmod(pixel, self.width)
        at = frame, rows, columns
        return PointCloud(xyz, self.images[at], self.confidence[at], self.depth[at], frame, pixel)


class _AskingFile(io.BufferedWriter):
    """Asks whether to stop before every block that is written: an array of a long clip takes seconds."""

    def write(self, block: Any) -> int:
        """As of any file; raises Cancelled."""
        may_stop()
        return super().write(block)


def even_shares(
    available: np.ndarray,  # [S] points each frame has
    budget: int | None,
) -> np.ndarray:  # [S] points each frame gives; sum = min(budget, available.sum())
    """The fairest split: every frame gives the same number or all it has, odd ones spread over the clip."""
    if budget is None or available.sum() <= budget:
        return available
    ascending = np.sort(available)
    before = np.concatenate([[0], np.cumsum(ascending)[:-1]])
    # With level L the clip gives Σ min(available, L); find the largest whole L within the budget.
    level = next(
        (budget - given) // (len(available) - i)
        for i, (given, count) in enumerate(zip(before, ascending, strict=True))
        if (budget - given) // (len(available) - i) < count
    )
    shares = np.minimum(available, level)
    larger = np.flatnonzero(available > level)
    spare = int(budget - shares.sum())  # < len(larger)
    shares[larger[np.argsort(larger * _GOLDEN % 1)[:spare]]] += 1
    return shares


def _turned(order: np.ndarray, frame: int) -> np.ndarray:
    """The pixel order of a frame: one scatter (no grid patterns), shifted so that frames fill gaps."""
    return np.roll(order, -int(frame * _GOLDEN * len(order)))


def _first_usable(usable: np.ndarray, order: np.ndarray, count: int) -> np.ndarray:
    """The first `count` usable pixels in the given order, ascending; mostly a prefix will do."""
    available = np.count_nonzero(usable)
    if count == available:
        return np.flatnonzero(usable)
    prefix = order[: int(1.2 * count / available * len(order)) + 64]
    chosen = prefix[usable[prefix]]
    if len(chosen) < count:
        chosen = order[usable[order]]
    return np.sort(chosen[:count])
