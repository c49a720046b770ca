"""The live page in a real Chromium while nginx moves it from a server that drains, or is full, to another one."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.browser import CHROMIUM
from support.live_page import HINTED, LIVE, PAGE, begin, shown
from support.live_sockets import cookie
from support.proxies import proxy
from support.waiting import until
from support.web_client import Client, Running, ask, running

pytestmark = [pytest.mark.alone, pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no Chromium here"),
              pytest.mark.filterwarnings("ignore::ResourceWarning")]
WATCH = """() => {
  const root = document.querySelector(".sd"), page = root.page, draw = page.draw.bind(page);
  window.seen = { drawn: 0, plain: 0, states: [], words: [] };
  page.draw = (residual, original) => {
    seen.drawn += 1;
    seen.plain += residual.width === 8;
    draw(residual, original);
  };
  new MutationObserver(() => {
    seen.states.push(root.dataset.state);
    seen.words.push(root.querySelector(".sd-toast").textContent);
  }).observe(root, { subtree: true, childList: true, characterData: true, attributeFilter: ["data-state"] });
}"""
"""Notes what the page shows and says from now on."""


@contextmanager
def replicas(folder: Path, certificate: Path, **flags: Any) -> Iterator[tuple[list[Running], str]]:
    """Two servers, and the address of a proxy before them."""
    with running(**flags) as first, running(**flags) as second:
        webs = {"dream-1:7860": first, "dream-2:7860": second}
        for web in webs.values():
            until(lambda web=web: ask(web, "/readyz")[0] == 200, 60)  # type: ignore[misc]
        ports = {name: web.port for name, web in webs.items()}
        with proxy("nginx", folder, certificate, ports, example="nginx-replicas.conf") as port:
            yield [*webs.values()], f"https://localhost:{port}"


def test_a_dream_moves_to_another_server_and_nothing_is_said(browser: Any, certificate: Path, tmp_path: Path) -> None:
    with replicas(tmp_path, certificate, drain_seconds=1.5) as (webs, url):
        page = browser.new_page(ignore_https_errors=True)
        page.add_init_script(HINTED)
        page.goto(url)
        page.wait_for_function("document.querySelector('.sd')?.page", timeout=60_000)
        begin(page)
        page.evaluate(f"{PAGE}.panel.set({{strength: 0.6}})")
        page.keyboard.press("z")
        [old] = [web for web in webs if web.waiting_room.sessions]
        [new] = [web for web in webs if web is not old]
        [session] = old.waiting_room.sessions.values()
        until(lambda: session.dreams > 6 and session.controls.frozen)
        page.evaluate(WATCH)
        old.server.drain()
        until(lambda: old.app_state.draining)
        shown(page, 10)
        assert not session.stopped and not new.waiting_room.sessions  # it goes on while the server drains
        until(lambda: new.waiting_room.sessions)
        [session] = new.waiting_room.sessions.values()
        until(lambda: session.dreams > 3)
        shown(page, 10)
        seen = page.evaluate("seen")
        assert page.query_selector(LIVE) and set(seen["states"]) <= {"live"} and not any(seen["words"])
        assert seen["drawn"] > 20 and not seen["plain"]  # the last dream stays until there is one of the other server
        assert session.controls.current().strength == 0.6 and session.controls.frozen
        assert page.get_attribute("[data-do=freeze]", "aria-pressed") == "true"
        page.reload()  # by the server that is left
        page.wait_for_function("document.querySelector('.sd')?.page", timeout=60_000)
        page.close()


def test_a_page_that_waits_moves_to_the_server_that_gets_room_and_nothing_is_said(browser: Any, certificate: Path,
                                                                                  tmp_path: Path) -> None:
    flags = {"max_sessions": 1, "shared_folder": str(tmp_path / "shared")}
    with replicas(tmp_path, certificate, **flags) as (webs, url), ExitStack() as others:
        clients = [others.enter_context(Client(web, **cookie(letter))) for letter, web in zip("ab", webs, strict=True)]
        for client in clients:
            client.welcome()
        page = browser.new_page(ignore_https_errors=True)
        page.add_init_script(HINTED)
        page.goto(url)
        page.wait_for_function("document.querySelector('.sd')?.page", timeout=60_000)
        page.click(".sd-start")
        page.wait_for_selector(".sd[data-state=waiting]")
        page.evaluate(WATCH)
        [elsewhere] = [number for number, web in enumerate(webs) if not web.waiting_room.queue]
        clients[elsewhere].close()
        page.wait_for_selector(LIVE, timeout=30_000)
        shown(page, 3)
        assert webs[elsewhere].waiting_room.sessions
        seen = page.evaluate("seen")
        assert set(seen["states"]) <= {"waiting", "opening", "live"} and not any(seen["words"])
        page.close()
