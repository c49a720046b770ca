"""Network streams as live sources: they come back after a loss, and meanwhile the last picture is repeated."""
from __future__ import annotations

import logging
import os
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.broadcast import broadcasting, free_port, transport_stream
from support.clips import number_of
from support.source_watcher import Watcher

from streamdream.errors import SourceError, UsageError
from streamdream.media.sources.live import open_live
from streamdream.media.sources.network import PROBE, Address, NetworkReader, PlayoutClock

SIZE = 160, 96


@pytest.fixture(scope="module")
def pieces() -> list[bytes]:
    return transport_stream(90, SIZE)


def test_a_lost_stream_reconnects(pieces: list[bytes], watch: Callable[[Any], Watcher],
                                         caplog: pytest.LogCaptureFixture) -> None:
    """Its last picture is repeated while it is refused, and while an attempt to connect lasts; times go on."""
    caplog.set_level(logging.INFO, "streamdream")
    with broadcasting(pieces) as server:
        source = open_live(server.url)
        watcher = watch(source)
        watcher.wait_for_news()
        server.closed = True
        server.cut()
        watcher.wait_for(lambda: "trying again in 0.5 s" in caplog.text)
        watcher.wait_for_repeats()
        connections = server.connections
        server.stalled, server.closed = True, False
        watcher.wait_for(lambda: server.connections > connections)
        watcher.wait_for_repeats()
        server.stalled = False
        watcher.wait_for_news()
        times = [seconds for _, seconds in watcher.seen]
        assert times == sorted(times) and watcher.error is None
        assert "is back after" in caplog.text and any("was lost once" in text for text in source.warnings)


def test_a_short_stall_keeps_the_connection(watch: Callable[[Any], Watcher]) -> None:
    with broadcasting(transport_stream(250, SIZE)) as server:
        source = open_live(server.url)
        watcher = watch(source)
        watcher.wait_for_news()
        server.stalled = True
        watcher.wait_for_repeats()
        server.stalled = False
        watcher.wait_for_news()
        assert server.connections == 1 and source.warnings == []


def test_a_long_stall_reconnects(watch: Callable[[Any], Watcher], pieces: list[bytes],
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamdream.media.sources.network.SILENT_SECONDS", 0.5)
    with broadcasting(pieces) as server:
        watcher = watch(open_live(server.url))
        watcher.wait_for_news()
        server.stalled = True
        watcher.wait_for(lambda: server.connections > 1)
        server.stalled = False
        watcher.wait_for_news()


def test_damaged_packets_are_counted_and_skipped(pieces: list[bytes], watch: Callable[[Any], Watcher]) -> None:
    port = free_port(socket.SOCK_DGRAM)
    with broadcasting(pieces, port) as server:
        source = open_live(server.url)
        watcher = watch(source)
        watcher.wait_for_news()
        server.damaged = True
        watcher.wait_for(lambda: any("damaged packets" in text for text in source.warnings))
        watcher.wait_for_news()
        server.damaged = False
        watcher.wait_for_news()
        watcher.end()  # while there is something to read
        assert watcher.error is None and not any("lost" in text for text in source.warnings)


def test_packets_before_the_first_key_frame_are_no_damage(tmp_path: Path) -> None:
    """They cannot be decoded: 145 packets were called damaged."""
    pieces = transport_stream(130, SIZE, key_distance=100)
    (tmp_path / "a.ts").write_bytes(b"".join(pieces[8:]))
    reader = NetworkReader(Address("a.ts", str(tmp_path / "a.ts"), option_sets=(PROBE,)), threading.Event())
    assert (number_of(next(iter(reader))), reader.damaged) == (100, 0)
    reader.close()


def test_the_duration_of_a_loss_is_reported_while_it_lasts(pieces: list[bytes], watch: Callable[[Any], Watcher],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """A UDP stream that never came back was lost "for 0.0 s in all", while one attempt to open it took 10 s."""
    monkeypatch.setattr("streamdream.media.sources.network.SILENT_SECONDS", 0.5)
    monkeypatch.setattr("streamdream.media.sources.network.OPEN_SECONDS", 30.0)
    with broadcasting(pieces, free_port(socket.SOCK_DGRAM)) as server:
        source = open_live(server.url)
        watcher = watch(source)
        watcher.wait_for_news()
        server.stalled = True
        watcher.wait_for(lambda: any(re.search(r"was lost once, for ([1-9]|\d\d)\.\d s in all", text)
                                     for text in source.warnings))
        server.stalled = False
        watcher.wait_for_news()


def test_pictures_of_another_size_are_fitted(pieces: list[bytes], watch: Callable[[Any], Watcher]) -> None:
    """In the middle of a stream, and after it was cut. A square picture in a wide one has black bars beside it."""
    with broadcasting(pieces) as server:
        source = open_live(server.url)
        watcher = watch(source)
        watcher.wait_for_news()
        server.pieces = transport_stream(60, (96, 96), first=server.sent)
        watcher.wait_for(lambda: any("changes its size" in text for text in source.warnings))
        server.pieces = transport_stream(60, (320, 192), first=server.sent)
        server.cut()
        watcher.wait_for_news()
        watcher.end()
        assert (source.width, source.height) == SIZE and watcher.shapes == {(96, 160, 3)}


def test_a_source_that_cannot_be_opened_is_an_error_without_another_attempt(caplog: pytest.LogCaptureFixture) -> None:
    for name, words in ((f"tcp://127.0.0.1:{free_port()}", "refused"), ("v4l2:/dev/null", "v4l2:/dev/null"),
                        (f"http://127.0.0.1:{free_port()}/x.m3u8", "refused")):
        with pytest.raises(SourceError, match=words):
            open_live(name)
    assert "trying again" not in caplog.text
    with pytest.raises(UsageError, match="neither a file nor another source: webcam:0"):
        open_live("webcm:0")
    with pytest.raises(UsageError, match="is not on this system"):
        open_live("avfoundation:0" if os.name == "posix" and Path("/proc").exists() else "v4l2:/dev/video0")


def test_a_silent_address_is_an_error_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamdream.media.sources.network.OPEN_SECONDS", 0.5)
    with pytest.raises(SourceError, match=r"nothing came for 0\.5 s"):
        open_live(f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}")


def test_bursts_are_paced_by_their_times() -> None:
    playout, now = PlayoutClock(), 100.0
    assert playout.wait_seconds(5.0, now) == 0
    assert playout.wait_seconds(5.5, now + 0.1) == pytest.approx(0.4)
    assert playout.wait_seconds(6.0, now + 1.2) == 0  # a little late is shown at once, and changes nothing
    assert playout.wait_seconds(6.5, now + 1.2) == pytest.approx(0.3)
    assert playout.wait_seconds(7.0, now + 9) == 0  # much too late: from here on, this is the clock
    assert playout.wait_seconds(7.2, now + 9) == pytest.approx(0.2)
    assert playout.wait_seconds(900.0, now + 9) == 0
