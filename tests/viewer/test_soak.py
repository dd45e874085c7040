"""The soak, for a moment: nothing of visitors who come and go in every way stays. By hand: `python tests/soak.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 8
WAYS = (
    "closes", "stops", "falls_silent", "comes_back", "closes_at_a_press", "never_lives", "looks", "brings_files",
    "sends_half",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_grows_while_visitors_come_and_go() -> None:
    soak = Path(__file__).parents[1] / "soak.py"
    done = subprocess.run([sys.executable, str(soak), str(SECONDS)], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing has grown" in done.stdout
    assert all(f"× {way}" in done.stdout for way in WAYS), done.stdout
