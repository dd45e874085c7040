"""The pictures of the page for the README, from a real run: `python tests/browser/screenshots.py`.

Starts the app, runs a bundled clip and writes page_before.png, page_during.png and page.png to assets/figures.
"""

import argparse
import contextlib
import io
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.browser.conftest import (  # noqa: E402  the path comes first, as this is a script
    CHROMIUM,
    FLAGS,
    RUN_MS,
    free_port,
    new_tab,
    set_number,
    wait_for_server,
)

WIDTH, HEIGHT = 1440, 1000
COLOURS = 255
FLAT_COLOURS = 64
LARGEST_BYTES = 290_000


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the pictures of the page for the README.")
    parser.add_argument("--clip", type=int, default=0, help="which of the bundled clips, from 0")
    parser.add_argument("--frames", type=int, default=0, help="frames at most (default: as the page has it)")
    parser.add_argument("--factors", type=int, nargs=2, metavar=("QUERY", "KV"), help="default: as the page has them")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "figures")
    parser.add_argument("--size", type=int, nargs=2, default=(WIDTH, HEIGHT), metavar=("W", "H"))
    parser.add_argument("--dark", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    port = free_port()
    server = subprocess.Popen([sys.executable, str(ROOT / "app.py"), "--port", str(port)], cwd=ROOT)
    try:
        wait_for_server(f"http://127.0.0.1:{port}/", server)
        photograph(f"http://127.0.0.1:{port}/", arguments)
    finally:
        server.terminate()
        server.wait(timeout=30)


def photograph(address: str, arguments: argparse.Namespace) -> None:
    """Walk through a first visit and keep three moments of it."""
    width, height = arguments.size
    with (
        sync_playwright() as playwright,
        contextlib.closing(playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)) as browser,
    ):
        page = new_tab(browser, address, width, height, dark=arguments.dark)
        choose(page, arguments)
        save(page, arguments.out / "page_before.png")
        page.click("#run")
        page.wait_for_selector("#progress .progress[data-phase=dense] .meter", timeout=RUN_MS)
        page.wait_for_selector(".bar[data-side=dense] .stage.global_attention", timeout=RUN_MS, state="attached")
        save(page, arguments.out / "page_during.png")
        page.wait_for_selector("#progress .progress[data-phase=done]", timeout=3 * RUN_MS)
        page.wait_for_timeout(5000)  # the clouds travel and are drawn
        save(page, arguments.out / "page.png", whole=True)
        print(page.inner_text("#readout"), page.inner_text("#differences"), sep="\n")


def choose(page: Page, arguments: argparse.Namespace) -> None:
    """Set what was asked for on the command line."""
    if arguments.clip:
        page.locator(".gallery button").nth(arguments.clip).click()
        page.wait_for_timeout(3000)
    if arguments.frames:
        set_number(page, "Max. frames", arguments.frames)
    if arguments.factors:
        set_number(page, "Query factor", arguments.factors[0])
        set_number(page, "Key/value factor", arguments.factors[1])
    page.wait_for_selector("#tokens-plan dl", timeout=RUN_MS)
    page.wait_for_timeout(2000)


def save(page: Page, path: Path, whole: bool = False) -> None:
    """A screenshot, below the largest size; `whole` takes the page beyond the window."""
    if whole:  # what sticks to the window's edge would hide part of the page
        page.add_style_tag(content=".actions { position: static !important; }")
    picture = Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB")
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


if __name__ == "__main__":
    main()
