"""Logins of the browser app: how they wait, what is remembered of them, and how they end."""
from __future__ import annotations

import asyncio
import json
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from stat import S_IMODE
from typing import Any

import pytest
from streamdream_web.auth import authentication, login_queue, passwords, revocations
from streamdream_web.core import limits
from streamdream_web.server import startup
from support.commands import fails, here
from support.waiting import until
from support.web_client import Client, Running, ask, refusal, running
from websockets.exceptions import ConnectionClosed

from streamdream.errors import UsageError
from streamdream.settings import WebSettings

ANNA, BOB, PASSWORD = "token-of-anna-for-tests", "token-of-bob-for-tests", "correct horse"


@pytest.fixture(scope="module")
def web() -> Iterator[Running]:
    with running(token=f"anna:{ANNA},bob:{BOB}", auth="carl:" + passwords.hash_password(PASSWORD)) as running_server:
        yield running_server


@pytest.fixture()
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that were checked."""
    made: list[str] = []
    matches = passwords.verify_password

    def count(password: str, kept: str) -> bool:
        made.append(password)
        return bool(matches(password, kept))

    monkeypatch.setattr(passwords, "verify_password", count)
    return made


def run_async(work: Any) -> Any:
    """In a thread: the main thread's event loop is one that Gradio has left there."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def log_in(web: Running, token: str = ANNA) -> str:
    """A cookie."""
    status, headers, _ = ask(web, f"/?token={token}")
    assert status == 303
    cookie = str(headers["set-cookie"])
    return cookie.partition(";")[0]


def may_in(web: Running, **headers: Any) -> bool:
    status, _, _ = ask(web, "/config", **headers)
    assert status in (200, 401)
    return bool(status == 200)


# --- guessing ---------------------------------------------------------------------------------------------------------

def test_a_correct_login_is_not_delayed_by_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 addresses that have guessed wrong before; a new one waits for the check that runs, and for no other."""
    monkeypatch.setattr(limits, "LOGIN_PAUSE_SECONDS", 0.0)

    async def automation() -> tuple[list[str], int]:
        queue, checked = login_queue.LoginQueue(), []

        def check(address: str, right: bool) -> bool:
            checked.append(address)
            time.sleep(0.005)
            return right

        async def guess(address: str, times: int) -> None:
            for _ in range(times):
                try:
                    await queue.check(address, lambda: check(address, False))
                except login_queue.TooManyLogins:
                    await asyncio.sleep(0.01)

        for number in range(60):
            await guess(f"guesser {number}", 1)
        guessing = asyncio.gather(*(guess(f"guesser {number}", 20) for number in range(60)), return_exceptions=True)
        await asyncio.sleep(0.05)
        before = len(checked)
        assert await queue.check("visitor", lambda: check("visitor", True))
        guessing.cancel()
        await asyncio.wait([guessing])
        return checked, before

    checked, before = run_async(automation())
    assert checked.index("visitor") - before <= 2


def test_parallel_guesses_are_refused_and_delay_nobody(web: Running) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(12) as pool:
        guesses = [pool.submit(ask, web, "/config", Authorization=basic("carl", f"wrong {number}"),
                               X_Forwarded_For="203.0.113.9") for number in range(12)]
        time.sleep(0.3)
        right = ask(web, "/config", Authorization=basic("carl", PASSWORD), X_Forwarded_For="203.0.113.7")[0]
        took = time.monotonic() - began
        statuses = Counter(guess.result()[0] for guess in guesses)
    assert right == 200 and took < 10  # one after the other they would take 13 s
    assert statuses[429] >= 12 - limits.MAX_LOGINS_PER_ADDRESS - 1 and set(statuses) == {429, 401}


def test_a_password_that_comes_with_each_request_is_checked_once(web: Running, checks: list[str]) -> None:
    for _ in range(5):
        assert may_in(web, Authorization=basic("carl", PASSWORD + ""))
    assert len(checks) <= 1
    assert not may_in(web, Authorization=basic("carl", PASSWORD + "!"))
    assert PASSWORD not in repr(vars(authentication.Authentication))


def test_a_remembered_password_is_checked_again_later(web: Running, checks: list[str],
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "REMEMBER_SECONDS", 0.0)
    header = basic("carl", PASSWORD) + " "  # another key
    assert may_in(web, Authorization=header) and may_in(web, Authorization=header)


def test_no_password_is_checked_where_there_are_no_users(checks: list[str]) -> None:
    async def identify() -> object:
        made = authentication.Authentication(ANNA, "", revocations.Revocations(Path("/nonexistent/x")), Counter())
        return await made.identify([(b"authorization", basic("anna", "x").encode())], "")

    assert run_async(identify()) is None and not checks


def test_a_cookie_or_token_counts_beside_the_login_of_a_proxy(web: Running, checks: list[str]) -> None:
    foreign = basic("of-the-proxy", "secret")
    assert may_in(web, Authorization=foreign, Cookie="other=1; " + log_in(web))
    assert may_in(web, Authorization=foreign, Cookie="streamdream=stale; " + log_in(web))
    assert ask(web, f"/?token={ANNA}", Authorization=foreign)[0] == 303
    with Client(web, additional_headers=[("Authorization", foreign), ("Authorization", f"Bearer {BOB}")]) as client:
        client.welcome()
    assert not checks


# --- links ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("path", "to"), [
    ("/?token=T&__theme=dark&a=1", "/?__theme=dark&a=1"), ("/%5Cevil.com?token=T", "/%5Cevil.com"),
    ("//evil.com?token=T", "/evil.com"), ("/%2Fevil.com?token=T", "/evil.com"), ("/a%20b?x&token=T", "/a%20b?x="),
    ("/%3Fx?token=T", "/%3Fx"), ("/%E2%80%A8?token=T", "/%E2%80%A8"), ("/https:evil.com?token=T", "/https:evil.com")])
def test_the_link_leads_to_no_other_host(web: Running, path: str, to: str) -> None:
    status, headers, _ = ask(web, path.replace("=T", "=" + ANNA))
    assert (status, headers["location"]) == (303, to)


@pytest.mark.parametrize("path", ["/%0d%0aX?token=T", "/%09/evil.com?token=T", "/%00?token=T"])
def test_a_link_with_control_characters_leads_nowhere(web: Running, path: str) -> None:
    status, headers, _ = ask(web, path.replace("=T", "=" + ANNA))
    assert status == 404 and "location" not in headers and "content-security-policy" in headers


def test_the_login_form_works_from_every_path_and_behind_a_prefix(web: Running) -> None:
    for prefix, action in (("", b'action="/login"'), ("/dream", b'action="/dream/login"'),
                           ('"><script>', b'action="/login"'), ("//evil.com", b'action="/login"')):
        status, _, body = ask(web, "/results/TOKEN", Accept="text/html", X_Forwarded_Prefix=prefix)
        assert status == 401 and action in body
    _, headers, _ = ask(web, f"/?token={ANNA}", X_Forwarded_Prefix="/dream")
    assert headers["location"] == "/dream/" and "Path=/dream;" in headers["set-cookie"]


# --- the end of a login -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("method", ["GET", "POST"])
def test_logout_ends_this_session_and_no_other(web: Running, method: str) -> None:
    mine, other = log_in(web), log_in(web)
    status, headers, _ = ask(web, "/logout", method=method, Cookie=mine)
    assert (status, headers["location"]) == (303, "/") and "Max-Age=0" in headers["set-cookie"]
    assert not may_in(web, Cookie=mine) and may_in(web, Cookie=other)


def test_another_page_logs_nobody_out(web: Running) -> None:
    mine = log_in(web)
    ask(web, "/logout", Cookie=mine, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")
    assert ask(web, "/logout", method="POST", Cookie=mine, Origin="https://evil.example")[0] == 403
    assert may_in(web, Cookie=mine)


def test_logout_closes_what_the_session_has_open(web: Running) -> None:
    mine = log_in(web)
    with Client(web, additional_headers={"Cookie": mine}) as client:
        client.welcome()
        ask(web, "/logout", method="POST", Cookie=mine)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                client.hear()
        assert closed.value.rcvd and closed.value.rcvd.code == 1008


def test_logout_everywhere_ends_all_sessions_of_that_name_only(web: Running) -> None:
    first, second, of_bob = log_in(web), log_in(web), log_in(web, BOB)
    assert ask(web, "/logout?all=1", method="POST", Cookie=first)[0] == 303
    assert not may_in(web, Cookie=first) and not may_in(web, Cookie=second) and may_in(web, Cookie=of_bob)
    assert may_in(web, Cookie=log_in(web))


def test_the_page_offers_to_log_out_where_there_is_a_login(web: Running) -> None:
    assert "Log out" in json.dumps(json.loads(ask(web, "/config", Cookie=log_in(web))[2]))


def test_revoke_ends_the_sessions_of_one_visitor(web: Running, capsys: pytest.CaptureFixture[str]) -> None:
    of_anna, of_bob = log_in(web), log_in(web, BOB)
    with Client(web, additional_headers={"Cookie": of_bob}) as client:
        client.welcome()
        assert here(capsys, "web", "--revoke", "bob").returncode == 0
        with pytest.raises(ConnectionClosed):
            while True:
                client.hear()
    assert not may_in(web, Cookie=of_bob) and not may_in(web, Authorization=f"Bearer {BOB}")
    assert ask(web, f"/?token={BOB}")[0] == 401
    assert may_in(web, Cookie=of_anna) and refusal(web, web.url) == 401


def test_everybody_has_to_log_in_again(web: Running, capsys: pytest.CaptureFixture[str]) -> None:
    mine = log_in(web)
    assert here(capsys, "web", "--revoke", "all").returncode == 0
    until(lambda: not may_in(web, Cookie=mine))
    assert may_in(web, Cookie=log_in(web))


def sessions_of(path: Path, token: str) -> authentication.Authentication:
    """What a server that starts now knows."""
    return authentication.Authentication(token, "", revocations.Revocations(path), Counter())


def cookie(session: authentication.LoginSession) -> list[tuple[bytes, bytes]]:
    return [(b"cookie", f"streamdream={session.cookie}".encode())]


def test_a_restart_keeps_sessions_and_forgets_no_logout(tmp_path: Path) -> None:
    path, tokens = tmp_path / "web" / "revocations.json", f"anna:{ANNA},bob:{BOB}"
    before = sessions_of(path, tokens)
    account, other = before.find_token(ANNA), before.find_token(BOB)
    assert account and other
    ended, kept, of_bob = (before.begin_session(who) for who in (account, account, other))
    before.end_session(ended)
    after = sessions_of(path, tokens)
    assert after.find_session(cookie(ended)) is None and after.find_session(cookie(kept)) == kept
    changed = sessions_of(path, f"anna:{ANNA}-new,bob:{BOB}")
    assert changed.find_session(cookie(kept)) is None and changed.find_session(cookie(of_bob)) == of_bob
    assert S_IMODE(path.stat().st_mode) == 0o600 and ANNA not in path.read_text()


def test_a_revoked_visitor_needs_another_secret(tmp_path: Path) -> None:
    path = tmp_path / "revocations.json"
    sessions_of(path, f"bob:{BOB}")
    revocations.Revocations(path).revoke("bob")
    time.sleep(0.002)
    assert sessions_of(path, f"bob:{BOB}").find_token(BOB) is None
    assert sessions_of(path, f"bob:{BOB}-new").find_token(BOB + "-new")


def test_the_file_of_revocations_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "revocations.json"
    held = revocations.Revocations(path)
    for number in range(revocations.MAX_SESSIONS_PER_NAME + 50):
        held.end_session(f"session {number}", "anna", revocations.now_ms())
    assert path.stat().st_size < 30_000
    assert held.is_session_revoked("session 0", "anna", revocations.now_ms() - 60_000)


def test_two_processes_lose_no_logout(tmp_path: Path) -> None:
    path = tmp_path / "revocations.json"
    held = [revocations.Revocations(path) for _ in range(4)]
    threads = [threading.Thread(target=lambda one=one, number=number: [
        one.end_session(f"{number} {count}", "anna", revocations.now_ms() + 10_000) for count in range(20)])
        for number, one in enumerate(held)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(path.read_text())["sessions"]) == 80


def test_without_a_folder_a_logout_counts_until_the_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "web").write_text("in the way")
    path = tmp_path / "web" / "revocations.json"
    made = sessions_of(path, ANNA)
    account = made.find_token(ANNA)
    assert account
    session = made.begin_session(account)
    made.end_session(session)
    assert made.find_session(cookie(session)) is None
    with pytest.raises(UsageError, match="cannot be written"):
        revocations.Revocations(path, keep_in_memory=False).revoke("anna")


@pytest.mark.parametrize(("settings", "words"), [
    ({"token": "anna:short"}, "16"), ({"token": f"anna:{ANNA},{BOB}"}, "name:secret"),
    ({"token": f"anna:{ANNA},anna:{BOB}"}, "name:secret"), ({"token": f"all:{ANNA}"}, "all"),
    ({"token": f"anna:{ANNA}", "auth": "anna:" + passwords.DUMMY_HASH}, "both name anna"),
    ({"trusted_proxies": "proxy.example"}, "--trusted-proxies"),
    ({"auth": "anna:scrypt.².AA.AA"}, "--hash"),
])
def test_settings_of_logins_that_cannot_be_meant_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        startup.check(WebSettings(**settings))


def test_each_token_has_its_link(tmp_path: Path) -> None:
    settings = startup.check(WebSettings(port=0, token="anna:new,bob:new"))
    with startup.open_port(settings) as listening:
        links = startup.links(settings, listening)
    assert [link.split(" ", 1)[1] for link in links] == ["(for anna)", "(for bob)"]
    assert len({link.split(" ")[0] for link in links}) == 2


def test_revoke_without_a_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path / "file"))
    fails(here(capsys, "web", "--revoke", "anna"), 2, "cannot be written")
