"""Puts the repository on the import path, so that a bare `pytest` works as `python -m pytest` does."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
