"""The pictures of the page for the README, from real runs: `python tests/browser/screenshots.py [NAME …]`.

Starts the app and writes to assets/figures what is named, else everything: a first visit with a bundled clip
(page_before, page_during, page), the models to choose from (page_models), and what is said where the weights of a
public model cannot be fetched (page_failed_download: the app is started with a hub that nothing listens at). The
other pictures of docs/page.md: page_sweep, page_phone.
"""

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.browser.conftest import (  # noqa: E402  the path comes first, as this is a script
    RUN_MS,
    VIEWER,
    app_and_browser,
    empty_view,
    free_port,
    new_tab,
    reconstruct,
    set_number,
    wait_done,
    wait_first,
)

WIDTH, HEIGHT = 1440, 900
SETTLE_MS = 6000
COLOURS = 255
FLAT_COLOURS = 64
LARGEST_BYTES = 245_000


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the pictures of the page for the README.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(PICTURES)} (default: all)")
    parser.add_argument("--clip", type=int, default=0, help="which of the bundled clips, from 0")
    parser.add_argument("--frames", type=int, default=0, help="frames at most (default: as the page has it)")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "figures")
    parser.add_argument("--size", type=int, nargs=2, default=(WIDTH, HEIGHT), metavar=("W", "H"))
    parser.add_argument("--dark", action="store_true")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(PICTURES):
        parser.error(f"no picture {', '.join(sorted(unknown))}: must be of {', '.join(PICTURES)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    wanted = set(arguments.names or PICTURES)
    with tabs(arguments) as tab:
        for take, names in WALKS.items():
            if wanted & set(names):
                page = tab()
                take(page, arguments)
                page.close()


@contextlib.contextmanager
def tabs(arguments: argparse.Namespace) -> Iterator[Callable[[], Page]]:
    """Visitors' tabs of an app whose hub is a port that is closed, and whose cache of models is empty."""
    width, height = arguments.size
    with tempfile.TemporaryDirectory() as empty:
        closed: dict[str, Any] = {"HF_ENDPOINT": f"http://127.0.0.1:{free_port()}", "HF_HOME": empty, "NO_PROXY": "*"}
        with app_and_browser(**closed) as (address, browser):
            quiet = new_tab(browser, address, clouds=False)  # see draw
            wait_first(quiet)
            quiet.context.close()
            yield lambda: new_tab(browser, address, width, height, dark=arguments.dark, sharp=True)


def first_visit(page: Page, arguments: argparse.Namespace) -> None:
    """From what every visitor finds, over a run, to its end."""
    wait_first(page)
    page.wait_for_timeout(SETTLE_MS)
    save(page, arguments.out / "page_before.png")
    choose(page, arguments)
    page.click("#run")
    page.wait_for_selector("[data-kind=dense] .stage.global_attention", timeout=RUN_MS, state="attached")
    page.wait_for_timeout(1500)
    save(page, arguments.out / "page_during.png")
    wait_done(page)
    draw(page, False)
    reconstruct(page)
    draw(page, True)
    save(page, arguments.out / "page.png")
    print(page.inner_text("#readout"), page.inner_text("#quality"), sep="\n")


def draw(page: Page, clouds: bool) -> None:
    """The page anew with or without its clouds: what draws them would be part of what is measured."""
    if clouds:
        page.context.unroute(VIEWER)
    else:
        page.context.route(VIEWER, empty_view)
    page.reload()
    wait_first(page)
    page.wait_for_timeout(2 * SETTLE_MS if clouds else SETTLE_MS)  # they travel and are drawn


def sweep(page: Page, arguments: argparse.Namespace) -> None:
    """A small sweep."""
    draw(page, False)
    page.locator(".menu summary", has_text="Grid").click()
    page.locator("[data-grid=queries]").fill("1, 2, 4")
    page.locator("[data-grid=keys]").fill("1, 8, 64")
    page.locator("[data-action=sweep]").click()
    page.wait_for_selector("[data-action=stop-sweep]", timeout=RUN_MS)
    page.wait_for_selector("[data-action=stop-sweep]", timeout=3 * RUN_MS, state="detached")
    draw(page, True)
    save(page, arguments.out / "page_sweep.png")


def phone(page: Page, arguments: argparse.Namespace) -> None:
    """The first example on a phone."""
    page.set_viewport_size({"width": 390, "height": 844})
    wait_first(page)
    page.wait_for_timeout(SETTLE_MS)
    save(page, arguments.out / "page_phone.png")


def models(page: Page, arguments: argparse.Namespace) -> None:
    """The facts of a public model, and all models side by side."""
    wait_first(page)
    choose_model(page, "Depth Anything 3 Small")
    page.get_by_text("All models side by side").click()
    page.wait_for_selector("#model-table table", timeout=RUN_MS)
    page.wait_for_timeout(1000)
    save(page, arguments.out / "page_models.png")


def failed_download(page: Page, arguments: argparse.Namespace) -> None:
    """Run, with a public model that cannot be fetched."""
    wait_first(page)
    choose_model(page, "VGGT 1B")
    page.click("#run")
    page.wait_for_selector("#progress .progress[data-phase=failed]", timeout=RUN_MS)
    page.wait_for_timeout(1000)
    save(page, arguments.out / "page_failed_download.png")
    print(page.inner_text("#progress"))


def choose_model(page: Page, title: str) -> None:
    """As a visitor does: open the list, click."""
    page.locator("#model-line > button").click()
    page.get_by_label("Model", exact=True).click()
    page.get_by_role("option", name=title).first.click()
    page.wait_for_selector(".model-facts", timeout=RUN_MS)
    page.wait_for_timeout(1500)


def choose(page: Page, arguments: argparse.Namespace) -> None:
    """Set what was asked for on the command line."""
    if arguments.clip:
        page.locator(".examples button").nth(arguments.clip).click()
        page.wait_for_timeout(3000)
    if arguments.frames:
        set_number(page, "Max. frames", arguments.frames)
        page.wait_for_timeout(2000)


def save(page: Page, path: Path) -> None:
    """A screenshot of the window, below the largest size."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.save(path, optimize=True)
    share = 1.0
    while path.stat().st_size > LARGEST_BYTES:
        size = (round(picture.width * share), round(picture.height * share))
        with_few_colours(picture.resize(size, Image.Resampling.LANCZOS)).save(path, optimize=True)
        share -= 0.05
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB", flush=True)


def with_few_colours(picture: Image.Image) -> Image.Image:
    """The most frequent colours (those of the page) as they are, the clouds' in the rest of the palette."""
    counted = sorted(picture.getcolors(picture.width * picture.height) or [], reverse=True)
    flat = [level for _, colour in counted[:FLAT_COLOURS] for level in colour]  # pyright: ignore[reportGeneralTypeIssues]
    others = picture.quantize(COLOURS - FLAT_COLOURS).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette(flat + others[: 3 * (COLOURS - FLAT_COLOURS)])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


WALKS: dict[Callable[[Page, argparse.Namespace], None], tuple[str, ...]] = {
    first_visit: ("page_before", "page_during", "page"),
    sweep: ("page_sweep",),
    phone: ("page_phone",),
    models: ("page_models",),
    failed_download: ("page_failed_download",),
}
PICTURES = tuple(name for names in WALKS.values() for name in names)

if __name__ == "__main__":
    main()
