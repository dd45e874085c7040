"""Imports go down only: every import of the repository is read and held against the plan."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.checkout
ROOT = Path(__file__).parents[1]

# Who may import whom inside spark3r: only what stands on a lower floor, or in the same package.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "interruption", "ranks", "stages", "formatting", "timing"}),
    frozenset({"files", "stopping", "installation", "processor", "tokens", "geometry", "world", "meta"}),
    frozenset({"kernels", "ledger"}),
    frozenset({"attention"}),
    frozenset({"models", "reduction", "frames", "measure"}),  # strangers to each other
    frozenset({"reconstruction", "plugin", "distributed", "dryrun", "parcels"}),
    frozenset({"estimate"}),
    frozenset({"windows"}),
    frozenset({"inference", "metrics", "export", "flops"}),
    frozenset({"handover", "rank_part"}),
    frozenset({"compare", "training", "team"}),
    frozenset({"benchmark", "parity", "examples"}),
    frozenset({"__init__"}),
    frozenset({"commands"}),
    frozenset({"__main__"}),
)
FLOOR_OF = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
JOINS_MODEL_AND_SCHEDULE = frozenset({"dryrun", "estimate", "flops", "inference", "compare", "plugin", "team"}).union(
    *FLOORS[-4:]
)

# What of spark3r the page may know; all else is interior.
OUTSIDE = (
    "spark3r.errors",
    "spark3r.stopping",
    "spark3r.team",
    "spark3r.frames",
    "spark3r.estimate",
    "spark3r.inference",
    "spark3r.installation",
    "spark3r.measure",
    "spark3r.reconstruction",
    "spark3r.compare",
    "spark3r.stages",
    "spark3r.formatting",
    "spark3r.timing",
    "spark3r.flops",
    "spark3r.geometry",
    "spark3r.reduction.schedule",
    "spark3r.models.checkpoints",
    "spark3r.models.network",
    "spark3r.export",
    "spark3r.metrics",
    "spark3r.examples",
    "spark3r.metrics.truth",
)


def sources() -> list[Path]:
    """Every Python file that is shipped, and the tests."""
    shipped = [ROOT / "app.py", *(ROOT / "spark3r").rglob("*.py"), *(ROOT / "viewer").rglob("*.py")]
    return sorted(path for path in [*shipped, *(ROOT / "tests").rglob("*.py")] if path.exists())


def module_name(path: Path) -> str:
    """'spark3r.frames.video' for its file, 'spark3r.frames' for the package's `__init__`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports(path: Path) -> frozenset[str]:
    """Absolute names of every module a file imports, wherever in it the import stands."""
    found: set[str] = set()
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.update(_submodule(module, alias.name) for alias in node.names)
    return frozenset(found)


def _submodule(module: str, name: str) -> str:
    """`from package import module` imports the module; `from module import thing` the module it is in."""
    inner = ROOT.joinpath(*module.split("."), name)
    return f"{module}.{name}" if inner.with_suffix(".py").exists() or inner.is_dir() else module


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def part_of(module: str) -> str:
    """The name of a spark3r module's place in FLOORS; the public API itself is '__init__'."""
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def stands_below(imported: str, importer: str) -> bool:
    return imported == importer or FLOOR_OF[imported] < FLOOR_OF[importer]


def offenders(package: str, *forbidden: str) -> list[str]:
    """'importer -> imported' for each import from inside `package` into one of `forbidden`."""
    return [
        f"{module_name(path)} -> {imported}"
        for path in sources()
        if within(module_name(path), package)
        for imported in sorted(imports(path))
        if any(within(imported, name) for name in forbidden)
    ]


def test_the_reader_of_imports_sees_each_way_of_writing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "pack" / "deep").mkdir(parents=True)
    (tmp_path / "pack" / "inner.py").touch()
    (tmp_path / "pack" / "deep" / "near.py").touch()
    source = tmp_path / "pack" / "deep" / "a.py"
    source.write_text(
        "import torch.nn as nn\nfrom pack import inner, thing\nfrom . import near\nfrom ..inner import x\n"
        "def late():\n    from pathlib import Path\n    import cv2\n"
    )
    assert imports(source) == {"torch.nn", "pack.inner", "pack", "pack.deep.near", "pathlib", "cv2"}


def test_the_library_knows_neither_page_nor_tests() -> None:
    """But for one command, which asks the page for its report: commands stand above everything, the page too."""
    reaching = offenders("spark3r", "viewer", "app", "tests", "gradio", "viser")
    assert reaching == ["spark3r.commands.compare -> viewer.report"]


@pytest.mark.slow
def test_the_report_needs_no_page() -> None:
    code = "import sys, viewer.report; sys.exit('gradio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120).returncode == 0


def test_models_and_reduction_are_strangers() -> None:
    assert not offenders("spark3r.models", "spark3r.reduction")
    assert not offenders("spark3r.reduction", "spark3r.models")


def test_only_the_app_imports_the_page() -> None:
    outside = [path for path in sources() if not within(module_name(path), "viewer")]
    importers = {module_name(path) for path in outside if any(within(name, "viewer") for name in imports(path))}
    assert {name for name in importers if not within(name, "tests")} <= {"app", "spark3r.commands.compare"}


def test_no_floor_reaches_up_or_sideways() -> None:
    reaching = [
        f"{module_name(path)} -> {imported}"
        for path in sources()
        for imported in sorted(imports(path))
        if within(module_name(path), "spark3r") and within(imported, "spark3r")
        if not stands_below(part_of(imported), part_of(module_name(path)))
    ]
    assert not reaching


def test_every_part_of_the_library_has_its_floor() -> None:
    parts = {part_of(module_name(path)) for path in sources() if within(module_name(path), "spark3r")}
    assert parts <= FLOOR_OF.keys(), "give the new part its place in FLOORS"


def test_model_and_schedule_meet_in_few_places() -> None:
    joining = {
        part_of(module_name(path))
        for path in sources()
        if within(module_name(path), "spark3r")
        and any(within(name, "spark3r.models") for name in imports(path))
        and any(within(name, "spark3r.reduction") for name in imports(path))
    }
    assert joining <= JOINS_MODEL_AND_SCHEDULE


def test_the_page_stays_outside_the_machine() -> None:
    reaching = [
        entry
        for package in ("viewer", "app")
        for entry in offenders(package, "spark3r")
        if not any(within(entry.split(" -> ")[1], name) for name in OUTSIDE) and not entry.endswith("-> spark3r")
    ]
    assert not reaching


@pytest.mark.parametrize(
    "room",
    [
        "viewer.state",
        "viewer.scene",
        "viewer.framing",
        "viewer.palette",
        "viewer.world",
        "viewer.display",
        "viewer.timeline",
    ],
)
def test_rooms_without_widgets_know_no_gradio(room: str) -> None:
    assert not offenders(f"viewer.{room}", "gradio")


@pytest.mark.parametrize("room", ["viewer.state", "viewer.layout", "viewer.events"])
def test_rooms_without_a_scene_know_no_viser(room: str) -> None:
    assert not offenders(room, "viser")


BARE_MACHINE = '''
import importlib.metadata as metadata, re, sys

def needs(name, known):
    """The distributions that `name` cannot be installed without."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in known:
        return
    try:
        wanted = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    known.add(key)
    for line in wanted:
        if "extra ==" not in line:
            needs(re.match(r"[A-Za-z0-9._-]+", line)[0], known)

present = {"spark3r"}  # what `pip install .` leaves in a checkout makes it a distribution
for name in ("torch", "numpy", "opencv-python", "safetensors"):
    needs(name, present)
owners = metadata.packages_distributions()

class Absent:
    """A finder that finds nothing of any other distribution."""
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        names = {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners.get(name.split(".")[0], ())}
        if names and not names & present:
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Absent, sys.meta_path)
'''


def on_a_bare_machine(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` where only torch, numpy, OpenCV, safetensors and what these need can be imported."""
    return subprocess.run(
        [sys.executable, "-c", BARE_MACHINE + code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("absent", ["gradio", "viser", "scipy", "PIL", "trimesh"])
def test_the_bare_machine_is_bare(absent: str) -> None:
    done = on_a_bare_machine(f"import {absent}")
    assert done.returncode != 0
    assert f"No module named '{absent}'" in done.stderr


@pytest.mark.slow
def test_the_library_reconstructs_on_a_bare_machine() -> None:
    done = on_a_bare_machine(
        "import numpy, spark3r\n"
        "clip = numpy.random.default_rng(0).integers(0, 255, (2, 96, 128, 3), dtype=numpy.uint8)\n"
        "scene = spark3r.reconstruct(clip)\n"
        "print(scene.depth.shape[0], scene.points().xyz.shape[1])\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "3"]


if __name__ == "__main__":
    print("spark3r, from the ground up; a part imports only from floors below its own:")
    for floor in FLOORS:
        print("  ", " · ".join(sorted(floor)))
