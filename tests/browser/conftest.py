"""A headless Chromium, found as CHROMIUM or on the PATH, and visits to the page that end without a complaint."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.tiny.served import Served

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDE = {"width": 1400, "height": 900}
PHONE = {"width": 360, "height": 780}


@dataclass
class Visit:
    """A page that is open, and what it has complained about.

    Args:
        complaints: errors and warnings in the console, uncaught exceptions, and requests to any other host.
        bodies: of what was asked of the API, by path.
    """

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)
    bodies: dict[str, list[Any]] = field(default_factory=dict)

    def listen(self) -> None:
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(f"{error}\n{error.stack}"))
        self.page.on("request", lambda request: self._asked(request.url, request.post_data_buffer))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _asked(self, url: str, body: bytes | None) -> None:
        if not url.startswith((f"{self.address}/", "data:", "blob:")):
            self.complaints.append(f"asked of another host: {url}")
        if body is not None and body.startswith(b"{"):
            self.bodies.setdefault(url.removeprefix(f"{self.address}/"), []).append(body)

    def take_sample(self, number: int = 1) -> None:
        """A sample picture, and what is kept of it."""
        self.page.click(f"#samples li:nth-child({number}) button")
        self.page.wait_for_selector("#counts:not([hidden])")

    def ask(self, question: str) -> None:
        """To the end of the answer."""
        self.page.fill("#question", question)
        self.page.press("#question", "Enter")
        self.answered()

    def answered(self) -> None:
        self.page.wait_for_selector("#log[aria-busy=false] .again")

    @property
    def answers(self) -> list[str]:
        return self.page.locator(".answer").all_inner_texts()

    @property
    def counts(self) -> list[int]:
        """Kept tokens of each partition, as the table shows them."""
        return [int(text) for text in self.page.locator("#partitions td:nth-child(2)").all_inner_texts()]

    def pixels(self, panel: int = 0) -> list[int]:
        """A panel's colours in the middle of each cell of a grid of 8 x 8: on panel 0, of each patch."""
        return self.page.evaluate(
            """panel => {
                const canvas = document.querySelectorAll("#panels canvas")[panel];
                const copy = new OffscreenCanvas(canvas.width, canvas.height);
                const context = copy.getContext("2d", { willReadFrequently: true });
                context.drawImage(canvas, 0, 0);
                const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
                return [...Array(64).keys()].map((cell) => {
                    const x = Math.floor((cell % 8 + 0.5) * canvas.width / 8);
                    const y = Math.floor((Math.floor(cell / 8) + 0.5) * canvas.height / 8);
                    const at = 4 * (y * canvas.width + x);
                    return data[at] * 65536 + data[at + 1] * 256 + data[at + 2];
                });
            }""",
            panel,
        )


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    names = (os.environ.get("CHROMIUM"), *map(shutil.which, NAMES))
    path = next((name for name in names if name), None)
    assert path is not None, "no Chromium found; expected it on the PATH or as CHROMIUM; apt install chromium"
    sandbox = [] if os.geteuid() else ["--no-sandbox"]  # Chromium has none for root
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=sandbox)
        yield started
        started.close()


@pytest.fixture
def visit(browser: Browser) -> Callable[..., Any]:
    """`with visit(server, **options of a browser context) as each`: at its end, nothing was complained about.

    `complaining`: what the console may have said, since Chromium itself reports every answer with an error's status.
    """

    @contextmanager
    def visiting(server: Served, *, complaining: str | None = None, **options: Any) -> Iterator[Visit]:
        context = browser.new_context(**{"viewport": WIDE, **options})
        context.set_default_timeout(20_000)
        try:
            each = Visit(context.new_page(), server.address)
            each.listen()
            each.page.goto(f"{server.address}/")
            yield each
            if complaining is None:
                assert not each.complaints
            else:
                assert all(complaining in complaint for complaint in each.complaints), each.complaints
        finally:
            context.close()

    return visiting
