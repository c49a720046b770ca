"""The stage of the live page: videos in the place of the camera, recordings, the link, and a picture always in view."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from support.browser import CHROMIUM, chromium
from support.live_page import LIVE, PAGE, begin, load, moving_lion, opened, saved, says, shown
from support.waiting import until
from support.web_client import Client, Running, difference, running

from streamdream.media.images import read_image
from streamdream.media.opencv import cv2
from streamdream.media.sample_files import EXAMPLE_CLIP

pytestmark = [pytest.mark.alone, pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no Chromium here"),
              pytest.mark.filterwarnings("ignore::ResourceWarning")]
NO_CAMERA = """() => {
  navigator.mediaDevices.getUserMedia = async () => { throw new DOMException("none", "NotFoundError"); };
}"""
TOAST = "document.querySelector('.sd-toast').textContent"


@pytest.fixture(scope="module")
def web() -> Iterator[Running]:
    with running(max_sessions=2) as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, lion: NDArray[np.uint8]) -> Iterator[Any]:
    with chromium(moving_lion(tmp_path_factory.mktemp("camera"), lion)) as started:
        yield started


@pytest.fixture()
def page(browser: Any, web: Running) -> Iterator[Any]:
    with opened(browser, web) as loaded:
        yield loaded


def test_example_clip_dreams_without_a_camera(page: Any, web: Running, tmp_path: Path) -> None:
    page.evaluate(NO_CAMERA)
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


def test_video_of_the_visitor_is_played_and_not_uploaded(page: Any, web: Running, tmp_path: Path) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    page.set_input_files(".sd-own-file", broken)
    page.wait_for_function("document.querySelector('.sd-text').textContent.includes('cannot play this video')")
    page.set_input_files(".sd-own-file", EXAMPLE_CLIP)
    page.wait_for_selector(LIVE, timeout=20_000)
    shown(page, 3)
    assert not [url for url in sent if "upload" in url]


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


def tracks(path: Path) -> dict[str, int]:
    """Packets of each kind of stream."""
    with av.open(str(path)) as file:
        count: dict[str, int] = {stream.type: 0 for stream in file.streams}
        for packet in file.demux():
            count[packet.stream.type] += packet.size > 0
    return count


@pytest.mark.parametrize("allowed", [True, False])
def test_recording_has_the_sound_of_the_microphone_if_it_is_wanted(page: Any, tmp_path: Path, allowed: bool) -> None:
    if not allowed:
        page.evaluate("""() => {
          const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
          navigator.mediaDevices.getUserMedia = async (wanted) => {
            if (wanted.audio) throw new DOMException("denied", "NotAllowedError");
            return open(wanted);
          };
        }""")
    begin(page)
    page.click("[data-do=sound]")
    page.keyboard.press("r")
    page.wait_for_function("document.querySelector('[data-figure=rec]').textContent.includes('●')")
    if not allowed:
        says(page, "recorded without sound")
    page.wait_for_timeout(1200)
    film = tracks(saved(page, "r", tmp_path))
    assert film["video"] > 5 and (film.get("audio", 0) > 5) is allowed


def test_leaving_is_asked_about_during_a_recording_only(page: Any) -> None:
    begin(page)
    page.keyboard.press("r")
    page.wait_for_function(f"{PAGE}.recorder.isOn")
    with page.expect_event("dialog") as asked:
        page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()
    with page.expect_download():
        page.keyboard.press("r")
    with page.expect_event("close"):  # a question would keep it open
        page.close(run_before_unload=True)


def test_a_snapshot_can_be_given_to_the_dialog_of_the_system(page: Any, tmp_path: Path) -> None:
    page.evaluate("""() => {
      navigator.canShare = ({ files }) => files.length > 0;
      navigator.share = async ({ files: [file] }) => { window.shared = [file.name, file.type, file.size > 1000]; };
    }""")
    begin(page)
    path = saved(page, "s", tmp_path)
    page.click(".sd-toast button")
    assert page.evaluate("window.shared") == [path.name, "image/png", True]


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


def test_connection_on_which_nothing_comes_is_given_up(page: Any, web: Running) -> None:
    begin(page)
    [session] = web.waiting_room.sessions.values()
    page.evaluate(f"{PAGE}.socket.socket.onmessage = () => {{}}")  # as when the network is gone without a word
    says(page, "Connected again.")
    shown(page, 3)
    assert list(web.waiting_room.sessions.values()) == [session]


def test_hint_to_hold_still_comes_once(page: Any, web: Running) -> None:
    begin(page)
    says(page, "Hold still, or press Freeze")
    page.keyboard.press("z")
    page.wait_for_function(f"!{TOAST}")
    load(page, web)
    begin(page)
    page.wait_for_timeout(3500)
    assert not page.evaluate(TOAST)


def test_queue_says_for_how_many_minutes_at_the_latest(page: Any, web: Running) -> None:
    with Client(web) as first, Client(web) as second:
        first.welcome(), second.welcome()
        page.click(".sd-start")
        page.wait_for_selector(".sd[data-state=waiting]")
        assert "You are next. It starts automatically, in 30 minutes at the latest." in page.inner_text(".sd-text")
        for session in web.waiting_room.sessions.values():
            session.started_at -= 1000
        web.waiting_room._send_positions()
        page.wait_for_function("document.querySelector('.sd-text').textContent.includes('in 14 minutes')")
        page.click(".sd-leave")
        page.wait_for_selector(".sd[data-state=idle]")
        until(lambda: not web.waiting_room.queue)
