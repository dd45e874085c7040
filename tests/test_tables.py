"""Tables of measured numbers are what their files say; and the check can fail."""

import json
import re
from pathlib import Path

import pytest

from spark3r.benchmark.tables import KINDS, renewed

pytestmark = pytest.mark.checkout
ROOT = Path(__file__).parents[1]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_tables_are_what_their_files_say(path: Path) -> None:
    """If this fails: python -m spark3r.benchmark.tables README.md docs/*.md --write"""
    assert renewed(path.read_text(encoding="utf-8"), ROOT)[1] == []


def test_every_kind_of_table_is_shown_somewhere() -> None:
    shown = {kind for path in TEXTS for kind in re.findall(r"<!-- table: (\w+) ", path.read_text(encoding="utf-8"))}
    assert shown == set(KINDS)


def test_a_changed_number_is_found_and_written_anew(tmp_path: Path) -> None:
    summary = {"frames": 32, "clips": 2, "schedule": "auto"}
    scores = {"abs_rel": 0.0753, "delta_1_25": 0.93, "rotation_deg": 1.6, "ate_relative": 0.03}
    rows = {"summary": [{**summary, "mean": scores, "median": scores}]}
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    text, changed = renewed("before\n<!-- table: unseen rows.json -->\n\n| old |\n\nafter\n", tmp_path)
    assert changed == ["unseen rows.json"]
    assert "| 32 | 2 | auto | 0.075 / 0.075 |" in text
    assert text.startswith("before\n") and text.endswith("|\n\nafter\n")
    assert renewed(text, tmp_path) == (text, [])
    scores["abs_rel"] = 0.0843
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    assert renewed(text, tmp_path)[1] == ["unseen rows.json"]
