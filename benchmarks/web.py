"""The live page in a real Chromium, before a camera whose frames carry their number, against the real server.

Server and browser share the machine. What is shown is read back from the page's canvas and compared with what the
camera shows at that moment, so a latency is from glass to glass, in whole camera frames.
"""
from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamdream.errors import MissingPackage
from streamdream.media.opencv import cv2

from . import Options, Progress, Report, conditions
from .live import BITS, read_clip, write_number

RATE = 30
FRAMES = 300
"""Of the camera's loop: ten seconds."""
DEFAULT_SECONDS = 20.0
SETTLE_SECONDS = 6.0
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--use-fake-ui-for-media-stream",
         "--use-fake-device-for-media-stream")
NEAR = 90
"""Frames that a picture may be behind before its number counts as misread."""
WATCH = """
(() => {
  const page = document.querySelector(".sd").page, bits = BITS, places = 16, seen = [];
  const strip = document.createElement("canvas");
  strip.width = places * bits; strip.height = 1;
  const pixels = strip.getContext("2d", { willReadFrequently: true });
  const value = (bright) => Array.from({ length: bits }, (_, bit) => bright(bit) << bit).reduce((a, b) => a + b);
  const shown = (canvas) => {
    pixels.drawImage(canvas, 0, canvas.height / 40, canvas.width, canvas.height / 40, 0, 0, places * bits, 1);
    const { data } = pixels.getImageData(0, 0, places * bits, 1);
    return value((bit) => data[4 * places * (bit + .5) + 1] > 127);
  };
  const ahead = async (frame) => {  // of the camera: two lines of it, as drawing it would take as long as the page does
    const rect = { x: 0, y: 2 * Math.floor(frame.codedHeight / 80), width: frame.codedWidth, height: 2 };
    const data = new Uint8Array(frame.allocationSize({ rect }));
    await frame.copyTo(data, { rect });
    return value((bit) => data[Math.floor((bit + .5) * rect.width / bits)] > 127);
  };
  const draw = page.draw.bind(page);
  page.draw = (residual, original) => {
    draw(residual, original);
    const own = page.figures.latencies.at(-1) ?? 0, at = performance.now(), number = shown(page.canvas);
    ahead(page.camera.frame).then((now) => {
      seen.push([at, number, now, own, page.socket.quality, page.socket.window]);
    });
  };
  window.watched = seen;
})()
""".replace("BITS", str(BITS))


@dataclass(frozen=True)
class Case:
    name: str
    width: int
    height: int
    rtt_ms: float = 0.0
    up_mbit: float = 0.0
    pages: int = 1


CASES = (Case("alone", 640, 480), Case("alone", 1280, 720), Case("far", 640, 480, rtt_ms=100),
         Case("narrow", 640, 480, rtt_ms=20, up_mbit=8), Case("four", 640, 480, pages=4))


def run(options: Options, progress: Progress) -> Report:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not chromium or not importlib.util.find_spec("playwright"):
        raise MissingPackage("bench web needs a Chromium and playwright: pip install playwright")
    seconds = options.seconds or DEFAULT_SECONDS
    rows = []
    for case in CASES:
        if options.height and options.height != case.height:
            continue
        progress(f"{case.name}, {case.width}x{case.height}, {seconds:g} s")
        rows += measure(case, options, chromium, seconds)
    return Report("web", conditions(seconds=seconds, rate=RATE, browser=version(chromium)), rows)


def measure(case: Case, options: Options, chromium: str, seconds: float) -> list[dict[str, Any]]:
    """A row for each page."""
    from playwright.sync_api import sync_playwright

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        camera = write_camera(folder / "camera.mjpeg", case, options)
        port = stack.enter_context(serving(options))
        if case.rtt_ms or case.up_mbit:
            port = stack.enter_context(slowly(port, case))
        play = stack.enter_context(sync_playwright())
        browser = play.chromium.launch(executable_path=chromium, headless=True,
                                       args=[*FLAGS, f"--use-file-for-fake-video-capture={camera}"])
        stack.callback(browser.close)
        pages = [open_page(browser, port, case) for _ in range(case.pages)]
        pages[0].wait_for_timeout(1e3 * SETTLE_SECONDS)
        before = [counted(page) for page in pages]
        for page in pages:
            page.evaluate("watched.length = 0")
        pages[0].wait_for_timeout(1e3 * seconds)
        return [{"case": case.name, "size": f"{case.width}x{case.height}", **summarize(page, start)}
                for page, start in zip(pages, before, strict=True)]


def open_page(browser: Any, port: int, case: Case) -> Any:
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.add_init_script(f"""localStorage.setItem("streamdream-mirror", "false");
        localStorage.setItem("streamdream-lines", '"{720 if case.height >= 720 else 480}"');""")
    page.goto(f"http://127.0.0.1:{port}/", timeout=60_000)
    page.wait_for_function("document.querySelector('.sd')?.page", timeout=60_000)
    page.click(".sd-start")
    page.wait_for_selector(".sd[data-state=live]", timeout=60_000)
    page.evaluate(WATCH)
    return page


def counted(page: Any) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate("({...document.querySelector('.sd').page.figures.dreams})")
    return found


def summarize(page: Any, start: dict[str, Any]) -> dict[str, Any]:
    seen = page.evaluate("watched")
    end, engine = counted(page), page.inner_text(".sd-engine")
    behind = [(now - shown) % FRAMES for _, shown, now, *_ in seen]
    good = [(row, frames) for row, frames in zip(seen, behind, strict=True) if row[1] < FRAMES and frames < NEAR]
    glass = [1e3 * frames / RATE for _, frames in good]
    third = max(1, len(glass) // 3)
    span = (seen[-1][0] - seen[0][0]) / 1e3
    dreams = (end["dreams"] - start["dreams"]) / max(1e-3, (end["at"] - start["at"]) / 1e3)
    own = [row[3] for row in seen]
    return {"fps": (len(seen) - 1) / span, "glass_p50_ms": part(glass, 0.5), "glass_p95_ms": part(glass, 0.95),
            "page_p50_ms": part(own, 0.5), "page_p95_ms": part(own, 0.95),
            "grown_ms": part(glass[-third:], 0.5) - part(glass[:third], 0.5), "dreams_per_s": dreams,
            "window": seen[-1][5], "quality": round(seen[-1][4], 2), "misread": len(seen) - len(good),
            "engine": engine.partition(" · ")[2]}


def part(values: list[float], fraction: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] if ordered else float("nan")


def write_camera(path: Path, case: Case, options: Options) -> Path:
    images = read_clip(options, case.width, case.height)
    with path.open("wb") as file:
        for number in range(FRAMES):
            image = images[number % len(images)].copy()
            write_number(image, number)
            file.write(cv2().imencode(".jpg", cv2().cvtColor(image, cv2().COLOR_RGB2BGR),
                                      [cv2().IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return path


@contextmanager
def serving(options: Options) -> Iterator[int]:
    """The real server in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "streamdream", "web", "--port", str(port), "--backend", options.backend,
               "--model", options.model, "--field-height", str(options.field_height),
               "--precision", options.precision, "--min-dream-rate", str(options.min_dream_rate),
               *(("--layers", options.layers) if options.layers else ())]
    with running(command):
        answers(f"http://127.0.0.1:{port}/healthz")
        yield port


@contextmanager
def slowly(target: int, case: Case) -> Iterator[int]:
    port = free_port()
    with running(relay_command(port, target, case)):
        answers(f"http://127.0.0.1:{port}/healthz")
        yield port


def relay_command(port: int, target: int, case: Case) -> list[str]:
    return [sys.executable, "-m", f"{__package__}.slow_line", str(port), str(target), str(case.rtt_ms),
            str(case.up_mbit)]


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def answers(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def version(chromium: str) -> str:
    return subprocess.run([chromium, "--version"], capture_output=True, text=True).stdout.strip().partition(" built")[0]
