"""The live page in a real Chromium before a camera that plays a file."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.torch import save_file
from support.browser import CHROMIUM
from support.live_page import HINTED, LIVE, PAGE, SIZE, begin, load, packets, saved, says, shown
from support.waiting import until
from support.web_client import Client, Running, difference, running

from streamdream import models
from streamdream.media.images import read_image
from streamdream.media.opencv import cv2
from streamdream.media.sample_files import EXAMPLE_CLIP
from streamdream.models import fetch
from streamdream.models.weights.random import random_weights
from streamdream.settings import DreamSettings

pytestmark = [pytest.mark.alone, pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no Chromium here"),
              pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module")
def web() -> Iterator[Running]:
    with running(max_sessions=2) as server:
        yield server


def dreamed(session: Any, more: int) -> None:
    """So many dreams more are done."""
    enough = session.dreams + more
    until(lambda: session.dreams >= enough)


def fine(picture: NDArray[np.uint8]) -> NDArray[Any]:
    """What is smaller than a few pixels in it."""
    small: NDArray[Any] = picture - cv2().GaussianBlur(picture.astype(np.float32), (0, 0), 2)
    return small.ravel()


def test_start_button_shows_the_dream(page: Any, web: Running, tmp_path: Path) -> None:
    begin(page)
    dreamed(next(iter(web.waiting_room.sessions.values())), 6)
    assert page.locator(".sd-tile i").count() == page.locator(".sd-tile").count()  # their thumbnails are shipped
    until(lambda: "fps" in page.inner_text("[data-figure=fps]"))
    assert "ms" in page.inner_text("[data-figure=latency]")
    until(lambda: "dreams/s" in page.inner_text("[data-figure=dreams]"))
    assert "inception_v3" in page.inner_text(".sd-engine") and "96 lines" in page.inner_text(".sd-engine")
    dream = read_image(str(saved(page, "s", tmp_path)))
    assert dream.shape == (SIZE[1], SIZE[0], 3)
    assert page.inner_text(".sd-toast").startswith("Saved streamdream-")
    page.evaluate("document.querySelector('.sd').page.panel.set({strength: 0})")
    shown(page, 6)
    plain = read_image(str(saved(page, "s", tmp_path)))
    assert difference(plain, dream) > 3 and plain.std() > 20


COMPOSE = """async ([picture, halves, width, height, small]) => {
  const { Composer } = await import("./streamdream/compose.js");
  const bitmap = (rgb, wide) => {
    const data = new Uint8ClampedArray(rgb.length / 3 * 4).fill(255);
    rgb.forEach((value, index) => { data[4 * Math.floor(index / 3) + index % 3] = value; });
    return createImageBitmap(new ImageData(data, wide));
  };
  const composer = new Composer(document.createElement("canvas"));
  composer.show(await bitmap(picture, width), await bitmap(halves, small));
  return Array.from(composer.context.getImageData(0, 0, width, height).data.filter((_, index) => index % 4 < 3));
}"""


def test_page_adds_a_residual_to_a_frame_as_the_server_would(page: Any) -> None:
    random = np.random.default_rng(1)
    picture, levels = random.integers(0, 256, (48, 64, 3)), random.integers(-255, 256, (24, 32, 3))
    levels[8:] = cv2().GaussianBlur(levels.astype(np.float32), (0, 0), 2)[8:]
    halves = np.vstack([levels.clip(0), (-levels).clip(0)])
    args = [picture.ravel().tolist(), halves.ravel().tolist(), 64, 48, 32]
    result = np.array(page.evaluate(COMPOSE, args)).reshape(48, 64, 3)
    positive, negative = (cv2().resize(half.astype(np.uint8), (64, 48)).astype(int) for half in np.split(halves, 2))
    assert np.abs(result - ((picture + positive).clip(0, 255) - negative).clip(0, 255)).max() <= 2


def test_compare_and_freeze_show_the_original_frame(page: Any, tmp_path: Path) -> None:
    begin(page)
    page.evaluate("document.querySelector('.sd').page.panel.set({strength: 0})")
    page.click("[data-do=freeze]")
    shown(page, 8)
    dream = read_image(str(saved(page, "s", tmp_path)))
    page.click("[data-do=compare]")
    shown(page, 6)
    assert difference(read_image(str(saved(page, "s", tmp_path))), dream) < 0.5


def test_picture_is_as_sharp_as_the_camera(page: Any, tmp_path: Path, lion: NDArray[np.uint8]) -> None:
    begin(page)
    page.evaluate("document.querySelector('.sd').page.panel.set({strength: 0})")
    page.click("[data-do=mirror]")
    shown(page, 6)
    plain = read_image(str(saved(page, "s", tmp_path)))
    large = cv2().resize(lion, (720, 540))
    alike = [np.corrcoef(fine(plain), fine(large[row:row + SIZE[1], row:row + SIZE[0]]))[0, 1]
             for row in range(0, 60, 2)]
    assert max(alike) > 0.9  # one of the camera's pictures, but for its JPEG; the field has 96 lines


@pytest.mark.parametrize("lacks", ["MediaStreamTrackProcessor", "MediaStreamTrackProcessor VideoFrame"])
def test_camera_works_without_track_processor_and_video_frame(page: Any, lacks: str) -> None:
    page.add_init_script(f"for (const name of '{lacks}'.split(' ')) delete globalThis[name]")
    page.reload()
    page.wait_for_function("document.querySelector('.sd')?.page")
    begin(page)
    assert page.evaluate("document.querySelector('.sd').page.frames.newest.videoWidth") == SIZE[0]
    assert page.evaluate("!!document.querySelector('.sd').page.frames.worker") == ("VideoFrame" not in lacks)


def test_hidden_page_sends_no_frames(page: Any) -> None:
    begin(page)
    page.evaluate("Object.defineProperty(document, 'hidden', {get: () => window.gone}); gone = true")
    page.wait_for_timeout(500)
    before = page.evaluate("document.querySelector('.sd').page.socket.number")
    page.wait_for_timeout(500)
    assert page.evaluate("document.querySelector('.sd').page.socket.number") == before
    page.evaluate("gone = false")
    shown(page, 3)


def test_controls_change_settings_and_the_link_restores_them(page: Any, web: Running) -> None:
    begin(page)
    session = next(iter(web.waiting_room.sessions.values()))
    page.click("[data-layer=mixed5]")
    until(lambda: session.controls.current().layers == "mixed5")
    page.click("[data-layer=mixed4]", modifiers=["Shift"])
    until(lambda: session.controls.current().layers == "mixed5,mixed4")
    page.click("[data-look=look-pebbles]")
    until(lambda: session.controls.current().octaves == 3 and session.controls.current().color == 0)
    page.click(".sd-more summary")
    page.focus("#sd-strength")
    for _ in range(5):
        page.keyboard.press("ArrowRight")  # five steps of 0.02
    until(lambda: session.controls.current().strength == pytest.approx(1.1))
    page.click(".sd-copy")
    until(lambda: "strength=1.1" in page.evaluate("navigator.clipboard.readText()"))
    link = page.evaluate("navigator.clipboard.readText()")
    assert "octaves=3" in link
    page.click(".sd-defaults")
    until(lambda: session.controls.current() == DreamSettings(warmup_steps=0))
    page.goto("about:blank")
    page.goto(link)
    page.wait_for_function("document.querySelector('.sd')?.page?.panel.values.octaves === 3")
    begin(page)
    sessions = web.waiting_room.sessions
    until(lambda: any(one.controls.current().strength == pytest.approx(1.1) for one in sessions.values()))


def test_keyboard_controls_everything(page: Any, web: Running, tmp_path: Path) -> None:
    page.focus(".sd-start")
    page.keyboard.press("Enter")
    page.wait_for_selector(LIVE, timeout=20_000)
    shown(page, 3)
    session = next(iter(web.waiting_room.sessions.values()))
    page.keyboard.press("z")
    until(lambda: session.controls.frozen)
    assert page.get_attribute("[data-do=freeze]", "aria-pressed") == "true"
    page.keyboard.press("z")
    until(lambda: not session.controls.frozen)
    page.keyboard.press("x")
    until(lambda: session.controls.resets == 1)
    page.keyboard.press("m")
    assert page.get_attribute("[data-do=mirror]", "aria-pressed") == "false"
    page.keyboard.press("c")
    page.focus(".sd-split")
    page.keyboard.press("End")  # all of it as the camera sees it
    page.keyboard.press("z")
    dreamed(session, 6)
    shown(page, 4)
    plain = read_image(str(saved(page, "s", tmp_path)))
    page.focus(".sd-split")
    page.keyboard.press("Home")
    shown(page, 4)
    assert difference(read_image(str(saved(page, "s", tmp_path))), plain) > 3
    page.keyboard.press("r")
    page.wait_for_timeout(1500)
    assert "●" in page.inner_text("[data-figure=rec]")
    film = saved(page, "r", tmp_path)
    assert film.suffix in (".mp4", ".webm") and film.stat().st_size > 10_000
    page.keyboard.press("f")
    page.wait_for_function("document.fullscreenElement !== null")
    page.wait_for_function("document.querySelector('.sd-canvas').getBoundingClientRect().bottom <= innerHeight")
    page.keyboard.press("f")
    page.wait_for_function("document.fullscreenElement === null")


def test_selecting_another_network_changes_model_and_tiles(
        browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own layers as tiles, which can be picked; and back again."""
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path))
    folder = fetch.weights_dir()
    folder.mkdir(parents=True)
    stored = random_weights(models.get("bvlc_googlenet").nodes())
    save_file(stored, folder / "bvlc_googlenet.safetensors")
    with running() as web:
        page = browser.new_page()
        page.add_init_script(HINTED)
        load(page, web)
        begin(page)
        session = next(iter(web.waiting_room.sessions.values()))
        page.select_option("#sd-model", "bvlc_googlenet")
        until(lambda: session.controls.request.model == "bvlc_googlenet")
        assert session.controls.current().layers == "inception_4c/output"
        assert page.locator(".sd-tile").count() == 9 and not page.locator("[data-layer=mixed3]").count()
        page.click("[data-layer='inception_3a/output']")
        until(lambda: session.controls.current().layers == "inception_3a/output")
        dreamed(session, 3)
        page.select_option("#sd-model", "inception_v3")
        until(lambda: session.controls.request.model == "inception_v3")
        until(lambda: "mixed" in session.controls.current().layers)
        dreamed(session, 3)
        assert page.get_attribute(".sd", "data-state") == "live" and not page.inner_text(".sd-toast")
        page.close()


def test_page_reconnects_after_a_dropped_connection(page: Any, web: Running) -> None:
    begin(page)
    session = next(iter(web.waiting_room.sessions.values()))
    resumed = web.app_state.counts["resumed"]
    page.evaluate("document.querySelector('.sd').page.socket.socket.close(3999)")
    until(lambda: web.app_state.counts["resumed"] > resumed)
    page.wait_for_selector(LIVE, timeout=10_000)
    shown(page, 3)
    assert next(iter(web.waiting_room.sessions.values())) is session and not page.inner_text(".sd-toast")
    page.click("[data-do=stop]")
    page.wait_for_selector(".sd[data-state=idle]")
    assert until(lambda: not web.waiting_room.sessions) < 5


def test_queued_visitor_sees_the_position_and_gets_in(page: Any, web: Running) -> None:
    with Client(web) as first, Client(web) as second:
        first.welcome(), second.welcome()
        page.click(".sd-start")
        page.wait_for_selector(".sd[data-state=waiting]")
        assert "You are next. It starts automatically, in 30 minutes at the latest." in page.inner_text(".sd-text")
        first.close()
        page.wait_for_selector(LIVE, timeout=10_000)
        shown(page)


def test_example_clip_dreams_without_a_camera(page: Any, web: Running, tmp_path: Path) -> None:
    page.evaluate("() => { navigator.mediaDevices.getUserMedia = async () => { throw new Error('no camera'); }; }")
    begin(page, ".sd-clip")
    [session] = web.waiting_room.sessions.values()
    until(lambda: session.dreams > 6)
    assert page.get_attribute("[data-do=mirror]", "aria-pressed") == "false"
    page.keyboard.press("z")
    until(lambda: session.controls.frozen)
    dream = read_image(str(saved(page, "s", tmp_path)))
    page.keyboard.press("c")
    page.focus(".sd-split")
    page.keyboard.press("End")
    shown(page, 4)
    plain = read_image(str(saved(page, "s", tmp_path)))
    with av.open(str(EXAMPLE_CLIP)) as clip:
        likeness = min(difference(plain, frame.to_ndarray(format="rgb24")) for frame in clip.decode(video=0))
    assert likeness < 12 and difference(dream, plain) > 3


SCREENS = {"desktop": (1280, 800), "phone": (390, 844), "landscape": (844, 390)}


def test_picture_stays_in_view_while_the_settings_scroll(page: Any) -> None:
    begin(page)
    for name, (width, height) in SCREENS.items():
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_timeout(100)
        full = page.locator(".sd-canvas").bounding_box()
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        page.wait_for_timeout(300)
        box = page.locator(".sd-canvas").bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= height, (name, box)
        assert box["height"] > 0.25 * height and (name == "phone") == (box["height"] < full["height"]), (name, box)
        settings = page.locator(".sd-engine").bounding_box()
        beside = settings["x"] >= box["x"] + box["width"]
        assert beside or settings["y"] >= box["y"] + box["height"], (name, box, settings)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_recording_has_the_sound_of_the_microphone_if_it_is_wanted(page: Any, tmp_path: Path) -> None:
    begin(page)
    page.click("[data-do=sound]")
    page.keyboard.press("r")
    page.wait_for_function("document.querySelector('[data-figure=rec]').textContent.includes('●')")
    page.wait_for_timeout(1200)
    film = packets(saved(page, "r", tmp_path))
    assert film["video"] > 5 and film["audio"] > 5


def test_copied_link_is_shown_as_a_code_that_a_phone_reads(page: Any, tmp_path: Path) -> None:
    page.evaluate(f"{PAGE}.panel.set({{layers: 'mixed5', strength: 1.4}})")
    page.click(".sd-copy")
    page.wait_for_selector(".sd-code:popover-open")
    assert "this computer only" in page.inner_text(".sd-code-note")
    page.locator(".sd-code-picture").screenshot(path=tmp_path / "code.png")
    read, *_ = cv2().QRCodeDetector().detectAndDecode(cv2().imread(str(tmp_path / "code.png")))
    assert "strength=1.4" in read
    until(lambda: page.evaluate("navigator.clipboard.readText()") == read)
    page.keyboard.press("Escape")
    page.wait_for_selector(".sd-code", state="hidden")


def test_page_says_that_it_needs_a_websocket_when_none_opens(browser: Any, web: Running) -> None:
    page = browser.new_page()
    page.add_init_script("WebSocket = class { constructor() { setTimeout(() => this.onclose({ code: 1006 }), 10); }"
                         " close() {} }; WebSocket.OPEN = 1;")
    load(page, web)
    page.click(".sd-start")
    page.wait_for_function("document.querySelector('.sd-text').textContent.includes('needs a WebSocket')",
                           timeout=20_000)
    assert page.get_attribute(".sd", "data-state") == "idle" and page.is_visible(".sd-start")
    assert page.evaluate("document.querySelector('.sd').page.camera.stream") is None
    page.close()


@pytest.mark.parametrize("seconds", [0, *(pytest.param(seconds, marks=pytest.mark.soak) for seconds in (20, 120))])
def test_dream_and_settings_come_back_with_the_server(browser: Any, seconds: int) -> None:
    page = browser.new_page()
    with running() as web:
        load(page, web)
        begin(page)
        page.evaluate("document.querySelector('.sd').page.panel.set({strength: 0.6})")
        web.server.should_exit = True
        says(page, "in a moment")
        assert page.get_attribute(".sd", "data-state") in ("restart", "lost")
    page.wait_for_timeout(1000 * seconds)
    assert seconds < 20 or "No connection for " in page.inner_text(".sd-toast")
    with running(port=web.port) as again:
        page.wait_for_selector(LIVE, timeout=30_000)
        shown(page, 3)
        [session] = again.waiting_room.sessions.values()
        assert session.controls.current().strength == 0.6
        page.close()


def test_page_fits_a_phone_in_both_themes(browser: Any, web: Running) -> None:
    for scheme in ("dark", "light"):
        context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
        page = context.new_page()
        load(page, web)
        begin(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        box = page.query_selector(".sd-canvas").bounding_box()
        assert box["x"] >= 0 and box["width"] > 340
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, ground.removeprefix("rgb(").rstrip(")").split(",")[:3])) < 200) is (scheme == "dark")
        context.close()
