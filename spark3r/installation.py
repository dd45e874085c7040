"""What is installed: the files that come with the package, and the optional packages that some work needs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from spark3r.errors import InputError

# Modules that not every user needs, with the distribution that brings each and the extra of pyproject.toml it is in.
OPTIONAL = {
    "trimesh": ("trimesh", "export"),
    "scipy": ("scipy", "export"),
    "huggingface_hub": ("huggingface_hub", "hub"),
    "filelock": ("filelock", "hub"),
    "PIL": ("pillow", "hub"),
    "tyro": ("tyro", "cli"),
    "psutil": ("psutil", "cli"),
    "matplotlib": ("matplotlib", "cli"),
    "pillow_heif": ("pillow-heif", "cli"),
    "gradio": ("gradio", "page"),
    "viser": ("viser", "page"),
    "httpx": ("httpx", "page"),
    "jinja2": ("jinja2", "page"),
    "starlette": ("starlette", "page"),
    "websockets": ("websockets", "page"),
    "rich": ("rich", "page"),
    "uvicorn": ("uvicorn", "page"),
    "h11": ("h11", "page"),
}


def assets(name: str) -> Path:
    """The folder "weights" or "clips" that comes with Spark3R, in a checkout and in an installed wheel alike."""
    package = Path(__file__).resolve().parent
    installed = package / "assets"
    return (installed if installed.is_dir() else package.parent / "assets") / name


def require(purpose: str, *modules: str) -> None:
    """Raises InputError, naming packages and extra, if one of the optional `modules` is not installed.

    Asked before the work starts that would fail without them. purpose: what needs them, at the start of a sentence.
    """
    missing = [module for module in modules if not _is_installed(module)]
    if not missing:
        return
    packages = " ".join(OPTIONAL[module][0] for module in missing)
    extras = sorted({OPTIONAL[module][1] for module in missing})
    raise InputError(
        f"{purpose} needs {packages}, which {'is' if len(missing) == 1 else 'are'} not installed: run "
        f"`python -m pip install {packages}`, or install spark3r with its extra [{','.join(extras)}]"
    )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:
        return False
