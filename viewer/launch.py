"""Starting the page: arguments → model → viewer, with a check of what is installed before anything is loaded."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from viewer.ending import Ending
from viewer.scratch import open_scratch

if TYPE_CHECKING:
    from viewer.server import Access

NEEDED = ("gradio", "viser", "jinja2", "httpx", "starlette", "websockets", "rich", "uvicorn", "h11", "scipy", "trimesh")
PORTS_TO_TRY = 20
LAST_PORT = 65535


@dataclass(frozen=True)
class Arguments:
    """Reconstruct a video twice, densely and reduced, and compare both in the browser."""

    host: str = "127.0.0.1"  # address to listen at; 0.0.0.0 opens the page to the network
    port: int = 7860  # the next free one is taken if this one is in use
    model: str = "mini"  # chosen at first: a name from `python -m spark3r models`, or the path of a checkpoint
    share: Literal["yes", "no"] = "no"  # ask gradio for a public link
    gpus: int = 1  # processes that share every run, each on a GPU of its own (on a machine without: on the CPU)
    auth: str | None = None  # USER:PASSWORD that the page asks for; other programs can see it here, so better:
    auth_file: Path | None = None  # a file that holds USER:PASSWORD (or the environment variable SPARK3R_AUTH)
    allow_host: tuple[str, ...] = ()  # names besides this machine's own under which the page may be asked for
    allow_embedding: str | None = None  # the address of a site that may show the page in a frame
    allow_downloads: Literal["yes", "no"] | None = None  # visitors may fetch models; default: on this machine alone
    upload_gib: tuple[float, float, float] = (4.0, 8.0, 32.0)  # of one file, of one visitor, of all together
    health: Literal["yes", "no"] = "no"  # answer /health, and /metrics for Prometheus
    max_sessions: int = 32  # open tabs in all; where others can come, a quarter of them from one address


def main(arguments: Arguments, wait: Callable[[], None]) -> int:
    """Serve the page until `wait` returns; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for chatty in ("httpx", "websockets"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    port = free_port(arguments.host, arguments.port)
    if port is None:
        tried = f"{arguments.port} to {arguments.port + PORTS_TO_TRY - 1}"
        print(f"No port from {tried} is free at {arguments.host}: name another with --port.", file=sys.stderr)
        return 1
    # late, so that --help and a taken port answer at once
    from spark3r.errors import InputError
    from spark3r.installation import require

    try:
        require("The page", *NEEDED)
        from viewer.server import serve

        access = access_of(arguments, port)
        warn_of_strangers(access)
        serve(access, arguments.model, wait)
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def access_of(arguments: Arguments, port: int) -> Access:
    """Who may come in, by the arguments. Raises InputError for a password that cannot be used."""
    from spark3r.errors import InputError
    from viewer.guard import LOCAL_NAMES, AccessPolicy
    from viewer.server import Access
    from viewer.sessions import Limits
    from viewer.uploads import Quota

    if arguments.max_sessions < 1:
        raise InputError(f"--max-sessions {arguments.max_sessions}: must be 1 or more.")
    alone = arguments.host in LOCAL_NAMES and arguments.share == "no"
    names = [*arguments.allow_host, *(["*"] if arguments.share == "yes" else [])]  # the link's name is not known yet
    policy = AccessPolicy.of(arguments.host, names, credentials(arguments), arguments.allow_embedding or "'self'")
    may_download = alone if arguments.allow_downloads is None else arguments.allow_downloads == "yes"
    quota = Quota(*(int(gib * 2**30) for gib in arguments.upload_gib))
    if not 0 < quota.file <= quota.visitor <= quota.total:
        raise InputError(f"--upload-gib {arguments.upload_gib}: name three sizes, of a file, of a visitor and of all.")
    most = arguments.max_sessions
    limits = Limits(most, most if alone else max(1, most // 4))
    return Access(
        arguments.host, port, arguments.share == "yes", policy, may_download, limits, quota=quota,
        health=arguments.health == "yes",
    )  # fmt: skip


def credentials(arguments: Arguments) -> str | None:
    """ "user:password" from the flag, the file or the environment; None: the page is open."""
    from spark3r.errors import InputError

    given = arguments.auth or os.environ.get("SPARK3R_AUTH")
    if arguments.auth_file is not None:
        try:
            given = arguments.auth_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{arguments.auth_file} cannot be read: it must hold one line, USER:PASSWORD.") from error
    if given is None:
        return None
    user, colon, password = given.partition(":")
    if not (user and colon and password) or "\n" in given:
        raise InputError("The password must be given as USER:PASSWORD, in one line.")
    return given


def warn_of_strangers(access: Access) -> None:
    """One clear line where others than this machine's user can open the page."""
    from viewer.guard import LOCAL_NAMES

    if access.policy.credentials is None and (access.share or access.host not in LOCAL_NAMES):
        where = "through a public link" if access.share else f"at {access.host}:{access.port}"
        print(f"WARNING: anybody can open this page {where}: set a password with --auth-file FILE.", file=sys.stderr)


def free_port(host: str, wanted: int) -> int | None:
    """The first port from `wanted` on that can be listened at, None if twenty cannot."""
    for port in range(max(wanted, 1), min(wanted + PORTS_TO_TRY, LAST_PORT + 1)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        if port != wanted:
            print(f"Port {wanted} is taken; using {port}.")
        return port
    return None


def run(ending: Ending) -> int:
    """Read the command line and serve the page until `ending`, which listens, hears a signal; returns the exit code."""
    if sys.version_info < (3, 11):
        print("The page needs Python 3.11 or newer (the library runs with 3.10).", file=sys.stderr)
        return 1
    try:
        import tyro
    except ImportError:
        print(
            "The page needs packages that are not installed: run `python -m pip install -r requirements.txt`, or "
            "install spark3r with its extra [page]",
            file=sys.stderr,
        )
        return 1
    arguments = tyro.cli(Arguments)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _served_by_all(arguments, ending)
    if arguments.gpus > 1:
        return _launched(arguments.gpus)
    ending.leave(_served(arguments, ending))
    return 0


def _launched(ranks: int) -> int:
    """The same command line again, in so many processes of torchrun's, until they have ended."""
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        torchrun.main(["--standalone", f"--nproc-per-node={ranks}", *sys.argv])
    except SignalException:  # passed on to the page, which has ended
        return 0
    except ChildFailedError:  # it has said why
        return 1
    return 0


def _served_by_all(arguments: Arguments, ending: Ending) -> int:
    """As rank 0, the page; as another, what that asks for."""
    from spark3r import team

    with team.team() as leads:
        if not leads:
            return 0
        ending.listen()  # as a page that is alone
        assert team.leader is not None
        code = _served(arguments, ending, team.leader.leave)
    ending.leave(code)
    return code


def _served(arguments: Arguments, ending: Ending, farewell: Callable[[], None] = lambda: None) -> int:
    """`main` with a folder of its own for temporary files, which goes with it."""

    def tidy() -> None:
        farewell()
        scratch.remove()

    try:
        scratch = open_scratch()
    except OSError as error:
        print(f"No temporary files can be made ({error.strerror}): name another folder with TMPDIR.", file=sys.stderr)
        return 1
    ending.tidy = tidy
    try:
        return main(arguments, ending.wait)
    finally:
        scratch.remove()
