"""The examples for nginx and Caddy in docs/proxies, run: TLS and a sub-path before a real server, with Chromium."""
from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from streamdream_web.core import limits
from streamdream_web.server.logs import JsonFormatter
from support.broadcast import free_port
from support.browser import CHROMIUM, is_error
from support.proxies import proxy
from support.web_client import Running, running

from streamdream.media.sample_files import PHOTO, sample_file

pytestmark = [pytest.mark.alone, pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")]
LIMIT, VISITORS = 8, 65
PATIENCE_MS = 20_000


@pytest.fixture(scope="module")
def web() -> Iterator[Running]:
    with running(root_path="/dream", connections_per_address=LIMIT) as server:
        yield server


@contextmanager
def opened(browser: Any, port: int) -> Iterator[Any]:
    """The page through the proxy; a console error fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, ignore_https_errors=True)
    page, problems = context.new_page(), []
    page.set_default_timeout(PATIENCE_MS)
    page.on("console", lambda message: problems.append(message.text) if is_error(message) else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"https://localhost:{port}/dream/")
    page.wait_for_function("document.querySelector('.sd')?.page")
    page.problems = problems
    yield page
    context.close()


def visit(port: int, number: int, held: ExitStack) -> str:
    """Open a live socket from the address 127.0.1.number, which is no proxy, and return the status of the answer."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", port), 30, source_address=(f"127.0.1.{number}", 0))
    visitor = held.enter_context(trusting.wrap_socket(plain, server_hostname="localhost"))
    visitor.sendall(f"GET /dream/live HTTP/1.1\r\nHost: localhost:{port}\r\nOrigin: https://localhost:{port}\r\n"
                    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
    return visitor.recv(4096).decode().split()[1]


@pytest.mark.parametrize("kind", ["nginx", pytest.param("caddy", marks=pytest.mark.soak)])
def test_all_tabs_work_and_each_visitor_has_an_address_of_its_own(
    kind: str, web: Running, browser: Any, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy(kind, tmp_path, certificate, web.port) as port:
        with opened(browser, port) as page:
            page.click(".sd-start")
            page.wait_for_function("document.querySelector('.sd').dataset.state === 'live'")
            page.get_by_role("tab", name="Picture", exact=True).click()
            page.locator("#picture-drop input[type=file]").set_input_files(str(sample_file(PHOTO)))
            page.wait_for_function("document.querySelector('#picture-drop .sw-drop-bar').hidden")
            page.get_by_role("tab", name="Video", exact=True).click()
            page.locator("#video-start").wait_for()
            page.get_by_role("tab", name="Layers", exact=True).click()
            page.wait_for_function("document.querySelector('#layers-gallery img')?.naturalWidth > 1")
            assert page.problems == []
        monkeypatch.setattr(limits, "REQUEST_WAIT_SECONDS", 0.2)
        with ExitStack() as held:
            assert {visit(port, number, held) for number in range(1, VISITORS + 1)} == {"101"}
            assert "429" in {visit(port, 99, held) for _ in range(LIMIT + 1)}


def problem_of_upload(page: Any, folder: Path) -> str:
    """What the page says about the upload of 2 MB, with its status."""
    large = folder / "large.png"
    large.write_bytes(sample_file(PHOTO).read_bytes() + bytes(2_000_000))
    page.locator("#picture-drop input[type=file]").set_input_files(str(large))
    page.wait_for_function("/[(][0-9]{3}[)]/.test(document.querySelector('#picture-drop').innerText)")
    return str(page.locator("#picture-drop").inner_text())


def test_what_a_proxy_does_wrong_is_said_on_the_page_and_in_the_log(
    web: Running, browser: Any, certificate: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    port = free_port()
    with ExitStack() as ended:
        with proxy("nginx", tmp_path, certificate, web.port, port, client_max_body_size="100k"):
            page = ended.enter_context(opened(browser, port))
            page.get_by_role("tab", name="Picture", exact=True).click()
            assert "too large for the way to this server (413)" in problem_of_upload(page, tmp_path)
        with proxy("nginx", tmp_path, certificate, web.port, port, **{"proxy_set_header Host": ""}):
            assert "(403)" in problem_of_upload(page, tmp_path)
            lines = [JsonFormatter().format(record) for record in caplog.records if "Origin" in record.getMessage()]
            assert f"Origin https://localhost:{port} is not Host 127.0.0.1:{web.port}" in lines[0]
            assert "--hosts" in lines[0]
            page.get_by_role("tab", name="Live", exact=True).click()
            page.click(".sd-start")
            page.wait_for_function("document.querySelector('.sd').innerText.includes('WebSocket')")
        with proxy("nginx", tmp_path, certificate, free_port(), port):
            page.click(".sd-start")
            page.wait_for_function("document.querySelector('.sd').innerText.includes('(502)')")
            page.get_by_role("tab", name="Picture", exact=True).click()
            page.click("#picture-start")
            page.wait_for_function("document.querySelector('.toast-body')?.innerText.includes('(502)')")


@pytest.mark.soak
def test_a_live_dream_and_an_idle_page_outlast_a_proxy_that_waits_10_seconds(
    web: Running, browser: Any, certificate: Path, tmp_path: Path
) -> None:
    with proxy("nginx", tmp_path, certificate, web.port, proxy_read_timeout="10s") as port, (
            opened(browser, port)) as page:
        page.click(".sd-start")
        page.wait_for_function("document.querySelector('.sd').dataset.state === 'live'")
        page.click("[data-do=freeze]")
        page.wait_for_timeout(25_000)
        assert page.evaluate("document.querySelector('.sd').dataset.state") == "live"
        assert page.problems == []
