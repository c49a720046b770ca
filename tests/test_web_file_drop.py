"""The file drop in a real Chromium: uploads that outlive a lost network and a reload, examples, files of phones."""
from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamdream_web.jobs import examples
from support.browser import CHROMIUM, FLAGS
from support.picture_files import heic
from support.waiting import until
from support.web_client import Running, running

from streamdream.media.images import encode_image

pytestmark = [pytest.mark.alone, pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no Chromium here"),
              pytest.mark.filterwarnings("ignore::ResourceWarning")]
PIECE = 4_000_000


@pytest.fixture(scope="module")
def web() -> Iterator[Running]:
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here")
    with sync_api.sync_playwright() as automation:
        opened = automation.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture()
def page(browser: Any, web: Running) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 860}, reduced_motion="reduce")
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(web.url)
    yield opened
    context.close()
    assert not errors


@pytest.fixture(scope="module")
def large() -> dict[str, Any]:
    """A picture of two pieces."""
    noise = np.random.default_rng(1).integers(0, 255, (1400, 1400, 3), np.uint8)
    return {"name": "noise.png", "mimeType": "image/png", "buffer": encode_image(noise, ".png", "noise")}


def open_tab(page: Any, name: str) -> Any:
    """Open a tab; return its file drop."""
    page.get_by_role("tab", name=name.title()).click()
    drop = page.locator(f"#{name}-drop")
    drop.locator(".sw-drop:not([aria-busy])").wait_for(state="attached")
    return drop


def choose(drop: Any, file: Any) -> None:
    drop.locator("input[type=file]").set_input_files(file)


def intercept(page: Any, refuse: Any) -> list[int]:
    """Have ``refuse(number, route)`` answer a piece, from 0 on, if it returns True; return the offsets of all."""
    offsets: list[int] = []

    def answer(route: Any) -> None:
        if route.request.method != "PATCH":
            route.continue_()
            return
        offsets.append(int(route.request.headers["upload-offset"]))
        if not refuse(len(offsets) - 1, route):
            route.continue_()

    page.route("**/uploads/*", answer)
    return offsets


def test_an_upload_goes_on_where_a_lost_network_broke_it_off(page: Any, large: dict[str, Any]) -> None:
    drop, is_lost = open_tab(page, "picture"), True
    offsets = intercept(page, lambda number, route: number > 0 and is_lost and (route.abort() or True))
    choose(drop, large)
    drop.get_by_text("no connection to the server. The upload goes on by itself.").first.wait_for()
    page.click("#picture-start")
    page.get_by_text("The file is still being uploaded").wait_for()
    assert page.evaluate("dispatchEvent(new Event('beforeunload', { cancelable: true }))") is False  # it is asked first
    is_lost = False
    drop.get_by_role("button", name="Try again").click()
    drop.locator(".sw-drop-tools").wait_for()
    assert offsets[0] == 0 and set(offsets[1:]) == {PIECE}
    assert drop.locator(".sw-drop-note").inner_text() == "1400 × 1400"
    assert page.evaluate("dispatchEvent(new Event('beforeunload', { cancelable: true }))") is True


@pytest.mark.soak
@pytest.mark.parametrize("seconds", [2, 20, 120])
def test_an_upload_goes_on_when_the_network_is_back(page: Any, large: dict[str, Any], seconds: float) -> None:
    """The network is lost in the middle of a piece, and nobody clicks."""
    drop = open_tab(page, "picture")
    offsets: list[str] = []
    page.on("request", lambda request: offsets.append(request.headers["upload-offset"])
            if request.method == "PATCH" else None)
    limited = page.context.new_cdp_session(page)
    limited.send("Network.enable")
    limited.send("Network.emulateNetworkConditions",
                 {"offline": False, "latency": 20, "downloadThroughput": -1, "uploadThroughput": 2_000_000})
    choose(drop, large)
    drop.get_by_text(re.compile(r"Uploading: [789]\d %")).first.wait_for()  # of the second piece
    page.context.set_offline(True)
    drop.get_by_text("The upload goes on by itself").first.wait_for()
    page.wait_for_timeout(1000 * seconds)
    page.context.set_offline(False)
    drop.locator(".sw-drop-tools").wait_for(timeout=60_000)
    assert offsets[0] == "0" and len(offsets) > 2 and "0" not in offsets[1:]


def test_an_upload_goes_on_after_a_reload_with_the_same_file(page: Any, tmp_path: Path, large: dict[str, Any]) -> None:
    path = tmp_path / "noise.png"
    path.write_bytes(large["buffer"])
    drop, is_lost = open_tab(page, "picture"), True
    offsets = intercept(page, lambda number, route: number > 0 and is_lost and (route.abort() or True))
    choose(drop, str(path))
    drop.locator(".sw-drop-retry").wait_for()
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    drop = open_tab(page, "picture")
    drop.get_by_text(re.compile(r"Only \d+ % of noise.png were uploaded. Choose it again to go on.")).wait_for()
    is_lost = False
    choose(drop, str(path))
    drop.locator(".sw-drop-tools").wait_for()
    assert offsets[-1] == PIECE


@pytest.mark.soak
def test_pieces_get_smaller_for_a_proxy_that_takes_no_large_ones(page: Any, large: dict[str, Any]) -> None:
    drop = open_tab(page, "picture")
    offsets = intercept(page, lambda number, route: len(route.request.post_data_buffer) > 2**20 and (
        route.fulfill(status=413, body="<html>413</html>") or True))
    choose(drop, large)
    drop.locator(".sw-drop-tools").wait_for()
    assert offsets[:3] == [0, 0, PIECE // 4]


def test_a_reloaded_page_has_the_files_with_span_and_mask(page: Any, web: Running) -> None:
    video = open_tab(page, "video")
    video.get_by_role("button", name=re.compile("Meadow")).click()
    video.locator(".sw-drop-trim").wait_for()
    assert page.evaluate("document.activeElement.className") == "sw-drop-remove"
    video.locator(".sw-drop-first").fill("1.5")
    picture = open_tab(page, "picture")
    picture.get_by_role("button", name="Cat").click()
    picture.locator(".sw-drop-tools").wait_for()
    box = picture.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.up()
    drawn = picture.locator("canvas").evaluate("(it) => it.toDataURL()")
    page.reload()
    video = open_tab(page, "video")
    video.locator(".sw-drop-trim").wait_for()
    assert video.locator(".sw-drop-span").inner_text().startswith("0:01.5 – 0:05.3")
    page.wait_for_function("document.querySelector('#video-drop video').videoWidth === 640")
    picture = open_tab(page, "picture")
    picture.locator(".sw-drop-tools").wait_for()
    until(lambda: picture.locator("canvas").evaluate("(it) => it.toDataURL()") == drawn)
    page.click("#picture-start")
    until(lambda: [job.title for job in web.jobs_service.stills.jobs()] == ["cat.jpg"])
    [job] = web.jobs_service.stills.jobs()
    assert job.request is not None and "mask.png" in job.request.names
    picture.get_by_role("button", name=re.compile("^Remove")).click()
    assert page.evaluate("document.activeElement.className") == "sw-drop-input"
    page.reload()
    open_tab(page, "picture").locator(".sw-drop-examples").wait_for()


def test_a_page_with_less_motion_jumps_to_a_new_dream(page: Any) -> None:
    drop = open_tab(page, "picture")
    drop.get_by_role("button", name="Cat").click()
    drop.locator(".sw-drop-tools").wait_for()
    page.evaluate("""() => {
      window.tops = [scrollY];
      const look = () => { if (scrollY !== tops.at(-1)) tops.push(scrollY); requestAnimationFrame(look); };
      look();
    }""")
    page.click("#picture-start")
    page.wait_for_selector("#tab-picture [data-state=done]")
    page.wait_for_function("tops.length > 1")
    assert page.evaluate("tops.length") <= 3  # to the new dream, and as its result is higher


CLICK_FIRST = """addEventListener("DOMContentLoaded", () => new MutationObserver((_, watch) => {
  const tab = document.getElementById("tab-picture-button");
  if (tab?.ariaSelected === "false") { watch.disconnect(); tab.click(); }
}).observe(document, { childList: true, subtree: true }))"""
"""A visitor who opens a tab as soon as there are tabs."""


def test_a_tab_that_is_opened_early_after_a_reload_stays_open(page: Any) -> None:
    open_tab(page, "video")
    page.add_init_script(CLICK_FIRST)
    page.reload()
    page.wait_for_function("document.querySelector('.sd')?.page")
    page.locator("#picture-drop .sw-drop-zone").wait_for()
    page.wait_for_timeout(1000)
    assert page.locator("#picture-drop .sw-drop-zone").is_visible()


def test_a_script_that_does_not_come_is_said(page: Any, web: Running) -> None:
    for address in ("**/live/facts", "**/drop.js"):
        page.route(address, lambda route: route.fulfill(status=503, body="<html>"))
    page.goto("about:blank")
    page.goto(web.url)
    alert = "[role=alert]:has-text('This part of the page could not be loaded. Reload the page.')"
    page.wait_for_selector(f"#live-page {alert}")
    page.get_by_role("tab", name="Picture").click()
    for part in ("#picture-drop", "#tab-picture .sw-settings"):
        page.wait_for_selector(f"{part} {alert}")
    page.wait_for_function("!document.querySelector('[aria-busy]')")


def test_a_picture_of_a_phone_is_shown_and_a_video_goes_to_its_tab(page: Any) -> None:
    pytest.importorskip("pi_heif")
    drop, photo = open_tab(page, "picture"), {"name": "IMG_1.HEIC", "mimeType": "image/heic", "buffer": heic("turned")}
    intercept(page, lambda number, route: number == 0 and (route.fulfill(status=403, body="<html>") or True))
    choose(drop, photo)
    drop.get_by_role("alert").get_by_text("(403)").wait_for()  # of a proxy, whose page is no answer of ours
    choose(drop, photo)
    drop.locator(".sw-drop-tools").wait_for()
    page.wait_for_function("document.querySelector('#picture-drop img.sw-drop-image').naturalWidth === 128")
    assert drop.locator("img.sw-drop-image").is_visible()
    drop.get_by_role("button", name=re.compile("^Remove")).click()
    clip = examples.everything()[1].path
    choose(drop, {"name": "clip", "mimeType": "video/mp4", "buffer": clip.read_bytes()})
    assert drop.get_by_role("alert").inner_text().startswith("This is a video.")
    drop.get_by_role("button", name="Open it in the tab Video").click()
    page.locator("#video-drop .sw-drop-trim").wait_for()
    assert page.locator("#video-drop .sw-drop-name").inner_text() == "clip.mp4"
    choose(open_tab(page, "picture"), {"name": "a.png", "mimeType": "image/png", "buffer": bytes(100)})
    drop.get_by_role("alert").get_by_text("This file is not a picture").wait_for()
