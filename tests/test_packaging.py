"""What pyproject.toml promises: the oldest versions, complete extras, and a word before work that lacks a package."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spark3r import installation
from spark3r.errors import InputError

pytestmark = pytest.mark.checkout
ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
LIBRARY = sorted((ROOT / "spark3r").rglob("*.py"))
PAGE = sorted((ROOT / "viewer").rglob("*.py"))
ALWAYS_THERE = {"torch", "numpy", "cv2", "safetensors"}  # what the library may import anywhere
WITH_TORCH = {"triton"}  # torch's builds for CUDA bring it; without it plain torch runs
TOOLS_OF_THE_CHECKOUT = {"av"}  # renders the example clips anew

# Names that the oldest supported versions lack, with the version that brought each.
NEWER = {
    "typing.Self": "Python 3.11",
    "typing.Never": "Python 3.11",
    "typing.LiteralString": "Python 3.11",
    "typing.assert_never": "Python 3.11",
    "typing.Required": "Python 3.11",
    "typing.NotRequired": "Python 3.11",
    "typing.Unpack": "Python 3.11",
    "typing.override": "Python 3.12",
    "enum.StrEnum": "Python 3.11",
    "tomllib": "Python 3.11",
    "hashlib.file_digest": "Python 3.11",
    "datetime.UTC": "Python 3.11",
    "contextlib.chdir": "Python 3.11",
    "asyncio.TaskGroup": "Python 3.11",
    "asyncio.timeout": "Python 3.11",
    "asyncio.Runner": "Python 3.11",
    "math.cbrt": "Python 3.11",
    "math.exp2": "Python 3.11",
    "math.sumprod": "Python 3.12",
    "itertools.batched": "Python 3.12",
    "torch.get_autocast_dtype": "torch 2.4",
    "torch.amp.is_autocast_available": "torch 2.4",
    "torch.nn.RMSNorm": "torch 2.4",
    "torch.nn.functional.rms_norm": "torch 2.4",
    "torch.rms_norm": "torch 2.4",
    "torch.library.custom_op": "torch 2.4",
    "torch.library.register_fake": "torch 2.4",
    "torch.serialization.add_safe_globals": "torch 2.4",
    "torch.nn.Buffer": "torch 2.5",
    "torch.nn.attention.flex_attention": "torch 2.5",
    "torch.serialization.skip_data": "torch 2.6",
    "torch.compiler.set_stance": "torch 2.6",
    "torch.accelerator": "torch 2.6",
    "torch.cpu.get_capabilities": "torch 2.6 or later",
    "torch.nn.attention.varlen": "torch 2.10",
    "numpy.concat": "numpy 2.0",
    "numpy.astype": "numpy 2.0",
    "numpy.isdtype": "numpy 2.0",
    "numpy.permute_dims": "numpy 2.0",
    "numpy.matrix_transpose": "numpy 2.0",
    "numpy.trapezoid": "numpy 2.0",
    "numpy.vecdot": "numpy 2.0",
    "numpy.pow": "numpy 2.0",
    "numpy.acos": "numpy 2.0",
    "numpy.asin": "numpy 2.0",
    "numpy.atan2": "numpy 2.0",
    "numpy.bool": "numpy 2.0",
    "numpy.linalg.vector_norm": "numpy 2.0",
    "numpy.linalg.matrix_norm": "numpy 2.0",
    "numpy.linalg.cross": "numpy 2.0",
    "numpy.linalg.diagonal": "numpy 2.0",
    "numpy.unstack": "numpy 2.1",
    "numpy.cumulative_sum": "numpy 2.1",
}
# Calls that the oldest versions know with fewer arguments: the most they take by position.
FEWER_ARGUMENTS = {"torch.is_autocast_enabled": (0, "torch 2.4")}


def newer_names(tree: ast.Module) -> Iterator[str]:
    """'name (version)' for what a module uses of NEWER, and for calls with too many arguments."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                full = alias.name if alias.asname else alias.name.split(".")[0]
                known[alias.asname or full] = full
                yield from _newer(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield from _newer(f"{node.module}.{alias.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield from _newer(_dotted(node, known))
        elif isinstance(node, ast.Call):
            name = _dotted(node.func, known)
            most, version = FEWER_ARGUMENTS.get(name, (len(node.args), ""))
            if len(node.args) > most:
                yield f"{name} with {len(node.args)} arguments ({version})"


def _newer(name: str) -> Iterator[str]:
    found = next((known for known in NEWER if name == known or name.startswith(f"{known}.")), None)
    if found is not None:
        yield f"{found} ({NEWER[found]})"


def _dotted(node: ast.expr, known: dict[str, str]) -> str:
    """'torch.cpu.stream' for that expression, with the imported name in full; '' if it is no plain name."""
    if isinstance(node, ast.Name):
        return known.get(node.id, "")
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value, known)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def extras() -> dict[str, set[str]]:
    """Distributions of each extra of pyproject.toml, those of the extras it contains included."""
    section = PYPROJECT.split("[project.optional-dependencies]")[1].split("\n[")[0]
    found = {}
    for name, body in re.findall(r"^(\w+) = \[(.*?)\]$", re.sub(r"\]\s+#.*", "]", section), re.DOTALL | re.MULTILINE):
        wanted = re.findall(r'"([^"]+)"', body)
        inner = [part for one in wanted if one.startswith("spark3r[") for part in one[8:-1].split(",")]
        plain = {re.split(r"[<>=]", one)[0] for one in wanted if not one.startswith("spark3r[")}
        found[name] = plain.union(*(found[part] for part in inner))
    return found


def third_party(files: list[Path]) -> set[str]:
    """Top-level modules imported anywhere in the files, other than Python's and ours."""
    ours = {"spark3r", "viewer", "app", "tests"}
    names = {
        name.split(".")[0]
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }
    return names - set(sys.stdlib_module_names) - ours


@pytest.mark.parametrize(
    "code",
    [
        "from typing import Self",
        "import torch\ntorch.get_autocast_dtype('cpu')",
        "import torch.nn.functional as F\nF.rms_norm(x, (1,))",
        "from torch import nn\nnn.RMSNorm(3)",
        "import numpy as np\nnp.linalg.vector_norm(x)",
        "import torch\ntorch.is_autocast_enabled('cpu')",
        "import tomllib",
    ],
)
def test_newer_names_are_found_however_they_are_written(code: str) -> None:
    assert list(newer_names(ast.parse(code)))


@pytest.mark.parametrize("code", ["import torch\ntorch.is_autocast_enabled()", "x.concat(y)", "from typing import Any"])
def test_other_names_are_let_pass(code: str) -> None:
    assert not list(newer_names(ast.parse(code)))


def test_the_library_uses_nothing_newer_than_it_promises() -> None:
    used = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in LIBRARY
        for name in newer_names(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not used, "the oldest supported versions lack these: write them in another way"


def test_every_optional_package_of_the_library_is_known_with_its_extra() -> None:
    optional = third_party(LIBRARY) - ALWAYS_THERE - WITH_TORCH - TOOLS_OF_THE_CHECKOUT
    assert optional <= installation.OPTIONAL.keys()
    for module in optional:
        distribution, extra = installation.OPTIONAL[module]
        assert distribution in extras()[extra], module


def test_the_page_extra_holds_all_that_the_page_imports() -> None:
    distributions = {installation.OPTIONAL[module][0] for module in third_party(PAGE) - ALWAYS_THERE}
    assert distributions <= extras()["page"]
    assert extras()["all"] == set().union(*extras().values())


def test_what_the_page_checks_at_its_start_is_what_it_imports() -> None:
    from viewer.launch import NEEDED

    assert third_party(PAGE) - ALWAYS_THERE <= {"tyro", *NEEDED}


def test_the_pinned_set_of_the_page_satisfies_its_extra() -> None:
    pinned = {line.split("==")[0] for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line}
    assert extras()["page"] - {"rich"} <= pinned  # rich comes with viser, which sets its version


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Modules put into this set cannot be found."""
    absent: set[str] = set()
    monkeypatch.setattr(installation, "_is_installed", lambda module: module not in absent)
    return absent


def test_what_is_missing_is_said_with_package_and_extra(without: set[str]) -> None:
    installation.require("A chart", "matplotlib", "scipy")
    without |= {"matplotlib", "scipy"}
    with pytest.raises(
        InputError, match=r"A chart needs matplotlib scipy.*pip install matplotlib scipy.*\[cli,export\]"
    ):
        installation.require("A chart", "matplotlib", "scipy")


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["compare", "/no/such/clip"], "scipy"),
        (["evaluate", "/no/such/clip"], "scipy"),
        (["sensitivity", "/no/such/clip"], "scipy"),
        (["probe", "/no/such/clip"], "scipy"),
        (["ablations", "/no/such/clip"], "scipy"),
        (["reconstruct", "/no/such/clip", "-o", "scene.glb"], "trimesh"),
        (["batch", "/no/such/clips", "-o", "scenes", "--format", ".glb"], "trimesh"),
        (["benchmark", "--chart", "speed.png"], "matplotlib"),
        (["evaluate", "--unseen", "1", "--chart", "confidence.png"], "matplotlib"),
    ],
)
def test_commands_name_a_missing_package_before_any_work(
    arguments: list[str], absent: str, without: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from spark3r.__main__ import main

    without.add(absent)
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert absent in said
    assert "such/clip" not in said


def test_bundled_files_are_found_in_a_checkout_and_in_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (installation.assets("weights") / "mini.safetensors").is_file()
    installed = tmp_path / "spark3r" / "installation.py"
    monkeypatch.setattr(installation, "__file__", str(installed))
    assert installation.assets("weights") == tmp_path / "assets" / "weights"
    (tmp_path / "spark3r" / "assets").mkdir(parents=True)
    assert installation.assets("weights") == tmp_path / "spark3r" / "assets" / "weights"
