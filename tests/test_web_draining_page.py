"""The live page in a real Chromium while nginx moves it from a server that drains to another one."""
from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.broadcast import free_port
from support.browser import CHROMIUM
from support.live_page import HINTED, LIVE, PAGE, begin, shown
from support.waiting import until
from support.web_client import Running, ask, running

pytestmark = [pytest.mark.alone, pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no Chromium here"),
              pytest.mark.skipif(not shutil.which("nginx"), reason="no nginx here"),
              pytest.mark.filterwarnings("ignore::ResourceWarning")]
NGINX = """daemon off; master_process off; pid {folder}/pid; error_log {folder}/log; events {{ }}
http {{
    access_log off; include /etc/nginx/mime.types;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    map $http_upgrade $streamdream_connection {{ default upgrade; "" ""; }}
    upstream streamdream {{
        hash $cookie_streamdream_visitor consistent;
        server 127.0.0.1:{first} max_fails=0;
        server 127.0.0.1:{second} max_fails=0;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://streamdream;
            proxy_next_upstream error timeout http_503;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $streamdream_connection;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_buffering off;
        }}
    }}
}}"""
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
def replicas(folder: Path, seconds: float) -> Iterator[tuple[list[Running], str]]:
    """Two servers that drain for at most ``seconds``, and the address of a proxy before them."""
    port = free_port()
    with running(drain_seconds=seconds) as first, running(drain_seconds=seconds) as second:
        for web in (first, second):
            until(lambda web=web: ask(web, "/readyz")[0] == 200, 60)  # type: ignore[misc]
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, first=first.port, second=second.port))
        with (folder / "output").open("w") as output:
            process = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e",
                                        str(folder / "log")], stdout=output, stderr=output)
        try:
            yield [first, second], f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


def test_a_dream_moves_to_another_server_and_nothing_is_said(browser: Any, tmp_path: Path) -> None:
    with replicas(tmp_path, 1.5) as (webs, url):
        page = browser.new_page()
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
