"""The camera path as text in the TUM format: seconds, centre, quaternion (xyzw) of world_from_camera."""

from pathlib import Path

import numpy as np
import torch

from spark3r.export.choice import Choice
from spark3r.files import replacing
from spark3r.geometry import quaternion_from_matrix
from spark3r.reconstruction import Reconstruction


def write(scene: Reconstruction, path: Path, choice: Choice) -> None:
    """One line `timestamp tx ty tz qx qy qz qw` per frame, as evo and the TUM tools read it; has no points."""
    cameras = torch.from_numpy(scene.world_from_camera).double()
    quaternions = quaternion_from_matrix(cameras[:, :3, :3]).numpy()
    rows = np.column_stack([scene.timestamps, cameras[:, :3, 3].numpy(), quaternions])
    with replacing(path) as temporary:
        np.savetxt(temporary, rows, fmt="%.9g")
