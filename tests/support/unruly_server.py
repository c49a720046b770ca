"""An HTTP server on this machine that stalls, cuts off, lies and fails when it is told to."""
from __future__ import annotations

import contextlib
import http.server
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Server:
    """Gives ``files`` by path. ``manners`` say how; ``requests`` keeps (path, Range) of what was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    manners: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    def asked(self, path: str) -> list[str]:
        return [asked_range for asked_path, asked_range in self.requests if asked_path == path]


class Handler(http.server.BaseHTTPRequestHandler):
    server_state: Server

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        state, path = self.server_state, self.path
        state.requests.append((path, self.headers.get("Range") or ""))
        manner = state.manners.get(path, "")
        first = len(state.asked(path)) == 1
        if manner.isdecimal():
            self.send_error(int(manner))
        elif manner.startswith("to "):
            self.send_response(302)
            self.send_header("Location", manner.removeprefix("to "))
            self.end_headers()
        elif manner == "html":
            self._send(b"<html>sign in</html>", {"Content-Type": "text/html; charset=utf-8"})
        else:
            self._send_file(state.files[path], manner, first)

    def _send_file(self, content: bytes, manner: str, first: bool) -> None:
        offset, total = 0, len(content)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        changed = self.headers.get("If-Range") not in (None, '"v1"')
        headers = {"ETag": '"v2"' if manner == "changes" and not first else '"v1"'}
        if asked and "no ranges" not in manner and not changed and not (manner == "changes" and not first):
            offset = int(asked[1])
            if offset >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.end_headers()
                return
            headers["Content-Range"] = f"bytes {offset}-{total - 1}/{total}"
        rest = content[offset + 5:] + bytes(5) if "wrong part" in manner and offset else content[offset:]
        if "wrong part" in manner and offset:
            headers["Content-Range"] = f"bytes {offset + 5}-{total - 1}/{total}"
        half = len(rest) // 2
        if "always cuts" in manner:
            self._send(rest, headers, stop=min(half, 20_000))
        elif ("cuts" in manner or manner == "changes") and first:
            self._send(rest, headers, stop=half)
        elif "stalls" in manner and (first or "always" in manner):
            self._send(rest, headers, stop=0 if "at once" in manner else half, wait=True)
        elif "trickles" in manner:
            self._send(rest, headers, stop=0)
            with contextlib.suppress(OSError):  # until the client has had enough
                for place in range(2000):
                    self.wfile.write(rest[place:place + 1])
                    self.server_state.release.wait(0.01)
        elif "long" in manner:
            self._send(rest + bytes(100), headers | {"Content-Length": str(len(rest))})
        else:
            self._send(rest, headers)

    def _send(self, content: bytes, headers: dict[str, str], stop: int | None = None, wait: bool = False) -> None:
        self.send_response(206 if "Content-Range" in headers else 200)
        for key, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content if stop is None else content[:stop])
        self.wfile.flush()
        if wait:
            self.server_state.release.wait(20)
        self.close_connection = True


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """The server, at work in a thread."""
    state = Server()
    handler = type("Bound", (Handler,), {"server_state": state})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        state.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield state
        state.release.set()
        running.shutdown()
        thread.join()
