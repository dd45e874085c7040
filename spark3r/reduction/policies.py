"""All policies by name: the paper's, and the field's other ways on the same trunk."""

from __future__ import annotations

from spark3r.reduction.anchor import Anchor
from spark3r.reduction.grid import Grid
from spark3r.reduction.policy import Policy
from spark3r.reduction.reduce import Spark3R
from spark3r.reduction.register import Register
from spark3r.reduction.uniform import Uniform

POLICIES: dict[str, Policy] = {
    "spark3r": Spark3R(),
    "uniform": Uniform(),
    "grid": Grid(),
    "anchor": Anchor(),
    "register": Register(),
}
