"""Our families against oracles recorded from the official networks."""

from spark3r.parity.check import Parity, check, oracles

__all__ = ["Parity", "check", "oracles"]
