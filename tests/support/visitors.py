"""Visitors of a live page behind a proxy: they come back when their connection is lost, as the page does."""
from __future__ import annotations

import ssl
import threading
import time
from contextlib import suppress
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.exceptions import WebSocketException

from support.waiting import until
from support.web_client import Client

SILENCE_SECONDS = 8.0
"""As of the page."""
RATE = 8.0
"""Frames per second of each."""
TRUSTING = ssl.create_default_context()
TRUSTING.check_hostname, TRUSTING.verify_mode = False, ssl.CERT_NONE


class Visitor:
    """Dreams with settings of their own until ``leave``."""

    def __init__(self, url: str, number: int, image: NDArray[np.uint8]) -> None:
        self.values = {"strength": round(0.2 + 0.05 * number, 2)}
        self.cookie = f"streamdream_visitor={number:032d}"
        self.dreamed_at: list[float] = []
        """Times of frames in which something is dreamed, in seconds."""
        self.sessions: list[str] = []
        """Tokens of the sessions that they had, each once."""
        self.losses: list[str] = []
        """Why each connection was lost."""
        self.confirmed: dict[str, Any] = {}
        """The settings that the server of the newest connection has."""
        self._to: Any = SimpleNamespace(url=url)
        self._image = image
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._leaving.is_set():
            try:
                self._dream()
            except (WebSocketException, OSError, AssertionError) as error:
                self.losses.append(f"{type(error).__name__}: {error}")
                self._leaving.wait(0.05)

    def _dream(self) -> None:
        session = self.sessions[-1] if self.sessions else ""
        with Client(self._to, self.values, session, ssl=TRUSTING,
                    additional_headers={"Cookie": self.cookie}) as client:
            client.silence_seconds = SILENCE_SECONDS
            self.confirmed = client.welcome()["values"]
            if client.token not in self.sessions:
                self.sessions.append(client.token)
            while not self._leaving.wait(1 / RATE):
                client.dream(self._image)
                if client.added.any():
                    self.dreamed_at.append(time.monotonic())
            with suppress(WebSocketException):
                client.say(type="bye")

    def gap_seconds(self, since: float) -> float:
        """The longest time without a dream that ended after ``since``."""
        times = [each for each in self.dreamed_at if each >= since]
        before = [each for each in self.dreamed_at if each < since][-1:]
        return max(later - earlier for earlier, later in pairwise([*before, *times]))

    def dreams_again(self, since: float, seconds: float = 30.0) -> None:
        """Wait for two more dreams after ``since``."""
        until(lambda: sum(each > since for each in self.dreamed_at) >= 2, seconds, about=lambda: self.losses[-3:])

    def leave(self) -> None:
        self._leaving.set()
        self._thread.join(20)
