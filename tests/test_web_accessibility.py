"""WCAG 2.2 AA for the whole page, by axe-core's rules, and what these do not see: keyboard, focus, narrow windows."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from streamdream_web.auth.passwords import hash_password
from support import accessibility
from support.accessibility import TABS, THEMES, open_tab, show_theme, violations
from support.browser import CHROMIUM, chromium, write_camera
from support.web_client import Client, Running, running

from streamdream.media.opencv import cv2
from streamdream.media.sample_files import CLIP, PHOTO, sample_file

pytestmark = [pytest.mark.alone, pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no Chromium here"),
              pytest.mark.filterwarnings("ignore::ResourceWarning")]
WIDTHS = {"desktop": (1280, 800), "phone": (390, 844), "landscape": (844, 390)}
SECONDS = 60_000
"""Milliseconds within which anything happens, also on a machine that is busy."""


@pytest.fixture(scope="module")
def web() -> Iterator[Running]:
    with running(max_sessions=1) as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, lion: NDArray[np.uint8]) -> Iterator[Any]:
    camera = write_camera(tmp_path_factory.mktemp("camera") / "lion.mjpeg", [cv2().resize(lion, (640, 480))])
    with chromium(camera) as opened:
        yield opened


Visit = Callable[..., Any]


@pytest.fixture()
def visit(browser: Any, web: Running) -> Iterator[Visit]:
    """Open the page for a new visitor. An exception in one of its scripts fails the test."""
    contexts, problems = [], []

    def opened(width: int = 1280, height: int = 800, url: str = "", **options: Any) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(SECONDS)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(url or web.url)
        if not url:
            page.wait_for_function("document.querySelector('.sd')?.page")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not problems


def test_every_tab_passes_the_rules_of_wcag_in_both_themes(visit: Visit) -> None:
    page = visit()
    for theme in THEMES:
        show_theme(page, theme)
        for tab in TABS:
            open_tab(page, tab)
            rules = accessibility.TAGS if theme == THEMES[0] else accessibility.COLOURS  # only these depend on it
            assert violations(page, rules) == [], f"{tab}, {theme}"


def test_arrow_keys_move_between_tabs_and_the_skip_link_leads_into_the_open_one(visit: Visit) -> None:
    page = visit()
    page.focus("#tab-live-button")
    for key, tab in (("ArrowRight", "video"), ("End", TABS[-1]), ("ArrowRight", "live"), ("ArrowLeft", TABS[-1]),
                     ("Home", "live"), ("ArrowRight", "video")):
        page.keyboard.press(key)
        page.wait_for_selector(f"#tab-{tab}-button[aria-selected=true][tabindex='0']:focus")
        assert page.locator("[role=tab][tabindex='0']").count() == 1
    assert page.get_by_role("tabpanel", name="Video").is_visible()
    page.focus(".sd-skip")
    page.keyboard.press("Enter")
    page.wait_for_selector("#tab-video:focus")
    assert page.url.rstrip("/#") == page.evaluate("location.origin")


def test_tab_key_reaches_every_control_shows_the_focus_and_leaves_the_page(visit: Visit) -> None:
    page = visit()
    open_tab(page, "video")
    stops = accessibility.walk(page)
    assert [stop["what"] for stop in stops if not (stop["is_outlined"] and stop["is_on_screen"])] == []
    order = [next(index for index, stop in enumerate(stops) if part in stop["what"])
             for part in ("sd-skip", "sd-theme", "tab-video-button", "sw-drop-input", "video-start", "sd-look")]
    assert order == sorted(order)
    assert sum('class="sd-look"' in stop["what"] for stop in stops) <= 2  # one, or two where the first has moved
    page.focus("#tab-video .sd-look[tabindex='0']")
    passed = [look_with_focus(page)]
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "End", "Home"):
        page.keyboard.press(key)
        passed.append(look_with_focus(page))
    assert all(passed) and len(set(passed)) >= 5 and passed[4] == passed[0]
    assert page.locator("#tab-video .sd-look[tabindex='0']").count() == 1


def look_with_focus(page: Any) -> str:
    return str(page.evaluate("document.activeElement.dataset.look ?? ''"))


def test_focus_stays_on_the_page_when_its_control_vanishes(visit: Visit) -> None:
    page = visit()
    open_tab(page, "picture")
    page.click("#picture-drop [data-example]")
    page.wait_for_selector("#picture-drop .sw-drop-remove:visible")
    page.focus("#picture-drop .sw-drop-remove")
    page.keyboard.press("Enter")
    page.wait_for_selector("#picture-drop .sw-drop-remove", state="hidden")
    page.wait_for_selector("#picture-drop :focus")
    page.evaluate("""() => {
      const box = document.querySelector("#tab-picture").appendChild(document.createElement("div"));
      const [gone, next] = ["gone", "next"].map((id) => box.appendChild(document.createElement("button")));
      next.id = next.textContent = "next";
      gone.focus();
      gone.remove();
    }""")
    page.wait_for_selector("#next:focus")


def test_theme_is_kept_and_the_browsers_own_controls_follow_it(visit: Visit) -> None:
    page = visit(color_scheme="light")
    page.click(".sd-theme")
    page.reload()
    page.wait_for_function("document.querySelector('.sd')?.page")
    assert page.get_by_role("button", name="Dark theme", pressed=True).is_visible()
    assert page.evaluate("[document.body.classList.contains('dark'), document.documentElement.style.colorScheme]") == [
        True, "dark"]
    assert page.get_attribute("meta[name=theme-color]", "content") == "#110e16"


# --- each state of each tab, in both themes, on three sizes of window

HELD_CAMERA = """const get = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
const held = new Promise((resolve) => { window.releaseCamera = resolve; });
navigator.mediaDevices.getUserMedia = async (wanted) => { await held; return get(wanted); };"""
LOSE = """() => {
  window.connect = WebSocket;
  WebSocket = class { constructor() { setTimeout(() => this.onclose({ code: 1006 }), 100); } close() {} };
  document.querySelector(".sd").page.socket.socket.close(3999);
}"""


def live_states(page: Any, web: Running) -> Iterator[str]:
    """Bring the tab Live into each of its states."""
    open_tab(page, "live")
    yield "idle"
    with Client(web) as other:
        other.welcome()
        page.click(".sd-start")
        page.wait_for_selector(".sd[data-state=opening]")
        yield "opening"
        page.evaluate("releaseCamera()")
        page.wait_for_selector(".sd[data-state=waiting]")
        yield "queue"
    page.wait_for_selector(".sd[data-state=live]")
    page.keyboard.press("c")
    yield "live"
    page.evaluate(LOSE)
    page.wait_for_selector(".sd[data-state=lost]")
    yield "lost"
    page.evaluate("() => { WebSocket = window.connect; }")
    page.wait_for_selector(".sd[data-state=live]")
    page.focus("[data-do=stop]")
    page.keyboard.press("Enter")
    page.wait_for_selector(".sd[data-state=idle]")
    page.wait_for_selector(".sd :focus")
    yield "ended"


def job_states(page: Any, web: Running) -> Iterator[str]:
    """Bring the tabs Video, Picture and Dreams into each of their states."""
    broken = web.app_state.folder / "broken.mp4"
    broken.write_bytes(b"no video" * 1000)
    open_tab(page, "video")
    page.set_input_files("#video-drop input[type=file]", str(broken))
    page.wait_for_selector("#video-drop .sw-drop-problem:visible")
    yield "a file that is refused"
    page.set_input_files("#video-drop input[type=file]", str(sample_file(CLIP)))
    page.wait_for_selector("#video-drop .sw-drop-trim:visible")
    page.click("#video-start")
    page.wait_for_selector("#tab-video [data-state=running] img:not(.sw-frame-empty)")
    page.locator("#video-drop .sw-drop-first").fill("1")
    page.click("#video-start")  # another span: the same once more would be one dream
    page.wait_for_selector("#tab-video [data-state=waiting]")
    yield "a video that is dreamed, and one in the queue"
    open_tab(page, "picture")
    page.set_input_files("#picture-drop input[type=file]", str(sample_file(PHOTO)))
    page.wait_for_selector("#picture-drop .sw-drop-tools:visible")
    page.click("#picture-start")
    page.wait_for_selector("#tab-picture [data-state=done] .sw-compare")
    yield "a picture that is done"
    for path in web.app_state.folder.rglob("*.mp4"):  # of the one in the queue
        path.unlink()
    open_tab(page, "dreams")
    page.click("#tab-dreams [data-state=running] [data-do=cancel]")
    page.wait_for_selector("#tab-dreams [data-state=failed]")
    yield "dreams, one of which has failed"


def panel_states(page: Any, web: Running) -> Iterator[str]:
    """Open all that is folded in the panels, and the other lists of the tab Layers."""
    for tab in ("live", "video", "picture"):
        open_tab(page, tab)
        for part in page.locator(f"#tab-{tab} :is(summary, .label-wrap):visible").all():
            part.click()
        page.wait_for_selector(f"#tab-{tab} .sd-cell")
        yield f"the panel of {tab}"
    open_tab(page, "layers")
    for name, shown in (("All layers", ".sw-gallery button:nth-child(20)"), ("Channels", ".sd-cell")):
        page.get_by_role("radio", name=name).check()
        page.wait_for_selector(f"#tab-layers {shown}")
        yield name


@pytest.mark.soak
@pytest.mark.parametrize("states", [live_states, job_states, panel_states])
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", WIDTHS.values(), ids=WIDTHS)
def test_every_state_passes_the_rules_of_wcag_and_fits_its_window(
        visit: Visit, web: Running, size: tuple[int, int], theme: Any, states: Callable[..., Iterator[str]]) -> None:
    page = visit(*size, color_scheme=theme)
    page.add_init_script(HELD_CAMERA)
    page.reload()
    page.wait_for_function("document.querySelector('.sd')?.page")
    for state in states(page, web):
        assert violations(page) == [], state
        assert accessibility.sideways(page) <= 0, state


@pytest.mark.soak
@pytest.mark.parametrize("theme", THEMES)
def test_login_and_terms_pass_the_rules_of_wcag(visit: Visit, tmp_path: Path, theme: Any) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("Be kind.\n" * 80)
    for size in ((1280, 800), (320, 480)):
        with running(terms=str(terms), auth="ada:" + hash_password("lovelace"), banner="Closed on Sunday") as web:
            page = visit(*size, url=web.url, color_scheme=theme)
            assert violations(page) == []
            for password in ("wrong", "lovelace"):
                page.fill("[name=user]", "ada")
                page.fill("[name=password]", password)
                page.keyboard.press("Enter")
                page.wait_for_selector("[aria-invalid]" if password == "wrong" else "dialog[open]")
                assert violations(page) == [] and accessibility.sideways(page) <= 0
            page.wait_for_selector(".sd-start")
            page.keyboard.press("Enter")  # on the button that agrees
            page.wait_for_selector("dialog", state="hidden")
            assert violations(page) == [] and accessibility.sideways(page) <= 0


@pytest.mark.soak
@pytest.mark.parametrize("size", [(320, 640), (640, 400)], ids=["320 pixels", "zoom of 200 %"])
def test_nothing_is_wider_than_a_narrow_window(visit: Visit, size: tuple[int, int]) -> None:
    page = visit(*size, reduced_motion="reduce")
    for tab in TABS:
        open_tab(page, tab)
        assert accessibility.sideways(page) <= 0, tab
        assert page.evaluate("document.getAnimations().length") == 0, tab


@pytest.mark.soak
def test_a_picture_is_dreamed_and_downloaded_with_the_keyboard_alone(visit: Visit) -> None:
    page = visit()

    def press(selector: str, key: str = "Enter") -> None:
        """Press Tab until that has the focus, then the key."""
        for _ in range(300):
            if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                page.keyboard.press(key)
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {selector}")

    press("#tab-live-button", "ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#picture-drop [data-example]")
    press("#picture-drop [data-example]")
    page.wait_for_selector("#picture-drop .sw-drop-tools:visible")
    press("#tab-picture .sd-look")
    press("#picture-start")
    page.wait_for_selector("#tab-picture [data-state=done]")
    with page.expect_download() as download:
        press("#tab-picture [data-state=done] .sw-save")
    assert download.value.suggested_filename.endswith(".png")
    page.on("dialog", lambda dialog: dialog.accept())
    press("#tab-picture [data-do=delete]")
    page.wait_for_selector("#tab-picture [data-state=done]", state="detached")
    page.wait_for_selector("#tab-picture :focus")
