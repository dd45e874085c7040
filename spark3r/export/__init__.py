"""Taking a reconstruction away: one file per format, one door."""

from spark3r.export.door import DEFAULT_MAX_POINTS, FORMATS, check, write

__all__ = ["DEFAULT_MAX_POINTS", "FORMATS", "check", "write"]
