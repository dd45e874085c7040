"""How steady the page's headline is: `python tests/browser/ten_runs.py [--busy]`, on a machine where nothing else runs.

Starts the app, opens the page in a headless browser as a visitor has it, presses the button ten times with the default
settings, and prints what the page then says, as a table in Markdown: factor, range, aggregator, arithmetic, whether
the page calls the machine busy, and the seconds waited. `--busy` keeps one core at work meanwhile. The last line tells
the spread of the headline, (largest - smallest) / median, and whether it holds: at most 10 % on an idle machine;
beside a busy core at most 20 %, or every run beyond told as busy. Takes about three minutes on two cores.
"""

import argparse
import contextlib
import multiprocessing
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.browser.conftest import (  # noqa: E402  the path comes first, as this is a script
    app_and_browser,
    new_tab,
    reconstruct,
    wait_first,
)

IDLE_SPREAD, BUSY_SPREAD = 0.10, 0.20
REST_MS = 3000  # between two runs: the clouds are drawn, by the processor where there is no GPU


@dataclass(frozen=True)
class Reading:
    """What the page says after a run."""

    factor: float
    range: str
    aggregator: str
    arithmetic: str
    is_doubtful: bool
    waited: str


def main() -> int:
    parser = argparse.ArgumentParser(description="Press Run ten times and tell how far the headline spreads.")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--busy", action="store_true", help="keep one core at work meanwhile")
    arguments = parser.parse_args()
    with tab() as page, busy_core(arguments.busy):
        print("| run | whole run | range | aggregator | arithmetic | busy | waited |")
        print("|---|---|---|---|---|---|---|")
        readings = []
        for number in range(1, arguments.runs + 1):
            page.wait_for_timeout(REST_MS)
            reconstruct(page)
            readings.append(read(page))
            print(row(number, readings[-1]), flush=True)
    return judged(readings, arguments.busy)


@contextlib.contextmanager
def tab() -> Iterator[Page]:
    """A visitor's tab of an app of its own, with the first example's result."""
    with app_and_browser(webgl=False) as (address, browser):
        page = new_tab(browser, address, clouds=False)  # drawn by the processor they would be what is measured
        wait_first(page)
        yield page


@contextlib.contextmanager
def busy_core(wanted: bool) -> Iterator[None]:
    """One process that does nothing but work."""
    worker = multiprocessing.Process(target=_work, daemon=True)
    if wanted:
        worker.start()
    yield
    if wanted:
        worker.terminate()
        worker.join()


def _work() -> None:
    while True:
        sum(range(10_000))


def read(page: Page) -> Reading:
    """The card beneath the dials."""
    speedup, aggregator, arithmetic = (
        page.inner_text(f"[data-testid={name}]") for name in ("speedup", "aggregator", "arithmetic")
    )
    ranges = page.locator("[data-testid=range]").all_inner_texts()  # none where long runs were measured once
    spread = ranges[0] if ranges else "–"
    waited = re.search(r"([\d.]+) s", page.inner_text("[data-testid=waited]"))
    return Reading(
        float(speedup.rstrip("×")), spread, aggregator.split()[-1], arithmetic.split()[-1],
        page.locator(".factor-number.doubtful").count() > 0, waited[1] if waited else "–",
    )  # fmt: skip


def row(number: int, said: Reading) -> str:
    busy = "yes" if said.is_doubtful else "no"
    cells = (number, f"{said.factor:g}×", said.range, said.aggregator, said.arithmetic, busy, f"{said.waited} s")
    return "| " + " | ".join(map(str, cells)) + " |"


def judged(readings: list[Reading], busy: bool) -> int:
    """Prints the spread and whether it holds; 0 if so."""
    sure = [one.factor for one in readings if not (busy and one.is_doubtful)]
    spread = (max(sure) - min(sure)) / median(sure) if sure else 0.0
    limit = BUSY_SPREAD if busy else IDLE_SPREAD
    told = f", {len(readings) - len(sure)} of {len(readings)} told as busy and left out" if busy else ""
    print(f"\nspread of the headline: {100 * spread:.1f} % (at most {100 * limit:.0f} %{told})")
    return 0 if spread <= limit else 1


if __name__ == "__main__":
    sys.exit(main())
