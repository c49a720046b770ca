"""A server of one live MPEG-TS stream, at its own pace, that stalls, cuts and damages it when it is told to."""
from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from support.clips import marked

RATE = 30


def transport_stream(frames: int, size: tuple[int, int], first: int = 0, key_distance: int = 1) -> list[bytes]:
    """MPEG-TS, a piece for each picture, from which ``clips.number_of`` reads its number."""
    pieces, buffer = [], io.BytesIO()
    with av.open(buffer, "w", format="mpegts", options={"flush_packets": "1"}) as output:
        stream = output.add_stream("libx264", rate=RATE, options={
            "tune": "zerolatency", "preset": "ultrafast", "g": str(key_distance), "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            picture = av.VideoFrame.from_ndarray(marked((first + number) % 256, size), "rgb24")
            picture.pts, picture.time_base = first + number, Fraction(1, RATE)
            output.mux(stream.encode(picture))
            pieces.append(buffer.getvalue())
            buffer.seek(0)
            buffer.truncate()
        output.mux(stream.encode(None))
    pieces[-1] += buffer.getvalue()
    return pieces


def damage(piece: bytes, noise: np.random.Generator) -> bytes:
    """Noise in place of what the packets carry; their own headers are whole, so that it reaches the decoder."""
    packets = np.frombuffer(piece, np.uint8).reshape(-1, 188).copy()
    packets[2:, 4:] = noise.integers(0, 256, (len(packets[2:]), 184), np.uint8)
    packets[1:2, 60:] = noise.integers(0, 256, (len(packets[1:2]), 128), np.uint8)
    return packets.tobytes()


class Broadcast:
    """Sends ``pieces`` again and again, 30 a second, to whoever connects; ``udp`` to a port instead.

    ``stalled``: sends nothing. ``damaged``: sends noise in place of every second picture. ``closed``: refuses.
    """

    def __init__(self, pieces: list[bytes], udp_port: int = 0) -> None:
        self.pieces, self._udp_port = pieces, udp_port
        self.stalled = self.damaged = self.closed = False
        self.sent = self.connections = 0
        self._over = threading.Event()
        self._clients: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.02)
        self.port = udp_port or self._listener.getsockname()[1]
        self.url = f"udp://127.0.0.1:{udp_port}" if udp_port else f"tcp://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def cut(self) -> None:
        """Every connection is broken off."""
        clients, self._clients = self._clients, []
        for client in clients:
            client.close()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self.cut()
        self._listener.close()

    def _work(self) -> None:
        due = time.monotonic()
        noise = np.random.default_rng(0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            while not self._over.wait(max(0.0, due - time.monotonic())):
                due += 1 / RATE
                self._accept()
                if self.stalled:
                    continue
                piece = self.pieces[self.sent % len(self.pieces)]
                self.sent += 1
                if self.damaged and self.sent % 2:
                    piece = damage(piece, noise)
                for start in range(0, len(piece), 1316) if self._udp_port else ():
                    udp.sendto(piece[start: start + 1316], ("127.0.0.1", self._udp_port))
                for client in list(self._clients):
                    try:
                        client.sendall(piece)
                    except OSError:
                        client.close()
                        self._clients = [other for other in self._clients if other is not client]

    def _accept(self) -> None:
        self._listener.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            client = self._listener.accept()[0]
            if self.closed:
                client.close()
                return
            client.settimeout(1)
            self.connections += 1
            self._clients.append(client)


@contextlib.contextmanager
def broadcasting(pieces: list[bytes], udp_port: int = 0) -> Iterator[Broadcast]:
    running = Broadcast(pieces, udp_port)
    try:
        yield running
    finally:
        running.close()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
