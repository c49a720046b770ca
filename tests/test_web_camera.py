"""A camera that stops, is muted, refuses a size, or is not there: the live page says so and goes on by itself."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.browser import CHROMIUM, chromium
from support.live_page import LIVE, PAGE, begin, moving_lion, opened, says, shown
from support.web_client import Running, running

pytestmark = [pytest.mark.alone, pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no Chromium here"),
              pytest.mark.filterwarnings("ignore::ResourceWarning")]
FAIL = """(asked) => {
  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    if (wanted.video && new Function("video", `return ${asked.when}`)(wanted.video)) {
      throw new DOMException("told to fail", asked.error);
    }
    return open(wanted);
  };
}"""
"""Cameras fail where the condition ``when`` on what is wanted of the video holds."""
TRACK = f"{PAGE}.camera.stream.getVideoTracks()[0]"


@pytest.fixture(scope="module")
def web() -> Iterator[Running]:
    with running(max_sessions=2) as server:
        yield server


@pytest.fixture(scope="module")
def page(web: Running, tmp_path_factory: pytest.TempPathFactory, lion: NDArray[np.uint8]) -> Iterator[Any]:
    with chromium(moving_lion(tmp_path_factory.mktemp("camera"), lion)) as browser, opened(browser, web) as loaded:
        yield loaded


@pytest.fixture(autouse=True)
def stopped(page: Any) -> Iterator[None]:
    """Each test begins with a camera that works, and no dream."""
    page.evaluate("() => { window.original ??= navigator.mediaDevices.getUserMedia; }")
    yield
    page.evaluate("() => { navigator.mediaDevices.getUserMedia = window.original; }")
    page.evaluate(f"{PAGE}.end('')")


def test_every_frame_of_a_camera_is_closed_when_it_is_opened_again_and_again(page: Any) -> None:
    page.evaluate("""() => {
      const { read } = ReadableStreamDefaultReader.prototype, { close } = VideoFrame.prototype;
      window.openFrames = new Set();
      ReadableStreamDefaultReader.prototype.read = async function () {
        const result = await read.call(this);
        if (result.value) openFrames.add(result.value);
        return result;
      };
      VideoFrame.prototype.close = function () { openFrames.delete(this); close.call(this); };
    }""")
    begin(page)
    shown(page, 3)
    page.evaluate(f"""async () => {{
      for (const ms of [0, 40, 80, 120, 160]) {{
        await {PAGE}.camera.open({PAGE}.camera.deviceId, 480);
        await new Promise((resolve) => setTimeout(resolve, ms));
      }}
      {PAGE}.camera.close();
    }}""")
    page.wait_for_function("openFrames.size === 0")


def test_camera_that_ends_is_opened_again(page: Any) -> None:
    begin(page)
    before = page.evaluate(f"{TRACK}.id")
    page.evaluate(f"{TRACK}.dispatchEvent(new Event('ended'))")
    says(page, "The camera is back.")
    assert page.evaluate(f"{TRACK}.id") != before
    shown(page, 3)


@pytest.mark.soak
def test_another_camera_follows_one_that_is_gone(page: Any) -> None:
    begin(page)
    page.evaluate(FAIL, {"when": "video.deviceId", "error": "OverconstrainedError"})
    page.evaluate(f"{PAGE}.camera.deviceId = 'of a camera that is gone'")
    page.evaluate(f"{TRACK}.dispatchEvent(new Event('ended'))")
    says(page, "is used now.")
    shown(page, 3)


@pytest.mark.soak
def test_last_camera_that_ends_is_named_and_the_example_offered(page: Any) -> None:
    begin(page)
    page.evaluate(FAIL, {"when": "true", "error": "NotFoundError"})
    page.evaluate(f"{TRACK}.dispatchEvent(new Event('ended'))")
    page.wait_for_selector(".sd[data-state=idle]")
    assert page.inner_text(".sd-text") == "No camera was found."
    assert page.is_visible(".sd-start") and page.is_visible(".sd-clip")


@pytest.mark.soak
def test_camera_that_sends_nothing_is_opened_once_more(page: Any) -> None:
    page.evaluate(f"""() => {{
      const {{ frames }} = {PAGE}, read = frames.readTrack.bind(frames);
      frames.readTrack = () => {{ frames.readTrack = read; }};
    }}""")
    begin(page)


def test_muted_camera_is_said_until_it_sends_again(page: Any) -> None:
    begin(page)
    page.evaluate(f"Object.defineProperty({TRACK}, 'muted', {{configurable: true, value: true}})")
    page.evaluate(f"{TRACK}.dispatchEvent(new Event('mute'))")
    says(page, "The camera sends no picture")
    page.evaluate(f"Object.defineProperty({TRACK}, 'muted', {{configurable: true, value: false}})")
    page.evaluate(f"{TRACK}.dispatchEvent(new Event('unmute'))")
    page.wait_for_function("!document.querySelector('.sd-toast').textContent.includes('no picture')")
    assert page.get_attribute(".sd", "data-state") == "live"


def test_camera_that_is_plugged_in_can_be_chosen(page: Any) -> None:
    begin(page)
    page.evaluate("""() => {
      const list = navigator.mediaDevices.enumerateDevices.bind(navigator.mediaDevices);
      navigator.mediaDevices.enumerateDevices = async () =>
        [...await list(), { kind: "videoinput", deviceId: "second", label: "Second <b>camera</b>" }];
      navigator.mediaDevices.dispatchEvent(new Event("devicechange"));
    }""")
    says(page, "Second <b>camera</b> is connected")
    assert page.locator("#sd-camera option").count() == 2
    assert page.input_value("#sd-camera") == page.evaluate(f"{PAGE}.camera.deviceId")
    page.select_option("#sd-camera", "second")  # which cannot be opened: it is none
    says(page, "The camera stays as it was.")
    assert page.input_value("#sd-camera") == page.evaluate(f"{PAGE}.camera.deviceId") != "second"
    shown(page, 3)


def test_size_that_the_camera_refuses_goes_back(page: Any) -> None:
    begin(page)
    page.evaluate(FAIL, {"when": "video.height.ideal === 720", "error": "NotReadableError"})
    page.select_option("#sd-camera-height", "720")
    says(page, "Another program is using the camera. The camera stays as it was.")
    assert page.input_value("#sd-camera-height") == "480"
    assert page.get_attribute(".sd", "data-state") == "live"
    shown(page, 3)


def test_denied_camera_leaves_the_example_clip(page: Any) -> None:
    page.evaluate(FAIL, {"when": "true", "error": "NotAllowedError"})
    page.click(".sd-start")
    page.wait_for_function("document.querySelector('.sd-text').textContent.includes('Camera access was denied')")
    begin(page, ".sd-clip")
    assert page.get_attribute(".sd-canvas", "aria-label") == "A video with Deep Dream"
    page.click("[data-do=stop]")
    page.wait_for_selector(".sd[data-state=idle]")
    page.evaluate("() => { navigator.mediaDevices.getUserMedia = window.original; }")
    page.click(".sd-start")
    page.wait_for_selector(LIVE, timeout=20_000)
    shown(page, 3)


def test_example_clip_begins_while_the_browser_still_asks_for_the_camera(page: Any) -> None:
    page.evaluate("() => { navigator.mediaDevices.getUserMedia = () => new Promise(() => {}); }")
    page.click(".sd-start")
    page.wait_for_selector(".sd[data-state=opening]")
    begin(page, ".sd-clip")
