"""What ranks send each other around a run: frames, plain facts, and room for what arrives."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from spark3r.frames import Frames
from spark3r.ranks import Ranks

IN_MEMORY_BYTES = 1 << 30  # larger arrays of rank 0 lie in a file without a name


def room(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array, in a file that ends with it where it is large."""
    if int(np.prod(shape)) * dtype.itemsize <= IN_MEMORY_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="spark3r-") as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def send_json(content: Any, ranks: Ranks, rank: int = 0) -> None:
    """Sends anything that JSON can hold to another rank."""
    text = np.frombuffer(json.dumps(content).encode(), np.uint8).copy()
    ranks.send(rank, np.array([len(text)]))
    ranks.send(rank, text)


def arriving_json(ranks: Ranks, rank: int = 0) -> Any:
    """What another rank sent with `send_json`."""
    length = np.empty(1, np.int64)
    ranks.receive(rank, length)
    text = np.empty(int(length[0]), np.uint8)
    ranks.receive(rank, text)
    return json.loads(text.tobytes())


def send_frames(frames: Frames, ranks: Ranks) -> None:
    """Sends frames [S, H, W, 3] uint8 to another rank."""
    about = {"names": frames.names, "notes": frames.notes, "source": frames.source, "decode_ms": frames.decode_ms}
    places = {"indices": frames.indices.tolist(), "timestamps": frames.timestamps.tolist()}
    send_json({"shape": frames.images.shape, **about, **places}, ranks)
    ranks.send(0, frames.images)


def arriving_frames(ranks: Ranks, rank: int) -> Frames:
    """What another rank sent with `send_frames`."""
    about = arriving_json(ranks, rank)
    images = room(tuple(about["shape"]), np.dtype(np.uint8))
    ranks.receive(rank, images)
    return Frames(
        images, np.array(about["indices"], np.int64), np.array(about["timestamps"]), tuple(about["names"]),
        about["source"], tuple(about["notes"]), about["decode_ms"],
    )  # fmt: skip


def joined(parts: Sequence[Frames]) -> Frames:
    """One clip of its consecutive parts."""
    images = room((sum(map(len, parts)), *parts[0].images.shape[1:]), np.dtype(np.uint8))
    np.concatenate([part.images for part in parts], out=images)
    return replace(
        parts[0],
        images=images,
        indices=np.concatenate([part.indices for part in parts]),
        timestamps=np.concatenate([part.timestamps for part in parts]),
        names=tuple(name for part in parts for name in part.names),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        decode_ms=max(part.decode_ms for part in parts),
    )
