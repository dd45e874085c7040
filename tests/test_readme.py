"""What README and docs show is true: the snippet runs, files exist, commands are known, nothing needed is missing."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.checkout
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINKS = [
    (page, target)
    for page in PAGES
    for target in sorted(set(re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))))
]


def blocks(language: str, text: str = README) -> list[str]:
    """The fenced blocks of one language, in order."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [body for named, body in fences if named == language]


def commands() -> list[str]:
    """Every `python -m spark3r …` of README and docs as one line, without its comment."""
    lines = [line for page in PAGES for block in blocks("bash", page.read_text("utf-8")) for line in block.splitlines()]
    return [line.split(" #")[0].strip() for line in lines if line.startswith("python -m spark3r ")]


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
def test_the_snippet_runs_as_it_stands_and_exports(tmp_path: Path) -> None:
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    (snippet,) = blocks("python")
    done = run("-c", snippet, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "on 24 frames" in done.stdout
    assert (tmp_path / "scene.ply").stat().st_size > 0


@pytest.mark.parametrize(("page", "target"), LINKS, ids=lambda value: getattr(value, "name", value))
def test_every_linked_file_is_there(page: Path, target: str) -> None:
    assert (page.parent / target).exists()


def test_every_page_of_the_docs_is_linked_from_the_readme() -> None:
    linked = {target for page, target in LINKS if page.name == "README.md"}
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_every_shown_command_is_parsed_by_the_program(command: str) -> None:
    """Flags and words are the program's own; nothing is run."""
    import tyro

    from spark3r.commands import COMMANDS

    arguments = shlex.split(command)[3:]
    tyro.extras.subcommand_cli_from_dict(COMMANDS, args=arguments)


def test_the_plug_in_is_told_by_its_install_line_first() -> None:
    install, use = README.index('pip install "numpy<2"'), README.index("spark3r.accelerate(")
    assert install < use


def test_the_papers_figures_stand_beside_ours() -> None:
    paper, ours = README.index("| VGGT | 1,102.7 s | 40.7 s |"), README.index("<!-- table: headline")
    assert paper < ours < README.index("## Start")
    assert "measured on CPUs" in README[:paper]


def test_the_requirements_are_pinned_and_named_in_the_start_commands() -> None:
    for file in ("requirements.txt", "requirements-dev.txt"):
        assert f"python -m pip install -r {file} && python" in README
        lines = [line.split("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
        assert [line for line in lines if line and "==" not in line and not line.startswith("-r ")] == []


def test_the_lock_agrees_with_the_requirements() -> None:
    locked = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    locked = {name.lower().replace("_", "-"): version for name, version in locked.items()}
    for file in ("requirements.txt", "requirements-dev.txt"):
        lines = [line.split("#")[0].split(";")[0].strip() for line in (ROOT / file).read_text().splitlines()]
        for name, version in (line.split("==") for line in lines if "==" in line):
            assert locked[name.split("[")[0].lower().replace("_", "-")] == version


def test_every_test_that_shows_a_promise_is_there() -> None:
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    code = {path: path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    for file in re.findall(r"`(\w+/test_\w+\.py)`", text):
        assert ROOT / "tests" / file in code, file
    names = re.findall(r"`(test_\w+)(?:…)?`", text)
    assert len(names) > 10
    assert [name for name in names if not any(f"def {name}" in each for each in code.values())] == []
