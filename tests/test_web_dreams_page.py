"""Dreams in a real Chromium: a lost network, a page that is loaded again, a server that is killed, a link."""
from __future__ import annotations

import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from support import web_process
from support.broadcast import free_port
from support.browser import CHROMIUM
from support.dreams_page import CARD, begin, frames
from support.waiting import until
from support.web_jobs import times_and_sound

pytestmark = [pytest.mark.alone, pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")]
SLOW = ("--field-height", "128", "--steps", "4")


def server(folder: Path, port: int, *flags: str) -> AbstractContextManager[tuple[subprocess.Popen[str], Path]]:
    return web_process.server(folder, "--port", str(port), "--backend", "eager", "--layers", "mixed0", "--octaves", "1",
                              "--warmup-steps", "1", *flags)


def test_a_dream_survives_a_lost_network_a_reload_and_a_killed_server(browser: Any, tmp_path: Path, world: Path
                                                                      ) -> None:
    port = free_port()
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    with server(tmp_path, port, *SLOW) as (process, _):
        begin(page, f"http://127.0.0.1:{port}", world, (0, 5))
        page.evaluate("window.isSamePage = true")
        context.set_offline(True)
        page.wait_for_selector("#video-dreams .sw-hint:has-text('No answer from the server')")
        context.set_offline(False)
        page.wait_for_selector("#video-dreams .sw-hint", state="hidden")
        assert page.evaluate("window.isSamePage"), "the page was loaded again"
        page.reload()
        until(lambda: frames(page) > 50, 60)  # it stands on its tab; a chunk of 50 is whole
        assert frames(page) < 150
        process.kill()
        page.wait_for_selector("#video-dreams .sw-hint:has-text('No answer from the server')")
    with server(tmp_path, port, *SLOW):
        until(lambda: frames(page) > 50, 60)
        page.wait_for_selector(f"{CARD}[data-state=done]")
        page.click(f"{CARD} [data-do=share]")
        page.wait_for_selector(f"{CARD} [data-do=share]:has-text('Link copied')")
        link = page.evaluate("navigator.clipboard.readText()")
        saved = page.evaluate("async (url) => [...new Uint8Array(await (await fetch(url)).arrayBuffer())]",
                              page.get_attribute(f"{CARD} video", "src"))
        (tmp_path / "saved.mp4").write_bytes(bytes(saved))
        assert len(times_and_sound(tmp_path / "saved.mp4")[0]) == 150
        phone = browser.new_context(viewport={"width": 390, "height": 844}).new_page()
        phone.goto(link)
        phone.wait_for_selector("#all-dreams .sw-dream[data-state=done] video")
        assert not phone.locator("[data-do=delete]").count() and phone.locator("[data-do=unlist]").count() == 1
        phone.context.close()
    context.close()


@pytest.mark.soak
@pytest.mark.parametrize("offline_seconds", [2, 20, 120])
def test_a_dream_goes_on_while_its_page_is_offline(browser: Any, tmp_path: Path, world: Path, offline_seconds: int
                                                   ) -> None:
    port = free_port()
    context = browser.new_context()
    page = context.new_page()
    with server(tmp_path, port, *SLOW):
        begin(page, f"http://127.0.0.1:{port}", world, (0, 20))
        page.evaluate("window.isSamePage = true")
        before = frames(page)
        context.set_offline(True)
        page.wait_for_timeout(1000 * offline_seconds)
        context.set_offline(False)
        page.wait_for_selector("#video-dreams .sw-hint", state="hidden")
        until(lambda: frames(page) > before + offline_seconds, 60)
        assert page.evaluate("window.isSamePage") and page.locator(CARD).count() == 1
    context.close()


@pytest.mark.soak
def test_a_reload_at_any_moment_loses_nothing(browser: Any, tmp_path: Path, world: Path) -> None:
    """With the file uploaded, while the dream waits, loads, runs, and when it is done."""
    port = free_port()
    context = browser.new_context()
    page = context.new_page()
    with server(tmp_path, port, *SLOW):
        begin(page, f"http://127.0.0.1:{port}", world, (0, 6))
        page.reload()
        page.wait_for_selector("#video-drop .sw-drop-trim:not([hidden])")
        page.locator("#video-drop .sw-drop-first").fill("1")
        page.click("#video-start")  # a second one, of another span, which waits
        page.wait_for_selector(f"{CARD}[data-state=waiting]")
        page.reload()
        page.wait_for_selector(f"{CARD}[data-state=waiting]")
        assert page.locator(CARD).count() == 2
        page.wait_for_selector(f"{CARD}[data-state=running]")
        page.reload()
        page.wait_for_selector(f"{CARD}[data-state=done]")
        page.reload()
        page.wait_for_selector(f"{CARD} video")
        page.get_by_role("tab", name="Dreams").click()
        page.wait_for_function("document.querySelectorAll('#all-dreams .sw-dream[data-state=done]').length === 2")
    context.close()
