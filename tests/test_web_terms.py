"""The operator's banner and terms in a real Chromium."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.browser import CHROMIUM, chromium
from support.web_client import Running, running

pytestmark = [pytest.mark.alone, pytest.mark.browser]
pytest.importorskip("playwright.sync_api", reason="no playwright here")
if not CHROMIUM:
    pytest.skip("no chromium here", allow_module_level=True)

TERMS = "Be kind.\n\n<b>No</b> ${1 + 1} {{pictures}} of others.\n" + 80 * "One more line.\n"


def open_page(context: Any, web: Running) -> Any:
    page = context.new_page()
    page.goto(web.url)
    page.locator(".sd-theme[aria-pressed]").wait_for(timeout=60_000)  # the script of the head has run
    return page


def test_terms_are_agreed_to_once_and_again_when_they_change(tmp_path: Path) -> None:
    file = tmp_path / "terms.txt"
    file.write_text(TERMS)
    with chromium(tmp_path / "no camera") as browser:
        context = browser.new_context(viewport={"width": 390, "height": 700})
        port = 0
        for text, asks in ((TERMS, (True, False)), (TERMS + "Newer.", (True, False))):
            file.write_text(text)
            with running(terms=str(file), banner="Closed on <Sunday> ${1}", port=port, tabs="live,layers") as web:
                port = web.port
                for is_asked in asks:
                    page = open_page(context, web)
                    assert page.locator(".sd-banner").inner_text() == "Closed on <Sunday> ${1}"
                    dialog = page.get_by_role("dialog", name="Terms of use")
                    assert dialog.is_visible() is is_asked
                    if is_asked:
                        assert dialog.locator(".sd-terms-text").inner_text().strip() == text.strip()
                        page.screenshot(path=str(tmp_path / "terms.png"))
                        page.keyboard.press("Escape")
                        assert dialog.is_visible()
                        dialog.get_by_role("button").click()
                        assert not dialog.is_visible()
                        page.screenshot(path=str(tmp_path / "banner.png"))
                    page.close()
