"""One file over HTTP: goes on where a transfer was cut off, gives up on a stalled one, follows http and https only."""
from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from streamdream import __version__
from streamdream.errors import ModelError

CHUNK = 1 << 18
Progress = Callable[[int, int], None]
"""(bytes that are here, bytes in all or 0 where the server does not say)."""


@dataclass(frozen=True)
class Limits:
    """``stall_seconds`` without a byte end a transfer, and so does less than ``least_bytes`` in that time;
    ``attempts`` count the times it may be cut off; ``most_bytes`` is more than any weights have."""

    stall_seconds: float = 20.0
    min_bytes: int = 4096
    attempts: int = 4
    max_bytes: int = 1 << 30


LIMITS = Limits()


class DownloadError(Exception):
    """This source did not give the file; the text says why.

    ``again``: more may come where it broke off; ``unreached`` is the host when there was no connection at all.
    """

    def __init__(self, reason: str, again: bool = False, unreached: str = "") -> None:
        super().__init__(reason)
        self.retryable, self.unreachable_host = again, unreached


def download(url: str, part: Path, progress: Progress, limits: Limits = LIMITS) -> None:
    """The file at ``url`` into ``part``, whose bytes, if it has any, are kept and not asked for again.

    Raises Failed for what the network or the server did, ModelError when ``part`` cannot be written.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{url} is neither http nor https")
    transfer = _Transfer(url, part, progress, limits)
    for attempt in range(1, limits.attempts + 1):
        before = _size(part)
        try:
            transfer.run()
            return
        except DownloadError as error:
            if not error.retryable or attempt == limits.attempts or _size(part) <= before:
                raise


class _Transfer:
    """The requests for one file. It remembers which version of it the server began with, for If-Range."""

    def __init__(self, url: str, part: Path, progress: Progress, limits: Limits) -> None:
        self.url, self.part, self.progress, self.limits = url, part, progress, limits
        self.host = str(urlsplit(url).hostname)
        self.version = ""

    def run(self) -> None:
        """One request, from where ``part`` ends."""
        offset = _size(self.part)
        request = urllib.request.Request(self.url, headers=self._headers(offset))
        try:
            with _opener().open(request, timeout=self.limits.stall_seconds) as response:
                self._receive(response, offset)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 416 or not offset:
                raise DownloadError(f"{self.host} answered {error.code} {error.reason}") from None
            if _whole_size(error.headers.get("Content-Range")) != offset:  # else all of it was here already
                self.part.unlink()
                self.run()
        except urllib.error.URLError as error:
            raise DownloadError(
                f"{self.host} cannot be reached ({_reason(error.reason)})", unreached=self.host
            ) from None
        except TimeoutError:
            raise DownloadError(f"{self.host} sent nothing for {self.limits.stall_seconds:g} s", again=True) from None
        except (http.client.HTTPException, OSError) as error:
            raise DownloadError(f"{self.host} broke off ({_reason(error)})", again=True) from None
        except ValueError as error:  # an address or a number in its answer
            raise DownloadError(f"{self.host} answered what makes no sense ({_reason(error)})") from None

    def _headers(self, offset: int) -> dict[str, str]:
        headers = {"User-Agent": f"streamdream/{__version__}", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if self.version:
                headers["If-Range"] = self.version
        return headers

    def _receive(self, response: Any, offset: int) -> None:
        offset, total = self._place(response, offset)
        tag = response.headers.get("ETag") or ""
        self.version = response.headers.get("Last-Modified") or "" if tag.startswith("W/") or not tag else tag
        if total > self.limits.max_bytes:
            raise DownloadError(f"{self.host} wants to send {total} bytes: those are no weights")
        with _open(self.part, offset) as file:
            done, noted, since = offset, offset, time.monotonic()
            while chunk := response.read1(CHUNK):
                done += len(chunk)
                if done > (total or self.limits.max_bytes):
                    raise DownloadError(f"{self.host} sent more bytes than it had announced")
                _write(file, chunk)
                self.progress(done, total)
                if time.monotonic() - since > self.limits.stall_seconds:
                    if done - noted < self.limits.min_bytes:
                        raise DownloadError(
                            f"{self.host} sent only {done - noted} bytes in {self.limits.stall_seconds:g} s"
                        )
                    noted, since = done, time.monotonic()
        if done < total:
            raise DownloadError(f"{self.host} broke off after {done} of {total} bytes", again=True)

    def _place(self, response: Any, offset: int) -> tuple[int, int]:
        """(where the answer's bytes belong, bytes in all or 0)."""
        if "text/html" in (response.headers.get("Content-Type") or ""):
            raise DownloadError(f"{self.host} answered with a web page instead of the file")
        length = response.headers.get("Content-Length") or ""
        if response.status != 206:
            return 0, int(length) if length.isdecimal() else 0  # no ranges here, or another version: from the start
        content_range = response.headers.get("Content-Range") or ""
        if not re.match(rf"bytes {offset}-", content_range):
            raise DownloadError(f"{self.host} sent another part of the file than was asked for")
        return offset, _whole_size(content_range)


def _whole_size(content_range: str | None) -> int:
    """The number after the slash in ``bytes 0-9/100`` or ``bytes */100``; 0 where there is none."""
    found = re.search(r"/(\d+)$", content_range or "")
    return int(found[1]) if found else 0


def _open(part: Path, offset: int) -> IO[bytes]:
    try:
        file = part.open("r+b" if part.exists() else "wb")
        file.truncate(offset)
        file.seek(offset)
        return file
    except OSError as error:
        raise ModelError(f"{part}: {error.strerror}") from None


def _write(file: IO[bytes], chunk: bytes) -> None:
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:  # a full disk is not the server's fault
        raise ModelError(f"{file.name}: {error.strerror}; what has arrived is kept") from None


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _reason(error: object) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """To http and https only, and never from https to http."""

    def redirect_request(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any,
                         newurl: str) -> urllib.request.Request | None:
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in allowed:
            fp.close()
            raise DownloadError(f"{urlsplit(req.full_url).hostname} redirects to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """urllib's own would open file:, ftp: and data:, too."""
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler(),
                    urllib.request.HTTPDefaultErrorHandler(), _Redirects(), urllib.request.HTTPErrorProcessor(),
                    urllib.request.UnknownHandler()):
        opener.add_handler(handler)
    return opener
