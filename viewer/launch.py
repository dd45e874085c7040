"""Starting the page: arguments → model → viewer, with a check of what is installed before anything is loaded."""

import logging
import signal
import socket
import sys
from dataclasses import dataclass
from typing import Literal

NEEDED = ("gradio", "viser", "jinja2", "httpx", "starlette", "websockets", "rich", "scipy", "trimesh")
PORTS_TO_TRY = 20
LAST_PORT = 65535


@dataclass(frozen=True)
class Arguments:
    """Reconstruct a video twice, densely and reduced, and compare both in the browser."""

    host: str = "127.0.0.1"  # address to listen at; 0.0.0.0 opens the page to the network
    port: int = 7860  # the next free one is taken if this one is in use
    model: str = "mini"  # chosen at first: a name from `python -m spark3r models`, or the path of a checkpoint
    share: Literal["yes", "no"] = "no"  # ask gradio for a public link


def main(arguments: Arguments) -> int:
    """Serve the page until it is interrupted; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for chatty in ("httpx", "websockets"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: viewers stopped, files removed
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

        serve(arguments.host, port, arguments.model, arguments.share == "yes")
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


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


def run() -> int:
    """What `python app.py` and the installed `spark3r-page` do; returns the exit code."""
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
    return main(tyro.cli(Arguments))
