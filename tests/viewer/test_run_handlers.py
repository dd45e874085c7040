"""What a press means while another run is still ending."""

import asyncio
from types import SimpleNamespace

from tests.viewer.conftest import in_own_loop
from viewer.run_handlers import RunHandlers


class Ending:
    """A session whose run ends a little after it was told to."""

    def __init__(self) -> None:
        self.wishes, self.is_working = 0, True

    def stop_run(self) -> None:
        self.wishes += 1

    stop = stop_run


def waiting(*presses: str) -> list[bool]:
    """What each re-run that waits for the run's end is told, the presses coming one after the other."""
    session, handlers = Ending(), SimpleNamespace()

    async def press() -> list[bool]:
        reruns = []
        for what in presses:
            if what == "stop":
                session.stop()
            else:
                reruns.append(asyncio.create_task(RunHandlers._stopped(handlers, session)))  # type: ignore[arg-type]
            await asyncio.sleep(0)
        session.is_working = False
        return await asyncio.gather(*reruns)

    return in_own_loop(press())


def test_stop_cancels_a_waiting_run() -> None:
    assert waiting("dial") == [True]
    assert waiting("dial", "stop") == [False]


def test_the_latest_of_several_waiting_runs_is_made() -> None:
    assert waiting("dial", "dial", "dial") == [False, False, True]
