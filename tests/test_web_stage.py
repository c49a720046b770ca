"""The stage of the live page in rarer cases: what is denied, lost, paused, shared, or a file of the visitor."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import CHROMIUM
from support.live_page import LIVE, PAGE, begin, load, opened, packets, saved, says, shown
from support.web_client import Running, running

from streamdream.media.sample_files import EXAMPLE_CLIP

pytestmark = [pytest.mark.soak, pytest.mark.alone, pytest.mark.browser,
              pytest.mark.skipif(not CHROMIUM, reason="no Chromium here"),
              pytest.mark.filterwarnings("ignore::ResourceWarning")]
TOAST = "document.querySelector('.sd-toast').textContent"


@pytest.fixture(scope="module")
def web() -> Iterator[Running]:
    with running(max_sessions=2) as server:
        yield server


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


def test_recording_without_the_microphone_goes_on_without_sound(page: Any, tmp_path: Path) -> None:
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
    says(page, "recorded without sound")
    page.wait_for_timeout(1200)
    assert set(packets(saved(page, "r", tmp_path))) == {"video"}


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
    assert "Hold still" not in page.evaluate(TOAST)


def test_dream_that_was_paused_goes_on_with_the_first_frame(browser: Any) -> None:
    """The server ends one that sends nothing; a page that was hidden, or a camera that was muted, comes back."""
    with running(idle_seconds=2) as web, opened(browser, web) as page:
        begin(page)
        page.evaluate("Object.defineProperty(document, 'hidden', {get: () => window.gone}); gone = true")
        page.wait_for_selector(".sd[data-state=idle-out]")
        assert page.inner_text(".sd-text").startswith("Paused")
        page.evaluate("gone = false")
        page.wait_for_selector(LIVE, timeout=20_000)
        shown(page, 3)
