"""What pyproject.toml cannot say: weights and clips stand beside the package here, and inside it in a wheel."""

from pathlib import Path

from setuptools import find_namespace_packages, setup

CLIPS = [f"spark3r.assets.clips.{folder.name}" for folder in sorted(Path("assets/clips").iterdir()) if folder.is_dir()]
DATA = ["spark3r.assets.weights", *CLIPS]

setup(
    packages=[
        *find_namespace_packages(include=["spark3r*", "viewer*"]),
        "spark3r.assets",
        "spark3r.assets.clips",
        *DATA,
    ],
    package_dir={"spark3r.assets": "assets"},
    package_data={"spark3r": ["py.typed"], "viewer.static": ["*"], **{name: ["*"] for name in DATA}},
)
