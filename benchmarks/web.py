"""Measure the live page in Chromium, with a simulated camera whose frames are numbered, against the real server.

Server and browser share the machine. The number on the page's canvas is compared with that of the camera at the same
moment, so a latency is glass to glass, in whole camera frames.
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

import numpy as np
from numpy.typing import NDArray

from streamdream.errors import MissingPackage

from . import Options, Progress, Report, conditions
from .live import BITS, read_clip, write_mjpeg, write_number

RATE = 30
FRAMES = 300
"""Length of the camera's loop: ten seconds."""
DEFAULT_SECONDS = 20.0
SETTLE_SECONDS = 6.0
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--use-fake-ui-for-media-stream",
         "--use-fake-device-for-media-stream")
MAX_DELAY_FRAMES = 90
"""Larger delays count as misread numbers."""
RECORD_SAMPLES = """
(() => {
  const page = document.querySelector(".sd").page, bits = BITS, barPixels = 16, rows = 4, samples = [];
  const strip = document.createElement("canvas");
  strip.width = barPixels * bits; strip.height = rows;
  const pixels = strip.getContext("2d", { willReadFrequently: true });
  const toNumber = (bright) => Array.from({ length: bits }, (_, bit) => bright(bit) << bit).reduce((a, b) => a + b);
  const numberShown = (canvas) => {  // by the mean of each bar, as the dream has bright and dark spots there
    pixels.drawImage(canvas, 0, canvas.height / 80, canvas.width, canvas.height / 16, 0, 0, barPixels * bits, rows);
    const { data } = pixels.getImageData(0, 0, barPixels * bits, rows), sums = Array(bits).fill(0);
    for (let index = 0; index < rows * barPixels * bits; index += 1) {
      sums[Math.floor(index % (barPixels * bits) / barPixels)] += data[4 * index + 1];
    }
    return toNumber((bit) => sums[bit] > 127 * rows * barPixels);
  };
  const numberOfCamera = async (frame) => {  // copies two lines only: drawing it would take as long as the page does
    const rect = { x: 0, y: 2 * Math.floor(frame.codedHeight / 80), width: frame.codedWidth, height: 2 };
    const data = new Uint8Array(frame.allocationSize({ rect }));
    await frame.copyTo(data, { rect });
    return toNumber((bit) => data[Math.floor((bit + .5) * rect.width / bits)] > 127);
  };
  const draw = page.draw.bind(page);
  page.draw = (residual, original) => {
    draw(residual, original);
    const latency = page.figures.latencies.at(-1) ?? 0, at = performance.now(), shown = numberShown(page.canvas);
    numberOfCamera(page.frames.frame).then((current) => {
      samples.push([at, shown, current, latency, page.socket.quality, page.socket.window]);
    });
  };
  window.samples = samples;
})()
""".replace("BITS", str(BITS))


@dataclass(frozen=True)
class Case:
    """Size of the camera, quality of the network, and number of pages."""

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
    """Return a row for each page."""
    from playwright.sync_api import sync_playwright

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        camera = write_camera(folder / "camera.mjpeg", case, options)
        port = stack.enter_context(serving(options))
        if case.rtt_ms or case.up_mbit:
            port = stack.enter_context(slow_line(port, case))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium, headless=True,
                                       args=[*FLAGS, f"--use-file-for-fake-video-capture={camera}"])
        stack.callback(browser.close)
        pages = [open_page(browser, port, case) for _ in range(case.pages)]
        pages[0].wait_for_timeout(1e3 * SETTLE_SECONDS)
        starts = [dream_count(page) for page in pages]
        for page in pages:
            page.evaluate("samples.length = 0")
        pages[0].wait_for_timeout(1e3 * seconds)
        return [{"case": case.name, "size": f"{case.width}x{case.height}", **summarize(page, start)}
                for page, start in zip(pages, starts, strict=True)]


def open_page(browser: Any, port: int, case: Case) -> Any:
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.add_init_script(f"""localStorage.setItem("streamdream-mirror", "false");
        localStorage.setItem("streamdream-lines", '"{720 if case.height >= 720 else 480}"');""")
    page.goto(f"http://127.0.0.1:{port}/", timeout=60_000)
    page.wait_for_function("document.querySelector('.sd')?.page", timeout=60_000)
    page.click(".sd-start")
    page.wait_for_selector(".sd[data-state=live]", timeout=60_000)
    page.evaluate(RECORD_SAMPLES)
    return page


def dream_count(page: Any) -> dict[str, Any]:
    """Return ``{"dreams": number so far, "at": ms}``."""
    count: dict[str, Any] = page.evaluate("({...document.querySelector('.sd').page.figures.dreams})")
    return count


def summarize(page: Any, start: dict[str, Any]) -> dict[str, Any]:
    samples = page.evaluate("samples")
    end, engine = dream_count(page), page.inner_text(".sd-engine")
    delays = [(shown, (current - shown) % FRAMES) for _, shown, current, *_ in samples]
    glass_ms = [1e3 * frames / RATE for shown, frames in delays if shown < FRAMES and frames < MAX_DELAY_FRAMES]
    third = max(1, len(glass_ms) // 3)
    seconds = (samples[-1][0] - samples[0][0]) / 1e3
    dreams = (end["dreams"] - start["dreams"]) / max(1e-3, (end["at"] - start["at"]) / 1e3)
    page_ms = [latency for _, _, _, latency, *_ in samples]
    return {"fps": (len(samples) - 1) / seconds,
            "glass_p50_ms": percentile(glass_ms, 0.5), "glass_p95_ms": percentile(glass_ms, 0.95),
            "page_p50_ms": percentile(page_ms, 0.5), "page_p95_ms": percentile(page_ms, 0.95),
            "grown_ms": percentile(glass_ms[-third:], 0.5) - percentile(glass_ms[:third], 0.5), "dreams_per_s": dreams,
            "window": samples[-1][5], "quality": round(samples[-1][4], 2), "misread": len(samples) - len(glass_ms),
            "engine": engine.partition(" · ")[2]}


def percentile(values: list[float], fraction: float) -> float:
    """Return the nearest-rank percentile; NaN without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] if ordered else float("nan")


def write_camera(path: Path, case: Case, options: Options) -> Path:
    """Write the numbered frames as MJPEG, for Chromium's fake camera."""
    images = read_clip(options, case.width, case.height)

    def numbered() -> Iterator[NDArray[np.uint8]]:
        for number in range(FRAMES):
            image = images[number % len(images)].copy()
            write_number(image, number)
            yield image

    return write_mjpeg(path, numbered())


@contextmanager
def serving(options: Options) -> Iterator[int]:
    """Run the server in its own process."""
    port = free_port()
    command = [sys.executable, "-m", "streamdream", "web", "--port", str(port), "--backend", options.backend,
               "--model", options.model, "--field-height", str(options.field_height),
               "--precision", options.precision, "--min-dream-rate", str(options.min_dream_rate),
               *(("--layers", options.layers) if options.layers else ())]
    with running(command):
        wait_for_server(f"http://127.0.0.1:{port}/healthz")
        yield port


@contextmanager
def slow_line(target: int, case: Case) -> Iterator[int]:
    """Relay to the port ``target`` over a line with the latency and bandwidth of the case."""
    port = free_port()
    with running(relay_command(port, target, case)):
        wait_for_server(f"http://127.0.0.1:{port}/healthz")
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


def wait_for_server(url: str) -> None:
    """Wait until the URL can be opened. Raises OSError after a minute."""
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
