"""The live page in a real Chromium before a camera that plays a file."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.torch import save_file
from support.browser import CHROMIUM, chromium, write_camera
from support.waiting import until
from support.web_client import Client, Running, difference, running

from streamdream import models
from streamdream.media.images import read_image
from streamdream.media.opencv import cv2
from streamdream.models import fetch
from streamdream.models.weights.random import random_weights

pytestmark = [pytest.mark.alone, pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no Chromium here"),
              pytest.mark.filterwarnings("ignore::ResourceWarning")]
SIZE = 640, 480
LIVE = ".sd[data-state=live]"


@pytest.fixture(scope="module")
def web() -> Iterator[Running]:
    with running(max_sessions=2) as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, lion: NDArray[np.uint8]) -> Iterator[Any]:
    large = cv2().resize(lion, (720, 540))
    images = [np.ascontiguousarray(large[row:row + SIZE[1], row:row + SIZE[0]]) for row in range(0, 60, 2)]
    with chromium(write_camera(tmp_path_factory.mktemp("camera") / "lion.mjpeg", images)) as opened:
        yield opened


@pytest.fixture()
def page(browser: Any, web: Running) -> Iterator[Any]:
    """The page, loaded; a console error, a failed request or a word to another server fails the test."""
    until(lambda: not web.waiting_room.sessions)
    context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=web.url)
    opened, problems = context.new_page(), []
    opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda request: None if request.url.startswith((web.url, "data:", "blob:", "ws://127.0.0.1"))
              else problems.append(request.url))
    opened.goto(web.url)
    opened.wait_for_selector(".sd-start")
    opened.wait_for_function("document.querySelector('.sd').page")
    yield opened
    context.close()
    assert not problems


def begin(page: Any) -> None:
    page.click(".sd-start")
    page.wait_for_selector(LIVE, timeout=20_000)
    shown(page, 3)


def shown(page: Any, more: int = 2) -> None:
    """So many pictures more were shown."""
    now = page.evaluate("document.querySelector('.sd').page.drawn")
    page.wait_for_function(f"document.querySelector('.sd').page.drawn >= {now + more}", timeout=20_000)


def dreamed(session: Any, more: int) -> None:
    """So many dreams more are done."""
    enough = session.dreams + more
    until(lambda: session.dreams >= enough)


def fine(picture: NDArray[np.uint8]) -> NDArray[Any]:
    """What is smaller than a few pixels in it."""
    small: NDArray[Any] = picture - cv2().GaussianBlur(picture.astype(np.float32), (0, 0), 2)
    return small.ravel()


def saved(page: Any, key: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.keyboard.press(key)
    path: Path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_one_press_and_one_sees_oneself_dream(page: Any, web: Running, tmp_path: Path) -> None:
    begin(page)
    dreamed(next(iter(web.waiting_room.sessions.values())), 6)
    until(lambda: "fps" in page.inner_text("[data-figure=fps]"))
    assert "ms" in page.inner_text("[data-figure=latency]")
    until(lambda: "dreams/s" in page.inner_text("[data-figure=dreams]"))
    assert "inception_v3" in page.inner_text(".sd-engine") and "96 lines" in page.inner_text(".sd-engine")
    dream = read_image(str(saved(page, "s", tmp_path)))
    assert dream.shape == (SIZE[1], SIZE[0], 3)
    page.evaluate("document.querySelector('.sd').page.panel.set({strength: 0})")
    shown(page, 6)
    plain = read_image(str(saved(page, "s", tmp_path)))
    assert difference(plain, dream) > 3 and plain.std() > 20


PUT_TOGETHER = """async ([picture, halves, width, height, small, way]) => {
  const { Composer } = await import("./streamdream/compose.js");
  const { Adder } = await import("./streamdream/adder.js");
  const bitmap = (rgb, wide) => {
    const data = new Uint8ClampedArray(rgb.length / 3 * 4).fill(255);
    rgb.forEach((value, place) => { data[4 * Math.floor(place / 3) + place % 3] = value; });
    return createImageBitmap(new ImageData(data, wide));
  };
  const composer = new Composer(document.createElement("canvas"), await Adder.hire());
  let shown = await bitmap(picture, width);
  if (way !== "canvas") {
    const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d");
    context.drawImage(shown, 0, 0);
    const pixels = context.getImageData(0, 0, width, height).data;
    shown = { pixels, width, height, mirrored: way === "mirrored pixels" };
  }
  composer.show(shown, await bitmap(halves, small));
  return Array.from(composer.context.getImageData(0, 0, width, height).data.filter((_, place) => place % 4 < 3));
}"""


@pytest.mark.parametrize("way", ["canvas", "pixels", "mirrored pixels"])
def test_the_page_adds_a_dream_to_a_picture_as_the_server_would(page: Any, way: str) -> None:
    random = np.random.default_rng(1)
    picture, levels = random.integers(0, 256, (48, 64, 3)), random.integers(-255, 256, (24, 32, 3))
    levels[8:] = cv2().GaussianBlur(levels.astype(np.float32), (0, 0), 2)[8:]
    halves = np.vstack([levels.clip(0), (-levels).clip(0)])
    came = picture[:, ::-1] if "mirrored" in way else picture
    given = [came.ravel().tolist(), halves.ravel().tolist(), 64, 48, 32, way]
    found = np.array(page.evaluate(PUT_TOGETHER, given)).reshape(48, 64, 3)
    more, less = (cv2().resize(half.astype(np.uint8), (64, 48)).astype(int) for half in np.split(halves, 2))
    between = (picture + more).clip(0, 255) if way == "canvas" else picture + more  # a canvas saturates on the way
    assert np.abs(found - (between - less).clip(0, 255)).max() <= 2


COUNT_SUMS = """() => {
  const { adder } = document.querySelector(".sd").page.composer, sum = adder.sum.bind(adder);
  window.sums = 0;
  adder.sum = (...given) => { sums += 1; return sum(...given); };
}"""


def test_where_no_gpu_draws_pixels_are_added(page: Any, tmp_path: Path) -> None:
    """Mirrored and frozen, too; before and after is drawn, and looks the same."""
    begin(page)
    page.evaluate("document.querySelector('.sd').page.panel.set({strength: 0})")
    page.evaluate(COUNT_SUMS)
    shown(page, 3)
    page.click("[data-do=freeze]")
    shown(page, 6)
    before = page.evaluate("sums")
    shown(page, 2)
    assert page.evaluate("sums") > before > 0
    added = read_image(str(saved(page, "s", tmp_path)))
    page.click("[data-do=compare]")
    shown(page, 8)
    before = page.evaluate("sums")
    shown(page, 2)
    assert page.evaluate("sums") == before
    assert difference(read_image(str(saved(page, "s", tmp_path))), added) < 0.5


def test_what_is_shown_is_as_sharp_as_the_camera(page: Any, tmp_path: Path, lion: NDArray[np.uint8]) -> None:
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
def test_browsers_that_show_a_camera_only_as_a_video(page: Any, lacks: str) -> None:
    page.add_init_script(f"for (const name of '{lacks}'.split(' ')) delete globalThis[name]")
    page.reload()
    page.wait_for_function("document.querySelector('.sd')?.page")
    begin(page)
    assert page.evaluate("document.querySelector('.sd').page.camera.newest.videoWidth") == SIZE[0]
    assert page.evaluate("!!document.querySelector('.sd').page.camera.worker") == ("VideoFrame" not in lacks)


def test_out_of_sight_nothing_is_sent(page: Any) -> None:
    begin(page)
    page.evaluate("Object.defineProperty(document, 'hidden', {get: () => window.gone}); gone = true")
    page.wait_for_timeout(500)
    before = page.evaluate("document.querySelector('.sd').page.link.number")
    page.wait_for_timeout(500)
    assert page.evaluate("document.querySelector('.sd').page.link.number") == before
    page.evaluate("gone = false")
    shown(page, 3)


def test_controls_act_and_the_link_carries_them(page: Any, web: Running) -> None:
    begin(page)
    session = next(iter(web.waiting_room.sessions.values()))
    page.click("[data-layer=mixed5]")
    until(lambda: session.controls.now().layers == "mixed5")
    page.click("[data-layer=mixed4]", modifiers=["Shift"])
    until(lambda: session.controls.now().layers == "mixed5,mixed4")
    page.click("[data-look=look-pearls]")
    until(lambda: session.controls.now().octaves == 3 and session.controls.now().color == 0)
    page.focus("#sd-strength")
    for _ in range(5):
        page.keyboard.press("ArrowRight")  # five steps of 0.02
    until(lambda: session.controls.now().strength == pytest.approx(1.1))
    page.click(".sd-copy")
    link = page.evaluate("navigator.clipboard.readText()")
    assert "strength=1.1" in link and "layers=mixed5" in link
    page.click(".sd-defaults")
    until(lambda: session.controls.now() == session.controls.now().__class__(warmup_steps=0))
    page.goto("about:blank")
    page.goto(link)
    page.wait_for_function("document.querySelector('.sd')?.page?.panel.values.octaves === 3")
    begin(page)
    until(lambda: any(one.controls.now().strength == pytest.approx(1.1) for one in web.waiting_room.sessions.values()))


def test_the_page_works_by_keyboard(page: Any, web: Running, tmp_path: Path) -> None:
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
    page.keyboard.press("f")
    page.wait_for_function("document.fullscreenElement === null")


def test_another_network_is_chosen(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own layers as tiles, which can be picked; and back again."""
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path))
    folder = fetch.weights_dir()
    folder.mkdir(parents=True)
    stored = random_weights(models.get("bvlc_googlenet").nodes())
    save_file(stored, folder / "bvlc_googlenet.safetensors")
    with running() as web:
        page = browser.new_page()
        page.goto(web.url)
        page.wait_for_function("document.querySelector('.sd')?.page")
        begin(page)
        session = next(iter(web.waiting_room.sessions.values()))
        page.select_option("#sd-model", "bvlc_googlenet")
        until(lambda: session.controls.wish.model == "bvlc_googlenet")
        assert session.controls.now().layers == "inception_4c/output"
        assert page.locator(".sd-tile").count() == 9 and not page.locator("[data-layer=mixed3]").count()
        page.click("[data-layer='inception_3a/output']")
        until(lambda: session.controls.now().layers == "inception_3a/output")
        dreamed(session, 3)
        page.select_option("#sd-model", "inception_v3")
        until(lambda: session.controls.wish.model == "inception_v3" and "mixed" in session.controls.now().layers)
        dreamed(session, 3)
        assert page.get_attribute(".sd", "data-state") == "live" and not page.inner_text(".sd-toast")
        page.close()


def test_a_dropped_connection_comes_back_by_itself(page: Any, web: Running) -> None:
    begin(page)
    session = next(iter(web.waiting_room.sessions.values()))
    page.evaluate("document.querySelector('.sd').page.link.socket.close(3999)")
    page.wait_for_selector(".sd[data-state=lost]", timeout=5000)
    page.wait_for_selector(LIVE, timeout=10_000)
    shown(page, 3)
    assert next(iter(web.waiting_room.sessions.values())) is session and web.app_state.counts["resumed"] >= 1
    page.click("[data-do=stop]")
    page.wait_for_selector(".sd[data-state=idle]")
    assert until(lambda: not web.waiting_room.sessions) < 5


def test_who_waits_is_told_and_gets_in(page: Any, web: Running) -> None:
    with Client(web) as first, Client(web) as second:
        first.welcome(), second.welcome()
        page.click(".sd-start")
        page.wait_for_selector(".sd[data-state=waiting]")
        assert "You are next" in page.inner_text(".sd-text")
        first.close()
        page.wait_for_selector(LIVE, timeout=10_000)
        shown(page)


def test_page_says_that_it_needs_a_websocket_when_none_opens(browser: Any, web: Running) -> None:
    page = browser.new_page()
    page.add_init_script("WebSocket = class { constructor() { setTimeout(() => this.onclose({ code: 1006 }), 10); }"
                         " close() {} }; WebSocket.OPEN = 1;")
    page.goto(web.url)
    page.wait_for_function("document.querySelector('.sd')?.page")
    page.click(".sd-start")
    page.wait_for_function("document.querySelector('.sd-text').textContent.includes('needs a WebSocket')",
                           timeout=20_000)
    assert page.get_attribute(".sd", "data-state") == "idle" and page.is_visible(".sd-start")
    assert page.evaluate("document.querySelector('.sd').page.camera.stream") is None
    page.close()


def test_a_server_that_stops_is_no_alarm(browser: Any) -> None:
    with running() as web:
        page = browser.new_page()
        page.goto(web.url)
        page.wait_for_function("document.querySelector('.sd')?.page")
        begin(page)
        web.server.should_exit = True
        page.wait_for_function("document.querySelector('.sd-toast').textContent.includes('in a moment')")
        assert page.get_attribute(".sd", "data-state") in ("restart", "lost")
        page.close()


def test_the_page_fits_a_phone(browser: Any, web: Running) -> None:
    for scheme in ("dark", "light"):
        context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
        page = context.new_page()
        page.goto(web.url)
        page.wait_for_function("document.querySelector('.sd')?.page")
        begin(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        box = page.query_selector(".sd-canvas").bounding_box()
        assert box["x"] >= 0 and box["width"] > 340
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, ground.removeprefix("rgb(").rstrip(")").split(",")[:3])) < 200) is (scheme == "dark")
        context.close()
