"""The browser app as the tests see it: a real server in a thread, and a client of its live socket."""
from __future__ import annotations

import gc
import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from streamdream_web.core.state import AppState
from streamdream_web.jobs.service import JobService
from streamdream_web.live.browser_io import HEADER
from streamdream_web.live.waiting_room import WaitingRoom
from streamdream_web.server import app as server_app
from streamdream_web.server import startup
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from streamdream.media.opencv import cv2
from streamdream.settings import DreamSettings, LiveSettings, StreamSettings, WebSettings
from support.waiting import until

START = DreamSettings(warmup_steps=0)


@dataclass
class Running:
    app_state: AppState
    waiting_room: WaitingRoom
    port: int
    server: Any
    app: server_app.WebApp

    @property
    def jobs_service(self) -> JobService:
        return self.app.jobs_service

    @property
    def url(self) -> str:
        return f"http{'s' if self.app_state.web.ssl_certfile else ''}://127.0.0.1:{self.port}"


@contextmanager
def building() -> Iterator[None]:
    """Gradio leaves event loops behind when it builds a page; within it they go without a word."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


@contextmanager
def running(start: DreamSettings = START, **web: Any) -> Iterator[Running]:
    """A server on a free port, with the real network on a small field."""
    settings = startup.check(WebSettings(**{"port": 0, **web}))
    app_state = AppState(
        settings, start, StreamSettings(field_height=96, backend="eager"), LiveSettings(fixed_field=True)
    )
    listening = startup.open_port(settings)
    with building():
        app = server_app.create_app(settings, app_state)
    uvicorn = server_app.make_server(settings, app)
    thread = threading.Thread(target=uvicorn.run, args=([listening],), daemon=True)
    thread.start()
    try:
        until(lambda: uvicorn.started)
        yield Running(app_state, app.waiting_room, listening.getsockname()[1], uvicorn, app)
    finally:
        uvicorn.should_exit = True
        thread.join(20)
        listening.close()


def ask(to: Running, path: str, body: bytes | None = None, method: str = "", **headers: Any) -> tuple[int, Any, bytes]:
    """Status, headers and body; redirections are not followed."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(to.url + path, data=body, headers=names, method=method or None)

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *more: Any) -> None:
            return None

    try:
        with urllib.request.build_opener(Stay).open(request, timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def refusal(to: Running, origin: str | None) -> int:
    """The status with which the socket is refused."""
    named: Any = {"origin": origin} if origin else {}
    with pytest.raises(InvalidStatus) as refused, connect(f"ws://127.0.0.1:{to.port}/live", **named):
        pass
    return refused.value.response.status_code


def certificate(folder: Path) -> dict[str, Any]:
    """Of 127.0.0.1, signed by itself: what the web settings call its two files."""
    files = {"ssl_certfile": str(folder / "cert.pem"), "ssl_keyfile": str(folder / "key.pem")}
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-out", files["ssl_certfile"],
                    "-keyout", files["ssl_keyfile"]], check=True, capture_output=True)
    return files


def enlarged(half: NDArray[np.uint8], image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    large: NDArray[np.uint8] = cv2().resize(half, image.shape[1::-1])
    return large


class Client:
    """A page, without a browser."""

    silence_seconds = 20.0
    """After which a connection on which nothing comes is given up."""

    def __init__(self, to: Running, values: dict[str, Any] | None = None, session: str = "", **more: Any) -> None:
        self._open, self._to, self.token = ExitStack(), to, ""
        self.socket: ClientConnection = self._open.enter_context(connect(to.url.replace("http", "ws") + "/live", **{
            "origin": to.url, "compression": None, "max_size": None, "open_timeout": 60, **more}))
        self.words: list[dict[str, Any]] = []
        self.number = 0
        self._pushed: dict[int, NDArray[np.uint8]] = {}
        self.added = np.zeros((1, 1, 3), np.int16)
        """What the last dream added to its picture, in grey levels, on the field."""
        self.say(type="hello", session=session, values=values or {})

    def say(self, **word: Any) -> None:
        self.socket.send(json.dumps(word))

    def welcome(self) -> dict[str, Any]:
        return self.word("welcome")

    def word(self, kind: str) -> dict[str, Any]:
        """The next word of that kind; pictures on the way are left out."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for word in self.words:
                if word["type"] == kind:
                    self.words.remove(word)
                    return word
            self.hear()
        raise AssertionError(f"no {kind}")

    def hear(self, timeout: float = 0.0) -> tuple[int, NDArray[np.uint8]] | None:
        """The next thing; a picture, put together as the page does it, and its number, unless it was a word."""
        message = self.socket.recv(timeout or self.silence_seconds)
        if isinstance(message, str):
            self.words.append(json.loads(message))
            self.token = self.words[-1].get("session", self.token)
            return None
        number, _ = HEADER.unpack_from(message)
        image = self._pushed[number]
        self._pushed = {other: pushed for other, pushed in self._pushed.items() if other >= number}
        halves = cv2().imdecode(np.frombuffer(message[HEADER.size:], np.uint8), cv2().IMREAD_COLOR_RGB)
        more, less = np.split(halves, 2)
        self.added = more.astype(np.int16) - less
        return number, cv2().subtract(cv2().add(image, enlarged(more, image)), enlarged(less, image))

    def push(self, image: NDArray[np.uint8]) -> int:
        self.number += 1
        self._pushed[self.number] = image
        jpeg = cv2().imencode(".jpg", cv2().cvtColor(image, cv2().COLOR_RGB2BGR), [cv2().IMWRITE_JPEG_QUALITY, 95])[1]
        self.socket.send(HEADER.pack(self.number, 0) + jpeg.tobytes())
        return self.number

    def dream(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Up and down once."""
        number = self.push(image)
        while True:
            heard = self.hear()
            if heard is not None and heard[0] >= number:
                return heard[1]

    def settle(self, image: NDArray[np.uint8], dreams: int = 3) -> NDArray[np.uint8]:
        """What is shown once so many dreams more are done."""
        session = self._to.waiting_room.sessions[self.token]
        enough, deadline = session.dreams + dreams, time.monotonic() + 30
        while session.dreams < enough:
            assert time.monotonic() < deadline, f"{session.dreams} of {enough} dreams"
            time.sleep(0.03)
            self.dream(image)
        return self.dream(image)

    def close(self) -> None:
        self._open.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def difference(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Mean distance in grey levels."""
    return float(np.abs(one.astype(np.int16) - other).mean())
