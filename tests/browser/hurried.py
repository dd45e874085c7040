"""The app with less to do, for tests: `python tests/browser/hurried.py ARGUMENTS`, those of app.py.

The first example has a few of its frames (as many as SPARK3R_HURRIED_FRAMES says), clouds have few points, since
software draws them, and short runs are measured twice, however their times spread on a machine that runs tests.
"""

import os
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from spark3r.compare import turns
from viewer import layout, panes, report, session
from viewer.ending import Ending
from viewer.launch import run
from viewer.state import ViewSettings

FIRST_FRAMES = int(os.environ.get("SPARK3R_HURRIED_FRAMES", "24"))
THOUSAND_POINTS = 30

if __name__ == "__main__":
    ending = Ending()
    ending.listen()
    turns.PATIENCE_SECONDS, turns.LEAST_TURNS = 0.0, 2
    layout.DEFAULT_MAX_FRAMES = layout.USUAL["max_frames"] = FIRST_FRAMES
    panes.ViewSettings = session.ViewSettings = partial(ViewSettings, thousand_points=THOUSAND_POINTS)  # type: ignore[misc, assignment]  # pyright: ignore[reportAttributeAccessIssue]
    report.THOUSAND_POINTS = THOUSAND_POINTS
    sys.exit(run(ending))
