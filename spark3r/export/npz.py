"""The whole result, as `Reconstruction.load` reads it; never filtered."""

from pathlib import Path

from spark3r.export.choice import Choice
from spark3r.reconstruction import Reconstruction


def write(scene: Reconstruction, path: Path, choice: Choice) -> None:
    """Everything: the choice of points is made again after loading."""
    scene.save(path)
