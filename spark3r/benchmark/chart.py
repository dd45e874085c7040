"""Pictures of measured rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from spark3r.benchmark.policies import QUALITIES
from spark3r.files import replacing
from spark3r.installation import require
from spark3r.stages import COMPUTED

COLOURS = ("#8da0cb", "#66c2a5", "#fc8d62", "#e78ac3", "#b3b3b3")
METRICS = {
    "abs_rel": "depth: AbsRel",
    "ate_relative": "cameras: ATE / path",
    "accuracy": "cloud: accuracy / diagonal",
    "epipolar_px": "matched features: epipolar",
}

CONFIDENCE_PANELS = {
    "abs_rel": "depth: AbsRel",
    "wrong": "depth more than 10 % off, %",
    "flying": "flying between surfaces, %",
}
LENGTH_COLOURS = ("#d1495b", "#edae49", "#00798c", "#30638e", "#8da0cb")


def draw_speed(rows: Sequence[dict[str, Any]], path: Path, caption: str) -> None:
    """Seconds against the number of frames for every schedule, and where the time goes at the longest clip."""
    plot = _pyplot()
    measured = [row for row in rows if "skipped" not in row]
    names = list(dict.fromkeys(row["schedule"] for row in measured))
    figure, (left, right) = plot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for name in names:
        line = sorted((row["frames"], row["total_ms"] / 1e3) for row in measured if row["schedule"] == name)
        left.plot(*zip(*line, strict=True), marker="o", label=name)
    lengths = sorted({row["frames"] for row in measured})
    left.set(xscale="log", yscale="log", xlabel="frames", ylabel="seconds, end to end")
    left.set_xticks(lengths, labels=[str(length) for length in lengths])
    left.set_xticks([], minor=True)
    left.yaxis.set_major_formatter("{x:g}")
    left.legend()
    longest = max(row["frames"] for row in measured)
    _stack_stages(right, [row for row in measured if row["frames"] == longest])
    right.set(title=f"{longest} frames", ylabel="seconds")
    _save(figure, path, caption)


def draw_sensitivity(rows: Sequence[dict[str, Any]], path: Path, caption: str) -> None:
    """Each metric relative to dense, mean over clips, against the factor of the compressed side."""
    plot = _pyplot()
    shown = [metric for metric in METRICS if any(row.get(metric) is not None for row in rows)]
    size = (4 * len(shown), 3.8)
    figure, axes = plot.subplots(1, len(shown), figsize=size, layout="constrained", squeeze=False)
    lengths = sorted({row["frames"] for row in rows})
    for axis, metric in zip(axes[0], shown, strict=True):
        for side, colour in (("query", "#d1495b"), ("kv", "#00798c")):
            for length, style in zip(lengths, ("-", "--", ":", "-."), strict=False):
                line = relative_to_dense(rows, side, length, metric)
                label = f"{'queries' if side == 'query' else 'keys/values'}, {length} frames"
                axis.plot(*zip(*line, strict=True), style, color=colour, marker="o", markersize=3, label=label)
        axis.axhline(1.0, color="#888", linewidth=0.8)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.set(xlabel="factor", title=METRICS[metric])
    axes[0, 0].set_ylabel("error / dense error")
    axes[0, 0].legend(fontsize=8)
    _save(figure, path, caption)


def draw_confidence(rows: Sequence[dict[str, Any]], path: Path, caption: str) -> None:
    """Error of the pixels in each bin of confidence, a line per length and schedule; what the page hides is shaded."""
    plot = _pyplot()
    figure, axes = plot.subplots(1, len(CONFIDENCE_PANELS), figsize=(13, 4.2), layout="constrained")
    lengths = sorted({row["frames"] for row in rows})
    schedules = list(dict.fromkeys(row["schedule"] for row in rows))
    for axis, (measure, title) in zip(axes, CONFIDENCE_PANELS.items(), strict=True):
        unit = 1 if measure == "abs_rel" else 100
        for row in rows:
            line = [(x, unit * y) for x, y in zip(row["percentiles"], row[measure], strict=True) if y is not None]
            axis.plot(
                *zip(*line, strict=True),
                ("-", "--", ":", "-.")[schedules.index(row["schedule"]) % 4],
                color=LENGTH_COLOURS[lengths.index(row["frames"]) % len(LENGTH_COLOURS)],
                label=f"{row['frames']} frames, {row['schedule']}",
            )
        hidden = rows[0]["hidden_percentile"]
        axis.axvspan(0, hidden, color="#888", alpha=0.15, linewidth=0, label=f"hidden by the page ({hidden} %)")
        axis.set(xlabel="confidence percentile in the clip", title=title, xlim=(0, 100))
        axis.set_ylim(bottom=0)
    axes[0].legend(fontsize=8)
    _save(figure, path, caption)


def draw_policies(rows: Sequence[dict[str, Any]], path: Path, caption: str) -> None:
    """Each quality against seconds, a column per length; strengths of a policy are joined, the front is dotted.

    What is far worse than the rest is left out of a panel and named in its corner.
    """
    plot = _pyplot()
    lengths = sorted({row["frames"] for row in rows})
    colours = {policy: f"C{place}" for place, policy in enumerate(dict.fromkeys(row["policy"] for row in rows))}
    size = (5.6 * len(lengths), 3.4 * len(QUALITIES))
    figure, axes = plot.subplots(len(QUALITIES), len(lengths), figsize=size, layout="constrained", squeeze=False)
    for line, (name, (title, less)) in zip(axes, QUALITIES.items(), strict=True):
        for axis, length in zip(line, lengths, strict=True):
            here = [row for row in rows if row["frames"] == length and row[name] is not None]
            _plot_policies(axis, here, name, colours)
            axis.set(title=f"{length} frames")
            if less:
                axis.invert_yaxis()  # up is better everywhere
        line[0].set_ylabel(title)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(colours), fontsize=9)
    _save(figure, path, f"dotted: Pareto front · {caption}")


def _plot_policies(axis: Any, rows: Sequence[dict[str, Any]], name: str, colours: dict[str, str]) -> None:
    """One panel."""
    usual, less = median(row[name] for row in rows), QUALITIES[name][1]
    far = [row for row in rows if (row[name] > 2 * usual if less else row[name] < 0.25 * usual)]
    near = [row for row in rows if row not in far]
    for policy, colour in colours.items():
        own = sorted((row["total_ms"] / 1e3, row[name]) for row in near if row["policy"] == policy)
        axis.plot(*(zip(*own, strict=True) if own else ([], [])), "o-", color=colour, linewidth=0.8, label=policy)
    for row in near:
        style = {"weight": "bold"} if name in row["front"] else {"color": "#666"}
        at, strength = (row["total_ms"] / 1e3, row[name]), row["schedule"].split(":", 1)[-1]
        axis.annotate(strength, at, (4, 4), textcoords="offset points", fontsize=7, **style)
    front = sorted((row["total_ms"] / 1e3, row[name]) for row in near if name in row["front"])
    if front:
        axis.step(*zip(*front, strict=True), where="post", color="#333", linestyle=":", linewidth=1.2)
    words = [f"{row['schedule']}: {row[name]:.3g} in {row['total_ms'] / 1e3:.2g} s" for row in far]
    axis.text(0.98, 0.03, "\n".join(words), transform=axis.transAxes, fontsize=7, color="#666", ha="right")
    axis.set(xscale="log", xlabel="seconds, end to end")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("{x:g}")
    axis.tick_params(axis="x", which="both", labelsize=7)
    axis.margins(x=0.12, y=0.12)


def relative_to_dense(rows: Sequence[dict[str, Any]], side: str, frames: int, metric: str) -> list[tuple[int, float]]:
    """(factor, mean over clips of error / error at factor 1), ascending."""
    chosen = [row for row in rows if row["side"] == side and row["frames"] == frames and row.get(metric) is not None]
    dense = {row["clip"]: row[metric] for row in chosen if row["factor"] == 1}
    chosen = [row for row in chosen if row["clip"] in dense]
    factors = sorted({row["factor"] for row in chosen})
    return [
        (factor, fmean(row[metric] / dense[row["clip"]] for row in chosen if row["factor"] == factor))
        for factor in factors
    ]


def _stack_stages(axis: Any, rows: Sequence[dict[str, Any]]) -> None:
    names = [row["schedule"] for row in rows]
    below = [0.0] * len(rows)
    for stage, colour in zip(COMPUTED, COLOURS, strict=True):
        heights = [row[f"{stage}_ms"] / 1e3 for row in rows]
        axis.bar(names, heights, bottom=below, color=colour, label=stage.replace("_", " "))
        below = [low + height for low, height in zip(below, heights, strict=True)]
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _save(figure: Any, path: Path, caption: str) -> None:
    figure.supxlabel(caption, fontsize=7)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, metadata={"Software": "Spark3R"})


def _pyplot() -> Any:
    """matplotlib without a window."""
    require("A chart", "matplotlib")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot
