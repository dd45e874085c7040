"""Many photos, one size: each is decoded and shrunk on its own; odd ones are cropped to the majority."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spark3r.errors import DoesNotFit, InputError
from spark3r.frames.image import decode_image, shrink
from spark3r.frames.sampling import Watch, check_memory

NAMES_PER_NOTE = 3


@dataclass(frozen=True)
class Photos:
    """Pictures in order, each to be loaded when its turn comes."""

    names: tuple[str, ...]
    load: Callable[[int], bytes]  # position → the file's bytes; InputError where it cannot be read


@dataclass(frozen=True)
class Decoded:
    """What was really read, which may be less than was planned."""

    images: np.ndarray  # [S, H, W, 3] uint8 RGB
    indices: np.ndarray  # [S] int64
    notes: tuple[str, ...]


def read_photos(photos: Photos, positions: np.ndarray, resolution: int, watch: Watch) -> Decoded:
    """Decode the photos at `positions` ([S] int64); name and skip the unreadable; InputError if all are."""
    images: list[np.ndarray] = []
    indices: list[int] = []
    faults: list[InputError] = []
    for done, position in enumerate(positions.tolist()):
        watch.advance(done, len(positions))
        try:
            images.append(decode_image(photos.load(position), photos.names[position], resolution))
            indices.append(position)
            if len(images) == 1:
                check_memory(len(positions), images[0].shape[1], images[0].shape[0])
        except DoesNotFit:
            raise
        except InputError as fault:
            faults.append(fault)
    watch.advance(len(positions), len(positions))
    if not images:
        raise _none_left(faults)
    notes = _skipped_note(faults) + _cropped_note([photos.names[i] for i in indices], images)
    return Decoded(one_size(images), np.asarray(indices, np.int64), notes)


def one_size(images: list[np.ndarray]) -> np.ndarray:
    """Stack to [S, H, W, 3] at the size most of them have (the earliest of equals); uses up the list."""
    height, width = _majority(images)
    stacked = np.empty((len(images), height, width, 3), np.uint8)
    for i in range(len(images)):
        stacked[i] = cover(images[i], width, height)
        images[i] = stacked[i]  # lets go of the decoded picture: one copy in memory, not two
    return stacked


def cover(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize [h, w, 3] so that it just covers width × height pixels, then crop the middle."""
    scale = max(width / image.shape[1], height / image.shape[0])
    covering = (max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale)))
    resized = shrink(image, covering)
    left, top = (covering[0] - width) // 2, (covering[1] - height) // 2
    return resized[top : top + height, left : left + width]


def _majority(images: list[np.ndarray]) -> tuple[int, int]:
    return Counter(image.shape[:2] for image in images).most_common(1)[0][0]


def _cropped_note(names: list[str], images: list[np.ndarray]) -> tuple[str, ...]:
    height, width = _majority(images)
    odd = [name for name, image in zip(names, images, strict=True) if image.shape[:2] != (height, width)]
    if not odd:
        return ()
    note = (
        f"{len(odd)} of {len(images)} pictures had another size or shape than {width}x{height} "
        f"and were resized and cropped in the middle: {_listed(odd)}."
    )
    return (note,)


def _skipped_note(faults: list[InputError]) -> tuple[str, ...]:
    if not faults:
        return ()
    reasons = " ".join(str(fault) for fault in faults[:NAMES_PER_NOTE])
    more = f" And {len(faults) - NAMES_PER_NOTE} more." if len(faults) > NAMES_PER_NOTE else ""
    return (f"{len(faults)} skipped: {reasons}{more}",)


def _none_left(faults: list[InputError]) -> InputError:
    if len(faults) == 1:
        return faults[0]
    return InputError(f"None of the {len(faults)} pictures could be read; the first: {faults[0]}")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_PER_NOTE} more" if len(names) > NAMES_PER_NOTE else ""
    return ", ".join(names[:NAMES_PER_NOTE]) + more
