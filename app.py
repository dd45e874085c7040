"""Spark3R in the browser.  `python app.py --help` lists the arguments."""

import sys

from viewer.starting import run

if __name__ == "__main__":
    sys.exit(run())
