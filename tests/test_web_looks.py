"""Looks by their pictures and the picker of channels, in a real Chromium."""
from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from streamdream_web.pages import looks
from support.browser import CHROMIUM, chromium, is_error, write_camera
from support.channel_pictures import write_sheets
from support.live_page import HINTED
from support.waiting import until
from support.web_client import Running, difference, running

from streamdream import settings
from streamdream.media.opencv import cv2
from streamdream.models import channel_sheets
from streamdream.settings_parsing import parse_layers

pytestmark = [pytest.mark.alone, pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no Chromium here"),
              pytest.mark.filterwarnings("ignore::ResourceWarning")]


def layers_of(look: str) -> dict[tuple[str, tuple[int, ...]], float]:
    return weights(str(settings.read_preset(look)["layers"]))


def weights(layers: str) -> dict[tuple[str, tuple[int, ...]], float]:
    return {(name, channels): weight for name, weight, channels in parse_layers(layers)}


FIRST, SECOND = next((one, other) for one, other in itertools.combinations(looks.look_names(), 2)
                     if not layers_of(one).keys() & layers_of(other).keys())
CANVAS = "document.querySelector('.sd').page.canvas.toDataURL('image/png')"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channel_sheets, "SHIPPED", write_sheets(tmp_path_factory.mktemp("channels")))
        pictures = tmp_path_factory.mktemp("looks")
        for number, name in enumerate(looks.look_names()):
            cv2().imwrite(str(pictures / f"{name}.webp"), np.full((130, 200, 3), 5 * number % 256, np.uint8))
        patch.setattr(looks, "PICTURES", pictures)
        for cached in (channel_sheets.names, looks.sheet, looks.version, looks._layout):
            cached.cache_clear()
        with running(max_sessions=2) as server:
            yield server
    for cached in (channel_sheets.names, looks.sheet, looks.version, looks._layout):
        cached.cache_clear()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, lion: NDArray[np.uint8]) -> Iterator[Any]:
    still = [np.ascontiguousarray(cv2().resize(lion, (640, 480)))] * 2
    with chromium(write_camera(tmp_path_factory.mktemp("camera") / "lion.mjpeg", still)) as opened:
        yield opened


@pytest.fixture()
def page(browser: Any, web: Running, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, loaded, on a desktop or, as its parameter says, in another size; no error may be in its console."""
    until(lambda: not web.waiting_room.sessions)
    size = getattr(request, "param", (1280, 860))
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, has_touch=size[0] < 500)
    opened, problems = context.new_page(), []
    opened.requests = []
    opened.on("console", lambda message: problems.append(message.text) if is_error(message) else None)
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda sent: opened.requests.append(sent.url))
    opened.add_init_script(HINTED)
    opened.goto(web.url)
    opened.wait_for_function("document.querySelector('.sd')?.page")
    yield opened
    context.close()
    assert not problems


def begin(page: Any, web: Running) -> Any:
    """Start the camera, as a visitor who needs no hints; return the session."""
    page.evaluate("localStorage.setItem('streamdream-hinted', 'true')")
    page.click(".sd-start")
    page.wait_for_selector(".sd[data-state=live]", timeout=20_000)
    session = next(iter(web.waiting_room.sessions.values()))
    dreamed(session, 3)
    return session


def dreamed(session: Any, more: int) -> None:
    enough = session.dreams + more
    until(lambda: session.dreams >= enough)


def open_picker(page: Any) -> None:
    page.click(".sd-channels summary")
    page.wait_for_selector(".sd-channels .sd-cell")


def picture(page: Any) -> NDArray[np.uint8]:
    data = base64.b64decode(page.evaluate(CANVAS).partition(",")[2])
    pixels: NDArray[np.uint8] = cv2().imdecode(np.frombuffer(data, np.uint8), cv2().IMREAD_COLOR)
    return pixels


def test_a_look_is_chosen_by_its_picture_and_the_dream_changes(page: Any, web: Running) -> None:
    session = begin(page, web)
    dreamed(session, 10)
    before = picture(page)
    button = page.locator(f".sd [data-look={FIRST}]")
    box = button.bounding_box()
    assert box["width"] / box["height"] == pytest.approx(200 / 130, rel=0.05)
    button.click()
    wanted = str(settings.read_preset(FIRST)["layers"])
    until(lambda: session.controls.current().layers == wanted)
    dreamed(session, 3)
    assert page.locator(".sd-look[aria-pressed=true]").get_attribute("data-look") == FIRST
    page.click("[data-do=reset]")
    dreamed(session, 25)
    assert difference(picture(page), before) > 1
    assert len([url for url in page.requests if "/looks/sheet" in url]) == 1


def test_two_looks_are_mixed_and_one_is_subtracted(page: Any, web: Running) -> None:
    session = begin(page, web)
    page.click(f".sd [data-look={FIRST}]")
    page.get_by_text("+ Mix", exact=True).click()
    page.click(f".sd [data-look={SECOND}]")
    both = layers_of(FIRST).keys() | layers_of(SECOND).keys()
    until(lambda: weights(session.controls.current().layers).keys() == both)
    mixed = weights(session.controls.current().layers)
    assert all(mixed[part] * weight > 0 for name in (FIRST, SECOND) for part, weight in layers_of(name).items())
    assert page.locator(".sd-look[data-sign='+']").get_attribute("data-look") == SECOND
    half = session.controls.current().layers
    page.locator(".sd-amount input").fill("90")
    until(lambda: session.controls.current().layers != half)
    page.get_by_text("− Subtract").click()
    assert page.locator(".sd-amount").is_hidden()
    page.click(".sd-layers [data-layer=mixed0]")
    page.click(f".sd [data-look={FIRST}]")
    until(lambda: weights(session.controls.current().layers).keys() == layers_of(FIRST).keys() | {("mixed0", ())})
    less = weights(session.controls.current().layers)
    assert all(less[part] * weight < 0 for part, weight in layers_of(FIRST).items()) and less["mixed0", ()] > 0
    dreamed(session, 3)
    assert page.get_attribute(".sd", "data-state") == "live"


def test_feathers_are_found_added_and_subtracted(page: Any, web: Running) -> None:
    session = begin(page, web)
    page.click(".sd-layers [data-layer=mixed5]")
    open_picker(page)
    assert page.locator(".sd-channels .sd-cell").count() == 768  # of the block that is dreamed
    page.fill(".sd-search", "feathers")
    page.wait_for_function("document.querySelectorAll('.sd-channels .sd-cell').length === 2")
    assert page.inner_text(".sd-channels .sd-status") == "2 channels"
    page.click(".sd-cell[title^='feathers']")
    until(lambda: session.controls.current().layers == "mixed5[33]:1")  # instead of the whole layer
    page.fill(".sd-search", "")
    page.click(".sd-cell[title^='roses']")
    page.get_by_text("− Not this").click()
    page.click(".sd-cell[title^='eyes']")
    layers = "mixed5[33]:1,mixed5[220]:1,mixed5[12]:-0.5"
    until(lambda: session.controls.current().layers == layers)
    assert page.input_value("#sd-layers") == layers
    dreamed(session, 3)
    assert page.locator(".sd-cell[data-sign='+']").count() == 2
    assert page.locator(".sd-part[data-sign='−']").inner_text().split() == ["eyes", "−", "−0.5", "+", "×"]
    page.get_by_label("More roses").click()
    page.get_by_label("Remove feathers").click()
    until(lambda: session.controls.current().layers == "mixed5[220]:1.25,mixed5[12]:-0.5")
    page.click(".sd-cell[title^='eyes']")  # once more: not chosen
    until(lambda: session.controls.current().layers == "mixed5[220]:1.25")
    page.get_by_label("Remove roses").click()
    assert page.inner_text(".sd-channels .sd-status") == "One part must stay."
    assert page.get_attribute(".sd", "data-state") == "live" and not page.inner_text(".sd-toast")
    assert len({url for url in page.requests if "/channels/inception_v3/" in url and "search" not in url}) <= 2


def test_a_cell_shows_the_picture_of_its_channel(page: Any, tmp_path: Path) -> None:
    open_picker(page)
    page.click(".sd-chip[data-layer=mixed5]")
    for number in (0, 31, 33, 220, 300):  # each cell of the sheet is as bright as its number, up to 255
        cell = page.locator(f".sd-cell[data-channel='{number}']")
        cell.scroll_into_view_if_needed()
        cell.screenshot(path=tmp_path / "cell.png")
        level = cv2().imread(str(tmp_path / "cell.png"))[20:-20, 20:-20].mean()
        assert abs(level - number % 256) < 8


def test_channels_of_the_tab_layers_are_used_in_every_tab(page: Any, web: Running) -> None:
    session = begin(page, web)
    for name in ("Video", "Picture"):  # a tab is made when it is first looked at
        page.get_by_role("tab", name=name).click()
        page.wait_for_selector(f"#tab-{name.lower()} .sd-look")
    page.click(f"#tab-picture [data-look={FIRST}]")
    wanted = str(settings.read_preset(FIRST)["layers"])
    value = "([tab, wanted]) => document.querySelector(`#tab-${tab} input[name=layers]`)?.value === wanted"
    page.wait_for_function(value, arg=["picture", wanted])
    page.get_by_role("tab", name="Layers").click()
    page.locator("#layers-which").get_by_label("Channels").click()
    page.wait_for_selector("#layers-channels .sd-cell")
    page.locator("#layers-channels").get_by_role("button", name="mixed5").click()
    page.click("#layers-channels .sd-cell[title^='feathers']")
    page.click("#layers-channels .sd-cell[title^='eyes']", modifiers=["Shift"])
    layers = "mixed5[33]:1,mixed5[12]:-0.5"
    until(lambda: session.controls.current().layers == layers)
    for tab in ("video", "picture"):
        page.wait_for_function(value, arg=[tab, layers])
    page.get_by_role("tab", name="Video").click()
    page.get_by_text("+ Mix", exact=True).locator("visible=true").click()
    page.click(f"#tab-video [data-look={SECOND}]")
    page.wait_for_function("() => /mixed5\\[33\\]:.*mixed5\\[12\\]:-.*,/.test("
                           "document.querySelector('#tab-video input[name=layers]').value)")
    assert not page.locator(".toast-body.error").count()


def test_keyboard_chooses_looks_and_channels(page: Any, web: Running) -> None:
    session = begin(page, web)
    page.focus(f".sd [data-look={FIRST}]")
    page.keyboard.press("Enter")
    wanted = str(settings.read_preset(FIRST)["layers"])
    until(lambda: session.controls.current().layers == wanted)
    page.focus(".sd .sd-modes input[value=use]")
    page.keyboard.press("ArrowRight")
    assert page.is_checked(".sd .sd-modes input[value=mix]")
    page.keyboard.press("ArrowLeft")
    page.focus(".sd-layers [data-layer=mixed5]")
    page.keyboard.press("Enter")
    page.focus(".sd-channels summary")
    page.keyboard.press("Enter")
    page.wait_for_selector(".sd-channels .sd-cell")
    page.focus(".sd-channels .sd-cell")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    until(lambda: session.controls.current().layers == "mixed5[1]:1")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("-")
    until(lambda: session.controls.current().layers == "mixed5[1]:1,mixed5[2]:-0.5")
    page.keyboard.press("ArrowDown")
    assert int(page.evaluate("document.activeElement.dataset.channel")) > 3
    assert page.evaluate("document.activeElement.ariaLabel").startswith("mixed5 ")
    assert page.evaluate("[...document.querySelectorAll('.sd-channels .sd-cell')].filter((it) => it.tabIndex === 0)"
                         ".length") == 1  # one stop of the Tab key


@pytest.mark.parametrize("page", [(390, 844)], indirect=True)
def test_looks_and_channels_fit_a_phone(page: Any, web: Running) -> None:
    session = begin(page, web)
    page.tap(f".sd [data-look={SECOND}]")
    wanted = str(settings.read_preset(SECOND)["layers"])
    until(lambda: session.controls.current().layers == wanted)
    open_picker(page)
    page.fill(".sd-search", "feathers")
    page.wait_for_function("document.querySelectorAll('.sd-channels .sd-cell').length === 2")
    page.get_by_text("− Not this").tap()
    page.tap(".sd-cell[title^='feathers']")
    until(lambda: session.controls.current().layers.endswith("mixed5[33]:-0.5"))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    sizes = page.evaluate("[...document.querySelectorAll('.sd-cell, .sd-look, .sd-part button')]"
                          ".map((it) => it.getBoundingClientRect()).map((box) => Math.min(box.width, box.height))")
    assert min(sizes) >= 24  # WCAG 2.2, target size
