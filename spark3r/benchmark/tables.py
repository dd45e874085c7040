"""Measured rows as Markdown: the tables of README and docs are written from files, and checked against them.

A table stands under a line that names its kind and its files, relative to the repository:

    <!-- table: speed assets/benchmarks/speed.json -->

`python -m spark3r.benchmark.tables README.md docs/*.md` tells which tables are not what their files say;
with `--write` it writes them anew.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from spark3r.benchmark.chart import relative_to_dense
from spark3r.formatting import factor, factor_range, milliseconds, number

Rows = list[dict[str, Any]]

_TABLE = re.compile(r"(<!-- table: (\w+) ([^>]+?) -->\n\n?)((?:\|.*\n)*)")


def speed(contents: Sequence[dict[str, Any]]) -> Rows:
    """Time per stage and factors of `benchmark --json`."""
    times = {
        "encoder": "encoder", "frame layers": "frame_attention", "global layers": "global_attention",
        "matching": "matching", "heads": "heads", "aggregator": "aggregator", "whole run": "total",
    }  # fmt: skip
    return [
        {
            "frames": row["frames"],
            "schedule": row["schedule"],
            **{title: milliseconds(row[f"{key}_ms"]) for title, key in times.items()},
            "aggregator ×": factor(row["speedup_aggregator"]),
            "whole run ×": _with_range(row),
        }
        for row in _rows(contents)
        if "skipped" not in row
    ]


def headline(contents: Sequence[dict[str, Any]]) -> Rows:
    """The same in short: dense against the automatic schedule."""
    rows = {(row["frames"], row["schedule"]): row for row in _rows(contents) if "skipped" not in row}
    return [
        {
            "frames": row["frames"],
            "dense": milliseconds(rows[row["frames"], "dense"]["total_ms"]),
            "Spark3R": milliseconds(row["total_ms"]),
            "whole run": _with_range(row),
            "aggregator": factor(row["speedup_aggregator"]),
        }
        for row in rows.values()
        if row["schedule"] == "auto"
    ]


def families(contents: Sequence[dict[str, Any]]) -> Rows:
    """Time and memory of the public models at full size."""
    return [
        {
            "model": row["model"],
            "input": f"{row['width']}×{row['height']}",
            "encoder": milliseconds(row["encoder_ms"]),
            "trunk": milliseconds(row["aggregator_ms"]),
            "heads": milliseconds(row["heads_ms"]),
            "whole run": milliseconds(row["total_ms"]),
            "peak RSS": f"{row['process_peak_bytes'] / 1e9:.2f} GB",
        }
        for row in _rows(contents)
    ]


def sensitivity(contents: Sequence[dict[str, Any]]) -> Rows:
    """Error ÷ dense error by side, length and factor, mean over clips; three factors in a cell."""
    rows, factors = _rows(contents), {"query": (4, 12, 32), "kv": (4, 32, 256)}
    metrics = {"AbsRel": "abs_rel", "ATE / length": "ate_relative", "cloud accuracy": "accuracy"}
    return [
        {
            "compressed": "queries" if side == "query" else "keys/values",
            "frames": length,
            "factor": " / ".join(map(str, chosen)),
            **{
                title: " / ".join(number(dict(relative_to_dense(rows, side, length, metric))[one], 2) for one in chosen)
                for title, metric in metrics.items()
            },
        }
        for side, chosen in factors.items()
        for length in sorted({row["frames"] for row in rows})
    ]


def unseen(contents: Sequence[dict[str, Any]]) -> Rows:
    """Quality on unseen scenes by length and schedule, mean / median over clips."""
    digits = {"AbsRel": ("abs_rel", 3), "δ < 1.25": ("delta_1_25", 3), "rotation °": ("rotation_deg", 1)}
    digits["ATE / length"] = ("ate_relative", 3)
    return [
        {
            "frames": row["frames"],
            "clips": row["clips"],
            "schedule": row["schedule"],
            **{
                title: " / ".join(number(row[kind][key], places) for kind in ("mean", "median"))
                for title, (key, places) in digits.items()
            },
        }
        for content in contents
        for row in content["summary"]
    ]


def plugin(contents: Sequence[dict[str, Any]]) -> Rows:
    """The plug-in on the official code of each family."""
    return [
        {
            "class": row["class"],
            "code": row["code"],
            "off": _says(row["off_bit_equal"], "bit-equal"),
            "on": _says(row["on_same_shapes"], "same shapes"),
            "undone": _says(row["undone_bit_equal"], "bit-equal"),
            "on, against our own network": "–"
            if row["reduced_against_ours"] is None
            else f"{row['reduced_against_ours']:.0e}",
            f"global attention, {row['frames']} frames": factor(row["speedup_global_attention_given"]),
        }
        for row in _rows(contents)
    ]


def scaling(contents: Sequence[dict[str, Any]]) -> Rows:
    """Computed time against the number of cards that share a clip; with the most cards, transfers and memory."""
    rows: dict[tuple[int, str], dict[int, dict[str, Any]]] = {}
    for content in contents:
        link = next(row["link"] for row in content["rows"] if row["link"])
        for row in content["rows"]:
            rows.setdefault((row["frames"], link), {})[row["ranks"]] = row
    return [
        {
            "frames": f"{frames:,}",
            "link": link,
            **{f"{ranks} card{'s' * (ranks > 1)}": milliseconds(row["total_ms"]) for ranks, row in by_ranks.items()},
            "transfers, most cards": f"{last['link_ms'] / last['total_ms']:.0%}",
            "global attention, one card": f"{by_ranks[1]['global_attention_ms'] / by_ranks[1]['total_ms']:.0%}",
            "memory per card, most": f"{last['peak_bytes'] / 2**30:.1f} GiB",
        }
        for (frames, link), by_ranks in sorted(rows.items())
        for last in [by_ranks[max(by_ranks)]]
    ]


def processes(contents: Sequence[dict[str, Any]]) -> Rows:
    """One clip by one process and by several, measured in turns: medians, and the range of the whole run."""
    runs: dict[int, Rows] = {}
    for row in _rows(contents):
        runs.setdefault(len(row.get("ranks", [0])), []).append(row)
    stages = {
        "encoder": "encoder", "frame layers": "frame_attention", "global layers": "global_attention", "heads": "heads",
        "whole run": "total",
    }  # fmt: skip
    took = {count: [row["total_ms"] for row in rows] for count, rows in runs.items()}
    return [
        {
            "processes": count,
            **{title: milliseconds(median(row[f"{key}_ms"] for row in rows)) for title, key in stages.items()},
            "range": f"{milliseconds(min(took[count]))} – {milliseconds(max(took[count]))}",
            "whole run ×": factor(median(took[min(took)]) / median(took[count])),
        }
        for count, rows in sorted(runs.items())
    ]


def environments(contents: Sequence[dict[str, Any]]) -> Rows:
    """The plug-in in environments made from the official requirements."""
    return [
        {
            "class": row["class"],
            "code": row["code"],
            "environment": row["environment"],
            "the line added": row["added"],
            "off, undone": _says(row["off_bit_equal"] and row["undone_bit_equal"], "bit-equal"),
            "on, against our own network": f"{row['reduced_against_ours']:.0e}",
            "gradients": _says(row["gradients_after_inference"], "flow"),
            "saved copy": _says(row["saved_is_official"], "official"),
            "threads": _says(row["threads_agree"], "agree"),
        }
        for row in _rows(contents)
    ]


KINDS: dict[str, Callable[[Sequence[dict[str, Any]]], Rows]] = {
    each.__name__: each
    for each in (speed, headline, families, sensitivity, unseen, plugin, scaling, processes, environments)
}


def markdown(rows: Rows) -> str:
    """Rows of one shape as a Markdown table."""
    titles = list(rows[0])
    lines = [titles, ["---"] * len(titles), *([str(row[title]) for title in titles] for row in rows)]
    return "".join(f"|{'|'.join(f' {cell} ' if cell != '---' else cell for cell in line)}|\n" for line in lines)


def renewed(text: str, root: Path) -> tuple[str, list[str]]:
    """The text with every marked table as its files say, and which of them (by marker) it changed."""
    changed: list[str] = []

    def anew(found: re.Match[str]) -> str:
        marker, kind, files, table = found.groups()
        contents = [json.loads((root / file).read_text(encoding="utf-8")) for file in files.split()]
        now = markdown(KINDS[kind](contents))
        if now != table:
            changed.append(f"{kind} {files}")
        return marker + now

    return _TABLE.sub(anew, text), changed


def main() -> int:
    """Checks or writes the tables of some files; 1 where one is not what its files say."""
    parser = argparse.ArgumentParser(prog="spark3r.benchmark.tables", description="Tables of measured numbers.")
    parser.add_argument("files", nargs="+", type=Path, help="Markdown files")
    parser.add_argument("--write", action="store_true", help="write the tables anew")
    arguments = parser.parse_args()
    stale = False
    for file in arguments.files:
        text, changed = renewed(file.read_text(encoding="utf-8"), Path.cwd())
        for name in changed:
            print(f"{file}: {name}{' written anew' if arguments.write else ' is not what the file says'}")
        if arguments.write and changed:
            file.write_text(text, encoding="utf-8")
        stale = stale or bool(changed)
    return int(stale and not arguments.write)


def _rows(contents: Sequence[dict[str, Any]]) -> Rows:
    return [row for content in contents for row in content["rows"]]


def _with_range(row: dict[str, Any]) -> str:
    """The factor, with its range where that was measured."""
    ends = row.get("speedup_total_range")
    return factor(row["speedup_total"]) + (f" ({factor_range(*ends)})" if ends and row["policy"] != "dense" else "")


def _says(holds: bool, what: str) -> str:
    return what if holds else f"not {what}"


if __name__ == "__main__":
    sys.exit(main())
