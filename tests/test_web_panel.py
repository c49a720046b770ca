"""The panel of settings in a real Chromium: intensity, undo, two settings, looks of one's own, other tabs."""
from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from streamdream_web.core import limits
from streamdream_web.pages import intensity
from support.browser import CHROMIUM
from support.live_page import begin, says
from support.waiting import until
from support.web_client import Running, running

from streamdream import settings
from streamdream.media.sample_files import PHOTO, sample_file

pytestmark = [pytest.mark.alone, pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no Chromium here"),
              pytest.mark.filterwarnings("ignore::ResourceWarning")]
PANEL = "document.querySelector('.sd .sd-panel').panel"
USE = "detail => window.dispatchEvent(new CustomEvent('streamdream:use', { detail }))"
ROSES = str(settings.read_preset("look-roses")["layers"])

BROKEN_LOOKS = [{"id": "a", "name": 1}, {"id": "b", "name": "b", "values": {"layers": []}, "picture": ""}, None,
                {"id": "c", "name": "c", "values": {"layers": "mixed3", "steps": "many", "x": 1}, "picture": ""},
                {"id": "d", "name": "d", "values": {}, "picture": "https://example.com/x.jpg"}]


@pytest.fixture(scope="module")
def web() -> Iterator[Running]:
    with running(max_sessions=2) as server:
        yield server


def values(page: Any) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate(f"{PANEL}.values")
    return found


def open_tab(page: Any, name: str) -> str:
    """Return the selector of its panel."""
    page.get_by_role("tab", name=name).click()
    panel = f"#tab-{name.lower()} .sd-panel"
    page.wait_for_function("selector => document.querySelector(selector)?.panel", arg=panel)
    return panel


def tab_values(page: Any, panel: str) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate("selector => document.querySelector(selector).panel.values", panel)
    return found


def test_help_opens_by_keyboard_and_intensity_scales_the_look_with_one_step_of_undo_a_drag(page: Any) -> None:
    page.click(".sd .sd-more summary")
    page.get_by_role("button", name="What How long it stays does").focus()
    page.keyboard.press("Enter")
    assert page.inner_text("#sd-keep-help code") == "keep: 0..0.999"
    assert page.get_attribute("#sd-keep", "aria-describedby") == "sd-keep-help"
    page.keyboard.press("Enter")
    assert page.is_hidden("#sd-keep-help")
    page.click(".sd [data-look=look-roses]")
    own = values(page)
    slider = page.locator("#sd-intensity")
    for position in (600, 800, 1000):  # of a drag: no change event until it ends
        slider.evaluate("(it, value) => { it.value = value; it.dispatchEvent(new Event('input')); }", position)
    slider.dispatch_event("change")
    strong = values(page)
    assert strong["strength"] == pytest.approx(own["strength"] * intensity.factor("strength", 100), rel=1e-3)
    assert strong["step_size"] == pytest.approx(own["step_size"] * intensity.factor("step_size", 100), rel=1e-3)
    assert page.locator(".sd [data-look=look-roses]").get_attribute("aria-pressed") == "true"
    slider.focus()
    page.keyboard.press("Home")
    assert values(page)["strength"] == 0
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert values(page) == own
    page.keyboard.press("Control+z")
    assert values(page)["layers"] != ROSES
    page.keyboard.press("Control+Shift+z")
    assert values(page) == own
    page.locator("#sd-layers").fill("mixed4")
    page.keyboard.press("Control+z")  # of the text, as anywhere
    assert values(page) == own and page.is_enabled(".sd .sd-redo") and page.is_enabled(".sd .sd-undo")


def test_what_is_clicked_while_scripts_are_loaded_is_done_then(page: Any, web: Running) -> None:
    held: list[Any] = []
    slow: list[Any] = []
    for address in ("**/live/facts", "**/drop.js"):
        page.route(address, lambda route: held.append(route))
    page.goto("about:blank")
    page.goto(web.url)
    page.click(".sd-start")
    for name in ("look-roses", "look-fur", "look-roses"):  # the last one counts
        page.click(f".sd [data-look={name}]")
    assert page.locator(".sd[aria-busy=true]").count() and not page.evaluate("document.querySelector('.sd').page")
    held.pop().continue_()
    page.wait_for_selector(".sd[data-state=live]")
    assert values(page)["layers"] == ROSES
    page.get_by_role("tab", name="Picture").click()
    page.click("#tab-picture [data-look=look-roses]")
    page.click("#tab-picture [data-example=pavilion]")
    page.click("#tab-picture [data-example=cat]")
    page.route("**/examples/pavilion", lambda route: slow.append(route))
    until(lambda: page.wait_for_timeout(20) or len(held) == 2)  # the facts and drop.js
    for route in held:
        route.continue_()
    page.wait_for_function("document.querySelector('#tab-picture .sd-panel')?.panel")
    assert tab_values(page, "#tab-picture .sd-panel")["layers"] == ROSES
    assert json.loads(page.evaluate("sessionStorage.getItem('streamdream-settings-picture')"))["layers"] == ROSES
    page.wait_for_selector("#tab-picture .sw-drop-preview")
    slow.pop().continue_()
    page.wait_for_timeout(500)
    assert page.inner_text("#tab-picture .sw-drop-name >> nth=0") == "cat.jpg"
    assert not page.locator("[aria-busy=true]").count()


def test_two_settings_are_switched_between_live(page: Any, web: Running) -> None:
    begin(page)
    session = next(iter(web.waiting_room.sessions.values()))
    first = session.controls.current().layers
    page.click(".sd [data-slot=B]")
    page.click(".sd [data-look=look-roses]")
    until(lambda: session.controls.current().layers == ROSES)
    page.click(".sd [data-slot=A]")
    until(lambda: session.controls.current().layers == first)
    page.click(".sd [data-slot=B]")
    until(lambda: session.controls.current().layers == ROSES)
    assert page.get_attribute(".sd [data-slot=B]", "aria-pressed") == "true"


def test_own_looks_are_kept_renamed_used_in_other_tabs_and_deleted(page: Any) -> None:
    """Beside looks in the storage that are broken: those are not shown, one with a wrong value is taken without it."""
    page.evaluate("looks => localStorage.setItem('streamdream-own-looks', looks)", json.dumps(BROKEN_LOOKS))
    begin(page)
    page.click(".sd [data-look=look-roses]")
    page.click(".sd .sd-keep")
    assert page.locator(".sd .sd-my-look").count() == 2
    page.fill(".sd .sd-my-name", "<img src=x onerror=window.hacked=1>")
    page.keyboard.press("Enter")
    assert page.get_attribute(".sd .sd-my-look img", "src").startswith("data:image/jpeg;base64,")
    page.click(".sd .sd-my-look .sd-look")
    assert values(page)["layers"] == "mixed3"
    page.reload()
    page.wait_for_selector(".sd .sd-my-look")
    assert page.locator(".sd .sd-my-look span").all_inner_texts() == ["c", "<img src=x onerror=window.hacked=1>"]
    panel = open_tab(page, "Picture")
    page.locator(f"{panel} .sd-my-look .sd-look").last.click()
    taken = tab_values(page, panel)
    assert taken["layers"] == ROSES and taken["steps"] == settings.read_preset("still")["steps"]
    for left in (1, 0):
        page.locator(f"{panel} .sd-my-more").last.click()
        page.get_by_role("button", name="Delete", exact=True).locator("visible=true").click()
        assert page.locator(f"{panel} .sd-my-look").count() == page.locator(".sd .sd-my-look").count() == left
    assert not page.evaluate("window.hacked")


def test_other_tabs_take_what_live_shows_and_settings_that_came_before_they_were_open(page: Any, web: Running) -> None:
    page.evaluate(USE, {"tab": "picture", "values": {"layers": "mixed1", "steps": 2, "warmup_steps": 3, "keep": 0.1,
                                                     "channel": "3,17", "octaves": 99, "field_height": 300}})
    page.evaluate(USE, {"tab": "picture", "values": {"layers": "mixed9", "model": "not-here"}})
    panel = open_tab(page, "Picture")
    taken = tab_values(page, panel)
    assert taken["layers"] == "mixed1[3]:0.5,mixed1[17]:0.5" and taken["octaves"] == limits.JOB_MAXIMA["octaves"]
    assert taken["steps"] == 8 and taken["field_height"] == 300 and "keep" not in taken
    page.evaluate(USE, {"tab": "picture", "values": {"steps": 1, "octaves": 1, "field_height": 64}})
    page.locator("#picture-drop input[type=file]").set_input_files(str(sample_file(PHOTO)))
    page.wait_for_selector("#picture-drop .sw-drop-tools:not([hidden])")
    page.click("#picture-start")
    until(lambda: web.jobs_service.stills.jobs())
    request = web.jobs_service.stills.jobs()[0].request
    assert request is not None and request.field_height == 64
    assert request.dream["layers"] == taken["layers"] and request.dream["steps"] == 1
    page.get_by_role("tab", name="Live").click()
    page.click(".sd [data-look=look-roses]")
    page.focus("#sd-intensity")
    page.keyboard.press("End")
    panel = open_tab(page, "Video")
    page.click(f"{panel} .sd-from-live")
    shared = values(page)
    assert {name: value for name, value in tab_values(page, panel).items() if name in shared} == {
        name: value for name, value in shared.items() if name not in ("channel", "style_layers")}
    assert page.input_value("#sd-video-intensity") == "1000"


def test_a_link_whose_octaves_do_not_fit_begins_with_what_fits(page: Any, web: Running) -> None:
    page.goto("about:blank")
    page.goto(f"{web.url}/#dream?octaves=6&octave_scale=2&layers=mixed5")
    page.wait_for_function("document.querySelector('.sd')?.page")
    page.click(".sd-start")
    says(page, "6 octaves at scale 2 are too many for mixed5 here: 2 are dreamed")
    session = next(iter(web.waiting_room.sessions.values()))
    until(lambda: session.dreams >= 2)
    assert values(page)["octaves"] == 2 and page.get_attribute(".sd", "data-state") == "live"
    page.locator("#sd-layers").evaluate("it => { it.value = 'nose'; it.dispatchEvent(new Event('change')); }")
    says(page, "there is no layer 'nose'; choose one such as mixed0")
