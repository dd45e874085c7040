"""A clip under several schedules, measured in turns, and what reduction changed.

comparing.py  compare(), sweep()
turns.py      the warm-up and the timed runs, in turns
result.py     what comes out: Run, Comparison, Difference
rows.py       a run as one flat object
"""

from spark3r.compare.comparing import compare, grid_schedule, matches_of, sweep
from spark3r.compare.result import DENSE, REDUCED, Comparison, Difference, Measurement, Run, alignment, difference
from spark3r.compare.rows import cost_row
from spark3r.compare.turns import RunProgress, warm_up
from spark3r.timing import Factor, Samples

__all__ = [
    "DENSE",
    "REDUCED",
    "Comparison",
    "Difference",
    "Factor",
    "Measurement",
    "Run",
    "RunProgress",
    "Samples",
    "alignment",
    "compare",
    "cost_row",
    "difference",
    "grid_schedule",
    "matches_of",
    "sweep",
    "warm_up",
]
