"""The app with less to do, for tests: `python tests/browser/hurried.py ARGUMENTS`, those of app.py.

The first example has a few of its frames, and short runs are repeated three times at most, however their times spread
on a machine that runs tests.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from spark3r.compare import turns
from viewer import layout
from viewer.ending import Ending
from viewer.launch import run

FIRST_FRAMES = 24

if __name__ == "__main__":
    ending = Ending()
    ending.listen()
    turns.PATIENCE_SECONDS = 0.0
    layout.DEFAULT_MAX_FRAMES = layout.USUAL["max_frames"] = FIRST_FRAMES
    sys.exit(run(ending))
