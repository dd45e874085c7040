"""What the README shows is true: its snippet runs, its files exist, its commands are known."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order; '' means those that name none."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [body for named, body in fences if named == language]


def braced(words: list[str]) -> list[str]:
    """The paths among `words`; 'a/{b,c}.py' stands for two."""
    paths: list[str] = []
    for word in words:
        start, inner, end = re.fullmatch(r"([^{]*)(?:\{(.*)\})?(.*)", word).groups()  # type: ignore[union-attr]
        names = [start] if inner is None else [start + name + end for name in inner.split(",")]
        paths += [name for name in names if re.fullmatch(r"[\w./]+(/|\.py)", name)]
    return paths


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_snippet_runs_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    (snippet,) = blocks("python")
    done = run("-c", snippet, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "on 24 frames" in done.stdout
    assert (tmp_path / "scene.npz").stat().st_size > 0


def test_the_snippet_is_about_ten_lines() -> None:
    (snippet,) = blocks("python")
    assert len([line for line in snippet.splitlines() if line.strip()]) <= 11


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_every_linked_file_is_there(target: str) -> None:
    assert (ROOT / target).exists()


def test_every_command_is_known(tmp_path: Path) -> None:
    named = set(re.findall(r"python -m spark3r (\w+)", README))
    assert named
    done = run("-m", "spark3r", "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {name for name in named if name not in done.stdout} == set()


def test_the_map_names_what_is_there() -> None:
    (tree,) = (block for block in blocks("") if block.startswith("app.py"))
    assert len(tree.splitlines()) == 10
    named = [place for line in tree.splitlines() for place in braced(re.split(r"  +|, (?=\w+/)", line))]
    assert [place for place in named if not (ROOT / place).exists()] == []


def test_the_requirements_are_pinned_and_named_in_the_start_commands() -> None:
    for file in ("requirements.txt", "requirements-dev.txt"):
        assert f"python -m pip install -r {file} && python" in README
        lines = [line.split("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
        assert [line for line in lines if line and "==" not in line and not line.startswith("-r ")] == []
