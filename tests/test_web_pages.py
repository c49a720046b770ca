"""The tabs Video, Picture and Layers in a real Chromium, with a real server and network."""
from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamdream_web
from support.clips import Clip, make
from support.web_jobs import times_and_sound

from streamdream.media import images
from streamdream.media.sample_files import PHOTO, sample_file

pytestmark = [pytest.mark.alone, pytest.mark.browser]

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here")
CHROMIUM = Path("/usr/bin/chromium")
if not CHROMIUM.exists():
    pytest.skip("no chromium here", allow_module_level=True)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]
PATIENCE_MS = 60_000
LION = str(sample_file(PHOTO))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """Its address. Its temporary files are in ``folder/tmp``."""
    (folder / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "STREAMDREAM_CACHE": str(folder / "cache")}
    command = [
        sys.executable,
        "-m",
        "streamdream",
        "web",
        "--port",
        "0",
        "--field-height",
        "64",
        "--backend",
        "eager",
        "--layers",
        "mixed0",
        "--octaves",
        "1",
        "--warmup-steps",
        "1",
        "--upload-mb",
        "5",
        "--upload-seconds",
        "40",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log, env=environment)
    try:
        yield _address(folder / "log", process)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)
    finally:
        process.kill()
    assert not list((folder / "tmp").glob("streamdream-web-*"))


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
            with contextlib.suppress(OSError), urllib.request.urlopen(found[0] + "/healthz", timeout=5):
                return found[0]
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture()
def page(browser: Any, server: str) -> Iterator[Any]:
    """A visitor of their own, at whose end nothing may have gone wrong in the console."""
    context = browser.new_context(accept_downloads=True, viewport={"width": 1280, "height": 900},
                                  reduced_motion="reduce")  # no click meets what still moves
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.wrong = wrong
    opened.goto(server)
    yield opened
    context.close()
    assert not wrong


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def drop(page: Any, where: str, file: str | dict[str, Any]) -> None:
    page.set_input_files(f"{where} input[type=file]", file)


def set_span(page: Any, start: float, end: float) -> None:
    page.wait_for_selector("#video-drop .sw-drop-trim:not([hidden])")
    for handle, value in (("last", end), ("first", start)):
        page.eval_on_selector(f"#video-drop .sw-drop-{handle}", f"(it) => {{ it.value = {value}; "
                                                                "it.dispatchEvent(new Event('input')); }")


def test_video_is_uploaded_previewed_rendered_and_downloaded(page: Any, world: Path, folder: Path) -> None:
    tab(page, "Video")
    drop(page, "#video-drop", str(world))
    set_span(page, 2.0, 3.0)
    page.click("#video-try")
    page.wait_for_function("document.querySelectorAll('#video-preview img').length === 3")
    page.click("#video-start")
    page.wait_for_selector("#video-dreams progress")
    page.wait_for_selector("#video-dreams video.sw-result")
    page.wait_for_function("document.querySelector('#video-dreams video').readyState >= 2")
    with page.expect_download() as download:
        page.click("#video-dreams .sw-save")
    assert download.value.suggested_filename == "world-dream.mp4"
    download.value.save_as(folder / "dream.mp4")
    times, sound = times_and_sound(folder / "dream.mp4")
    assert times == pytest.approx([number / 30 for number in range(30)], abs=1e-3)
    _, original = times_and_sound(world)
    assert len(sound) > 40 and set(sound) <= set(original)


def test_cancel_and_delete_remove_all_files(page: Any, world: Path, folder: Path) -> None:
    tab(page, "Video")
    drop(page, "#video-drop", str(world))
    set_span(page, 0, 30)
    earlier = kept(folder, "videos")
    page.click("#video-start")
    page.wait_for_selector("#video-dreams img.sw-frame:not(.sw-frame-empty)")
    assert kept(folder, "videos") > earlier
    page.click("#video-dreams [data-do=cancel]")
    eventually(lambda: kept(folder, "videos") == earlier, 30)
    set_span(page, 0, 0.2)
    page.click("#video-start")
    page.wait_for_selector("#video-dreams video.sw-result")
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#video-dreams [data-do=delete]")
    eventually(lambda: kept(folder, "videos") == earlier, 30)
    page.wrong[:] = [line for line in page.wrong if "404" not in line]  # a preview that the browser still asked for


def kept(folder: Path, kind: str) -> set[Path]:
    return {path for path in (folder / "tmp").glob(f"streamdream-web-*/{kind}/**/*") if path.is_file()}


def eventually(check: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_file_name_is_shown_as_text_and_a_wrong_file_as_one_line(page: Any, tmp_path: Path) -> None:
    clip = Path(make(tmp_path / "a.mp4", Clip(frames=4))).read_bytes()
    tab(page, "Video")
    name = "<img src=x onerror=window.hacked=1>.mp4"
    drop(page, "#video-drop", {"name": name, "mimeType": "video/mp4", "buffer": clip})
    page.wait_for_selector("#video-drop .sw-drop-trim:not([hidden])")
    assert page.inner_text("#video-drop .sw-drop-name") == name
    page.click("#video-start")
    page.wait_for_selector("#video-dreams video.sw-result")
    assert name in page.inner_text("#video-dreams") and page.evaluate("window.hacked") is None
    page.click("#video-drop .sw-drop-remove")
    drop(page, "#video-drop", {"name": "a.mp4", "mimeType": "video/mp4", "buffer": b"ffconcat version 1.0\n"})
    page.get_by_text("This file is damaged, or not a video.").wait_for()
    drop(page, "#video-drop", {"name": "a.mp4", "mimeType": "video/mp4", "buffer": bytes(5_100_000)})
    page.get_by_text("This file is too large (5.1 MB; the limit is 5 MB).").wait_for()
    page.click("#video-start")
    page.get_by_text("Choose a video first.").wait_for()
    page.wrong[:] = [line for line in page.wrong if "400 (Bad Request)" not in line]  # the refused one


def test_picture_is_dreamed_only_under_the_drawn_mask(page: Any, folder: Path) -> None:
    tab(page, "Picture")
    drop(page, "#picture-drop", LION)
    page.wait_for_selector("#picture-drop .sw-drop-tools:not([hidden])")
    page.wait_for_timeout(200)
    box = page.locator("#picture-drop canvas").bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.8 * box["height"], steps=5)
    page.mouse.up()
    page.click("#picture-start")
    page.get_by_text(re.compile("of 48 steps")).wait_for()  # 12 on each of 4 octaves: the preset "still"
    page.wait_for_selector("#picture-dreams .sw-compare")
    page.fill("#picture-dreams .sw-compare input", "80")
    assert "80%" in page.get_attribute("#picture-dreams .sw-compare", "style")
    with page.expect_download() as download:
        page.click("#picture-dreams .sw-save")
    download.value.save_as(folder / "dream.png")
    dream, lion = images.read_image(str(folder / "dream.png")), images.read_image(LION)
    change = np.abs(dream.astype(int) - lion).mean(axis=(0, 2))
    assert change[40:60].mean() > 3 and np.max(change[150:]) == 0


def test_clicked_layer_is_selected_in_every_tab(page: Any) -> None:
    for name in ("Video", "Picture"):  # a tab is made when it is first looked at
        tab(page, name)
        page.wait_for_timeout(300)
    tab(page, "Layers")
    page.wait_for_function("document.querySelectorAll('#layers-gallery img.sw-loaded').length === 8")  # the blocks
    page.get_by_label("All layers").click()
    page.wait_for_function("document.querySelectorAll('#layers-gallery button').length === 114")
    picture = page.locator("#layers-gallery button[data-layer=conv2d_1] img.sw-loaded")
    picture.wait_for()
    assert picture.evaluate("(it) => it.naturalWidth") == 160
    page.click("#layers-gallery button[data-layer=mixed1]")
    page.get_by_text("All tabs now use mixed1.").wait_for()
    for name in ("Video", "Picture"):
        tab(page, name)
        page.wait_for_function(
            "(name) => document.querySelector(`#tab-${name} input[name=layers]`)?.value === 'mixed1'",
            arg=name.lower())
    tab(page, "Live")
    assert page.input_value("#sd-layers") == "mixed1"
    tab(page, "Layers")
    page.get_by_label("Network").last.click()
    page.get_by_role("option", name="bvlc_googlenet").click()
    page.get_by_text("streamdream fetch bvlc_googlenet").first.wait_for()


def status(url: str, **options: Any) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **options), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_results_need_their_token(server: str) -> None:
    for path in ("/results/x", "/results/..%2f..%2fetc%2fpasswd", "/gradio_api/file=/etc/passwd"):
        assert status(server + path) in (403, 404)
    assert status(server + "/gradio_api/upload", data=b"x", method="POST") == 404


def test_addresses_without_a_version_are_revalidated_and_the_icons_are_not_those_of_gradio(server: str) -> None:
    for path in ("/streamdream/live.js", "/streamdream/app.css"):
        with urllib.request.urlopen(server + path, timeout=10) as answer:
            assert answer.headers["Cache-Control"] == "no-cache"
            unchanged = {"If-None-Match": answer.headers["ETag"]}
        assert status(server + path, headers=unchanged) == 304
    with urllib.request.urlopen(server + "/manifest.json", timeout=10) as answer:
        manifest = json.loads(answer.read())
    icons = [icon["src"] for icon in manifest["icons"]]
    assert manifest["name"] == "streamdream"
    assert {icon["sizes"] for icon in manifest["icons"]} == {"any", "192x192", "512x512"}
    for path in icons:
        assert status(f"{server}/{path}") == 200
    with urllib.request.urlopen(server + "/favicon.ico", timeout=10) as answer:
        assert answer.read() == (Path(streamdream_web.__file__).parent / "assets" / "icon.png").read_bytes()


def test_page_has_a_heading_and_a_description(page: Any) -> None:
    assert page.get_by_role("heading", level=1).inner_text() == "streamdream"
    assert "camera" in page.get_attribute("meta[name=description]", "content")


def test_events_are_in_no_api_listing(server: str) -> None:
    assert status(server + "/gradio_api/info") == 404
    with urllib.request.urlopen(server + "/config", timeout=10) as answer:
        events = json.loads(answer.read())["dependencies"]
    assert len(events) > 10 and {event["api_visibility"] for event in events} == {"private"}
