"""`make screenshots`: the page of `hired-edge serve` as docs/page.png, page-dark.png and page-phone.png.

Serves the demonstration bundle, looks at a sample picture and asks about it in a headless Chromium (CHROMIUM, or on the
PATH). `--samples` draws the page's sample pictures again instead.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from demo import page_samples
from demo.run import BUNDLE, ROOT, shown
from hired_edge.errors import HiredEdgeError, InputError

NAME = "demonstration-model"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
COLOURS = 256
MOST_BYTES = 200_000


@dataclass(frozen=True)
class Shot:
    """A picture of the page.

    Args:
        file: below docs/.
        sample: which picture, from 1.
        budgets: the first question is asked at each of them, percent; the last one stays.
        map: the heat map.
        more: suggested questions after it.
        options: of the browser's context.
    """

    file: str
    sample: int
    budgets: tuple[int, ...]
    map: str
    more: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


SHOTS = (
    Shot("page.png", 1, (10, 20), "none", ("How many cards are there?",), {"viewport": {"width": 1400, "height": 880}}),
    Shot(
        "page-dark.png",
        2,
        (20,),
        "selection",
        ("How many cards are there?",),
        {"viewport": {"width": 1400, "height": 880}, "color_scheme": "dark"},
    ),
    Shot("page-phone.png", 4, (20,), "none", (), {"viewport": {"width": 360, "height": 720}, "device_scale_factor": 2}),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.screenshots", description=__doc__)
    parser.add_argument("--samples", action="store_true", help="draw the page's sample pictures again")
    if parser.parse_args().samples:
        print("\n".join(page_samples.write()))
        return
    with served() as address, chromium() as browser:
        for shot in SHOTS:
            path = ROOT / "docs" / shot.file
            path.write_bytes(quantised(taken(browser, address, shot)))
            print(f"{shown(path)}: {path.stat().st_size // 1024} KiB")
            assert path.stat().st_size <= MOST_BYTES, path


@contextmanager
def served() -> Iterator[str]:
    """The address of `hired-edge serve`, started as a reader would."""
    command = [sys.executable, "-m", "hired_edge", "serve", str(BUNDLE), "--port", "0", "--model-name", NAME]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        address = re.search(r"a page at (\S+)/", line)
        if address is None:
            raise InputError(f"hired-edge serve said {line!r}", expected="an address", fix="run it alone to see why")
        yield address[1]
    finally:
        server.terminate()
        server.wait()


@contextmanager
def chromium() -> Iterator[Browser]:
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise InputError("no Chromium", expected="one on the PATH, or named by CHROMIUM", fix="apt install chromium")
    with sync_playwright() as playwright:
        # as root Chromium has no sandbox of its own
        browser = playwright.chromium.launch(executable_path=path, args=[] if os.geteuid() else ["--no-sandbox"])
        yield browser
        browser.close()


def taken(browser: Browser, address: str, shot: Shot) -> bytes:
    """A PNG file of what a visitor sees."""
    page = browser.new_page(**shot.options)
    page.goto(f"{address}/")
    page.click(f"#samples li:nth-child({shot.sample}) button")
    page.wait_for_selector("#counts:not([hidden])")
    for place, percent in enumerate(shot.budgets):
        page.fill("#budget", str(percent - 1))
        page.click(".again" if place else "#suggestions li:first-child button")
        finished(page)
    for prompt in shot.more:
        page.click(f"#suggestions button:text-is('{prompt}')")
        finished(page)
    page.check(f"#maps input[value={shot.map}]")
    page.mouse.move(0, 0)
    page.evaluate("() => (document.activeElement.blur(), scrollTo(0, 0))")
    page.wait_for_timeout(300)
    picture = page.screenshot()
    page.context.close()
    return picture


def finished(page: Page) -> None:
    page.wait_for_selector("#log[aria-busy=false] .again")


def quantised(png: bytes) -> bytes:
    """The same in 256 colours: a third of the size."""
    file = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, kmeans=2, dither=Image.Dither.NONE)
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    try:
        main()
    except HiredEdgeError as error:
        sys.exit(f"screenshots: {error}")
