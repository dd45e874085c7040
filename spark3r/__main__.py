"""`python -m spark3r COMMAND …`: one line per failure, exit code 0 done, 1 failed, 2 wrong flags, 130 interrupted."""

import os
import sys
from collections.abc import Sequence

from spark3r import interruption
from spark3r.errors import InputError
from spark3r.installation import require
from spark3r.interruption import INTERRUPTED

ABOUT = "Spark3R: long videos into depth, cameras and point clouds, fast, without retraining."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code. `--help` and flags that do not parse leave by SystemExit.

    Under `torchrun` rank 0 runs it, with the other ranks at its service.
    """
    alone = "TORCHELASTIC_RUN_ID" not in os.environ or "--spread" in (sys.argv if arguments is None else arguments)
    if alone:
        return _run(arguments)
    from spark3r.team import team

    interruption.raises()  # ranks that are joined leave in order
    try:
        with team() as leads:
            return _run(arguments) if leads else 0
    except InputError as error:
        print(f"spark3r: {error}", file=sys.stderr)
        return 1


def _run(arguments: Sequence[str] | None) -> int:
    try:
        try:
            return _parsed_and_run(arguments)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:  # while it reads its arguments and loads its packages
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has left; give the interpreter a harmless standard output to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parsed_and_run(arguments: Sequence[str] | None) -> int:
    try:
        require("The command line", "tyro")
    except InputError as error:
        print(f"spark3r: {error}", file=sys.stderr)
        return 1
    import tyro

    from spark3r.commands import COMMANDS, check_installed, check_outputs
    from spark3r.commands.options import UsageError

    command = tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="spark3r", description=ABOUT, args=arguments)
    interruption.raises()  # what works from here on tidies up behind itself
    try:
        check_installed(command)
        check_outputs(command)
        command.run()
    except InputError as error:
        _end_progress()
        print(f"spark3r: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        _end_progress()
        return INTERRUPTED
    return 0


def _end_progress() -> None:
    """Takes a progress line off the terminal, so that what follows starts a line of its own."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
