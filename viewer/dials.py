"""The two reduction dials: logarithmic stops that end where nothing more changes, and what each stop keeps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spark3r.formatting import count

QUERY_STOPS = (1, 2, 3, 4, 6, 8, 12, 16)
KV_STOPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class DialFace:
    """A dial as it is drawn: where it may stand, where it stands, and what is kept there."""

    name: str  # of the setting it makes
    title: str
    value: int
    stops: Sequence[int]
    kept: Sequence[str]  # one per stop

    @property
    def index(self) -> int:
        """Number of the stop that the dial stands at."""
        return self.stops.index(self.value)

    @property
    def said(self) -> str:
        """What that stop keeps, in words."""
        return self.kept[self.index]


def query_dial(value: int, tokens: int, kept_at: Callable[[int], int]) -> DialFace:
    """The dial of the query factor; `kept_at(factor)` counts the queries of a layer, out of `tokens`."""
    words = "all {all} queries", "{kept} of {all} queries"
    return _dial("query_factor", "Query factor", value, QUERY_STOPS, tokens, kept_at, words)


def kv_dial(value: int, tokens: int, kept_at: Callable[[int], int], layers: str) -> DialFace:
    """The dial of the key/value factor; `layers`: where the factor holds as it is, " in sensitive layers" say."""
    words = "all {all} keys/values" + layers, "{kept} of {all} keys/values" + layers
    return _dial("kv_factor", "Key/value factor", value, KV_STOPS, tokens, kept_at, words)


def idle(name: str, title: str, value: int, stops: Sequence[int]) -> DialFace:
    """A dial before anything is known about the clip."""
    every = sorted({*stops, value})
    return DialFace(name, title, value, every, [""] * len(every))


def _dial(
    name: str,
    title: str,
    value: int,
    stops: Sequence[int],
    tokens: int,
    kept_at: Callable[[int], int],
    words: tuple[str, str],
) -> DialFace:
    """A dial whose stops are those that differ, and the one it stands at."""
    kept = {stop: kept_at(stop) for stop in sorted({*stops, value})}
    ending = next(stop for stop, tokens_kept in kept.items() if tokens_kept == min(kept.values()))
    shown = [stop for stop in kept if stop <= ending or stop == value]
    said = [words[kept[stop] < tokens].format(kept=count(kept[stop]), all=count(tokens)) for stop in shown]
    return DialFace(name, title, value, shown, [f"keeps {each}" for each in said])
