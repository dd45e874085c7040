"""The Dockerfile does what the README says, with files, flags, user and port that there are."""

import json
import re
import shlex
from pathlib import Path

import pytest

pytestmark = pytest.mark.checkout
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REQUIREMENTS = (ROOT / "requirements.txt").read_text(encoding="utf-8")
INSTALL, START = "python -m pip install -r requirements.txt", "python app.py"  # the two commands
INDEX = re.compile(r"torch==(\S+) --index-url (\S+?)[`;\s]")


def instructions() -> list[tuple[str, str]]:
    """(word, what follows) of each instruction, in order; lines that go on are joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], " ".join(line.split()[1:])) for line in lines if line.strip()]


def all_of(word: str) -> list[str]:
    return [rest for each, rest in instructions() if each == word]


def test_it_runs_the_two_commands_of_the_readme() -> None:
    assert f"{INSTALL} && {START}" in README
    command = shlex.split(INSTALL)
    installed = shlex.split(next(run for run in all_of("RUN") if "requirements.txt" in run).split("&&")[-1])
    assert [word for word in installed if word != "--no-cache-dir"] == [*command, "-c", "constraints.txt"]
    assert json.loads(all_of("ENTRYPOINT")[0])[:2] == shlex.split(START)


def test_its_torch_without_cuda_is_the_one_that_is_pinned() -> None:
    mine = INDEX.search(" ".join(all_of("RUN")))
    told = INDEX.search(README)
    assert mine is not None
    assert told is not None
    assert mine.groups() == told.groups()
    assert f"torch=={mine[1]}\n" in REQUIREMENTS


def test_its_python_is_new_enough_for_the_page() -> None:
    (image,) = all_of("FROM")
    version, needed = re.search(r"python:3\.(\d+)", image), re.search(r"Python 3\.(\d+) or newer", README)
    assert version is not None
    assert needed is not None
    assert int(version[1]) >= int(needed[1])


def test_what_it_copies_is_there_and_all_that_the_page_needs() -> None:
    copied = {name for line in all_of("COPY") for name in line.split()[:-1]}
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert copied >= {"app.py", "assets", "spark3r", "viewer", "requirements.txt", "constraints.txt"}
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert copied & set(ignored) == set()


def test_nobody_runs_as_root() -> None:
    (user,) = all_of("USER")
    made = next(run for run in all_of("RUN") if "useradd" in run)
    assert int(user) > 0  # a number: who checks that it is not root need not look the name up
    assert f"--uid {user} " in made


def test_its_flags_port_and_health_check_are_the_pages_own() -> None:
    import tyro

    from viewer.guard import OPEN_PATHS
    from viewer.launch import Arguments

    arguments = tyro.cli(Arguments, args=json.loads(all_of("ENTRYPOINT")[0])[2:])
    assert (arguments.host, arguments.health) == ("0.0.0.0", "yes")
    assert all_of("EXPOSE") == [str(arguments.port)]
    asked = re.search(r"http://localhost:(\d+)(/\w+)", all_of("HEALTHCHECK")[0])
    assert asked is not None
    assert asked[1] == str(arguments.port)
    assert asked[2] in OPEN_PATHS
