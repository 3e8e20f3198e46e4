# SPDX-License-Identifier: Apache-2.0
"""A real browser for the tests that look at pages; they are skipped where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu"]


@dataclass
class Visit:
    """A page in the browser, and all that went wrong there.

    Attributes:
        page: Playwright's.
        errors: messages of errors of the console, and exceptions.
        requests: addresses of what was fetched besides the page itself.
    """

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def figure(self, name: str) -> Any:
        """The figure of that name, drawn."""
        figure = self.page.locator(f"figure[id$='--{name}']")
        figure.scroll_into_view_if_needed()
        figure.and_(self.page.locator("[data-drawn]")).wait_for()
        return figure

    def screenshot(self, name: str) -> None:
        """Keep a picture of the whole page, if NPUSIM_SCREENSHOTS names a folder for them."""
        if folder := os.environ.get("NPUSIM_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    pytest.importorskip("vl_convert", reason="needs vl-convert: pip install 'npusim[report]'")
    api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install 'npusim[dev]'"
    )
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"needs a browser: none of {', '.join(_NAMES)} is installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens a file; options are those of a new context of Playwright's."""
    with ExitStack() as stack:

        def visit(path: Path, **options: Any) -> Visit:
            context = browser.new_context(**options)
            context.set_default_timeout(120_000)  # ms: browsers draw last where a machine is busy
            stack.callback(context.close)
            found = Visit(context.new_page())
            found.page.on(
                "console",
                lambda said: found.errors.append(said.text) if said.type == "error" else None,
            )
            found.page.on("pageerror", lambda error: found.errors.append(str(error)))
            found.page.on("request", lambda request: found.requests.append(request.url))
            found.page.goto(path.as_uri())
            found.requests.remove(path.as_uri())
            return found

        yield visit
