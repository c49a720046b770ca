"""One file over HTTP: resume where a transfer broke off, give up on a stalled one, follow http and https only."""
from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from streamdream import __version__
from streamdream.errors import ModelError

if TYPE_CHECKING:
    import httpx

SCHEMES = ("http", "https")
MAX_REDIRECTS = 10
Progress = Callable[[int, int], None]
"""(bytes that are here, bytes in all or 0 where the server does not say)."""


@dataclass(frozen=True)
class Limits:
    """Less than ``min_bytes`` within ``stall_seconds`` end a transfer; ``attempts`` count the times it may break off;
    ``max_bytes`` is more than any weights have."""

    stall_seconds: float = 20.0
    min_bytes: int = 4096
    attempts: int = 4
    max_bytes: int = 1 << 30


LIMITS = Limits()


class DownloadError(Exception):
    """This source did not give the file; the text says why.

    ``retryable``: more may come where it broke off; ``unreachable_host`` is the host when there was no connection.
    """

    def __init__(self, reason: str, retryable: bool = False, unreachable_host: str = "") -> None:
        super().__init__(reason)
        self.retryable, self.unreachable_host = retryable, unreachable_host


def download(url: str, part: Path, progress: Progress, limits: Limits = LIMITS) -> None:
    """Write the file at ``url`` into ``part``, whose bytes, if it has any, are kept and not asked for again.

    Raises DownloadError for what the network or the server did, ModelError when ``part`` cannot be written.
    """
    if urlsplit(url).scheme not in SCHEMES:
        raise DownloadError(f"{url} is neither http nor https")
    with _client(limits) as client:
        transfer = _Transfer(client, url, part, progress, limits)
        for attempt in range(1, limits.attempts + 1):
            before = _size(part)
            try:
                transfer.run()
                return
            except DownloadError as error:
                if not error.retryable or attempt == limits.attempts or _size(part) <= before:
                    raise


def _client(limits: Limits) -> httpx.Client:
    """With the system's certificates, and the proxies that the environment names."""
    import httpx

    headers = {"User-Agent": f"streamdream/{__version__}", "Accept-Encoding": "identity", "Accept": "*/*"}
    try:
        return httpx.Client(timeout=limits.stall_seconds, headers=headers, verify=ssl.create_default_context())
    except (ImportError, ValueError) as error:  # of a kind that httpx does not know, or knows with a package more
        raise DownloadError(f"the proxy of the environment cannot be used ({error})") from None


class _Transfer:
    """The requests for one file. It holds the version of it that the server began with, for If-Range."""

    def __init__(self, client: httpx.Client, url: str, part: Path, progress: Progress, limits: Limits) -> None:
        self.client, self.url, self.part, self.progress, self.limits = client, url, part, progress, limits
        self.host = str(urlsplit(url).hostname)
        self.version = ""

    def run(self) -> None:
        """One request, from where ``part`` ends."""
        import httpx

        offset = _size(self.part)
        try:
            with self._open(offset) as response:
                if response.is_success:
                    self._receive(response, offset)
                    return
            if response.status_code != 416 or not offset:
                raise DownloadError(f"{self.host} answered {response.status_code} {response.reason_phrase}")
            if _total_size(response.headers.get("Content-Range")) != offset:  # else all of it was here already
                self.part.unlink()
                self.run()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise DownloadError(f"{self.host} cannot be reached ({_reason(error)})",
                                unreachable_host=self.host) from None
        except httpx.TimeoutException:
            reason = f"{self.host} sent nothing for {self.limits.stall_seconds:g} s"
            raise DownloadError(reason, retryable=True) from None
        except httpx.TransportError as error:
            raise DownloadError(f"{self.host} broke off ({_reason(error)})", retryable=True) from None
        except (httpx.InvalidURL, ValueError) as error:  # an address or a number in its answer
            raise DownloadError(f"{self.host} answered what makes no sense ({_reason(error)})") from None

    @contextmanager
    def _open(self, offset: int) -> Iterator[httpx.Response]:
        """The answer to a request for all from ``offset`` on, behind its redirects."""
        import httpx

        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and self.version:
            headers["If-Range"] = self.version
        url = httpx.URL(self.url)
        for _ in range(MAX_REDIRECTS):
            with self.client.stream("GET", url, headers=headers) as response:
                if not response.has_redirect_location:
                    yield response
                    return
                url = redirect_target(url, response.headers["Location"])
        raise DownloadError(f"{self.host} redirects more than {MAX_REDIRECTS} times")

    def _receive(self, response: httpx.Response, offset: int) -> None:
        import httpx

        offset, total = self._range(response, offset)
        tag = response.headers.get("ETag", "")
        self.version = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
        if total > self.limits.max_bytes:
            raise DownloadError(f"{self.host} wants to send {total} bytes: those are no weights")
        done = offset
        with _open_part(self.part, offset) as file:
            checked, checked_seconds = offset, time.monotonic()
            try:
                for chunk in response.iter_raw():
                    done += len(chunk)
                    if done > (total or self.limits.max_bytes):
                        raise DownloadError(f"{self.host} sent more bytes than it had announced")
                    _write(file, chunk)
                    self.progress(done, total)
                    if time.monotonic() - checked_seconds > self.limits.stall_seconds:
                        if done - checked < self.limits.min_bytes:
                            raise DownloadError(
                                f"{self.host} sent only {done - checked} bytes in {self.limits.stall_seconds:g} s")
                        checked, checked_seconds = done, time.monotonic()
            except httpx.RemoteProtocolError:  # the connection was closed too early
                if not total:
                    raise
        if done < total:
            raise DownloadError(f"{self.host} broke off after {done} of {total} bytes", retryable=True)

    def _range(self, response: httpx.Response, offset: int) -> tuple[int, int]:
        """(where the answer's bytes belong, bytes in all or 0)."""
        if "text/html" in response.headers.get("Content-Type", ""):
            raise DownloadError(f"{self.host} answered with a web page instead of the file")
        length = response.headers.get("Content-Length", "")
        if response.status_code != 206:
            return 0, int(length) if length.isdecimal() else 0  # no ranges here, or another version: from the start
        content_range = response.headers.get("Content-Range", "")
        if not content_range.startswith(f"bytes {offset}-"):
            raise DownloadError(f"{self.host} sent another part of the file than was asked for")
        return offset, _total_size(content_range)


def redirect_target(url: httpx.URL, location: str) -> httpx.URL:
    """Where a redirect leads: to http and https only, and never from https to http. Raises DownloadError, or
    ValueError for what is no address.
    """
    urlsplit(location)  # httpx takes http://[
    target = url.join(location)
    if target.scheme not in SCHEMES or (url.scheme, target.scheme) == ("https", "http"):
        raise DownloadError(f"{url.host} redirects to {target}, which is not followed")
    return target


def _total_size(content_range: str | None) -> int:
    """The number after the slash in ``bytes 0-9/100`` or ``bytes */100``; 0 where there is none."""
    match = re.search(r"/(\d+)$", content_range or "")
    return int(match[1]) if match else 0


def _open_part(part: Path, offset: int) -> IO[bytes]:
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


def _reason(error: Exception) -> str:
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
