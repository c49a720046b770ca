"""Several servers share a folder: files and logins of one are those of all; and which folders may be shared."""
from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from streamdream_web.auth.revocations import Revocations, now_ms
from streamdream_web.core import kept_folder
from streamdream_web.core.kept_folder import join_folder, lock_folder
from streamdream_web.core.replica import Replica
from streamdream_web.jobs import examples
from streamdream_web.jobs.uploads import Upload, Uploads
from streamdream_web.server import startup
from support.commands import fails, streamdream
from support.waiting import until
from support.web_client import ask, running
from support.web_jobs import ManualClock
from support.web_uploads import LIMITS

from streamdream.errors import UsageError
from streamdream.settings import WebSettings

HOUR = 3600
TOKEN = "a-secret-of-twenty"


def shared(folder: Path, **more: Any) -> Uploads:
    return Uploads(folder / "uploads", LIMITS, keep_seconds=HOUR, keeps=True, is_shared=True, **more)


def give(uploads: Uploads, name: str, visitor: str) -> Upload:
    example = examples.find(name)
    assert example is not None
    return uploads.copy(example.path, example.file_name, example.facts, "", visitor)


def test_a_file_that_one_server_has_received_is_found_by_the_others(tmp_path: Path) -> None:
    first, second = shared(tmp_path), shared(tmp_path)
    cat, dahlia = give(first, "cat", "me"), give(first, "dahlia", "me")
    assert second.find(cat.token, "her") is None and second.find("../" + cat.token, "me") is None
    found = second.find(cat.token, "me")
    assert found is not None and found.path == cat.path
    assert second.claim(dahlia.token, "me").name == "dahlia.jpg"
    second.drop(cat.token)
    assert first.find(cat.token, "me") is None and first.find(dahlia.token, "me")
    with pytest.raises(UsageError, match="choose it again"):
        first.claim(cat.token, "me")


def test_a_file_that_a_visitor_has_claimed_at_one_server_is_theirs_at_all(tmp_path: Path) -> None:
    first, second = shared(tmp_path), shared(tmp_path)
    cat = give(first, "cat", "")
    assert second.find(cat.token, "") is not None
    first.claim(cat.token, "me")
    with pytest.raises(UsageError, match="choose it again"):
        second.claim(cat.token, "her")
    second.sweep()
    assert second.find(cat.token, "me") is not None and cat.path.exists()


def test_a_file_without_a_visitor_is_removed_by_the_server_that_has_received_it(tmp_path: Path) -> None:
    clock, fast = ManualClock(), ManualClock()
    first = shared(tmp_path, clock=clock)
    cat = give(first, "cat", "")
    second = shared(tmp_path, clock=fast)
    fast.seconds += 200
    os.utime(cat.path.with_suffix(".json"), (time.time() - 200,) * 2)
    second.sweep()
    assert cat.path.exists()
    clock.seconds += 200
    first.sweep()
    assert not cat.path.exists()


def test_a_file_is_kept_while_its_visitor_is_seen_by_any_server(tmp_path: Path) -> None:
    clock = ManualClock()
    first = shared(tmp_path, clock=clock)
    cat, dahlia = give(first, "cat", "me"), give(first, "dahlia", "her")
    for upload in (cat, dahlia):
        os.utime(upload.path.with_suffix(".json"), (time.time() - 0.9 * HOUR,) * 2)
    second = shared(tmp_path)
    second.seen("me")
    second.sweep()
    clock.seconds += 1.1 * HOUR
    os.utime(dahlia.path.with_suffix(".json"), (time.time() - 1.1 * HOUR,) * 2)
    first.sweep()
    assert first.find(cat.token, "me") and first.find(dahlia.token, "her") is None


def test_a_file_that_another_server_is_receiving_is_not_removed(tmp_path: Path) -> None:
    first = shared(tmp_path)
    partial, stray = (first.folder / f"{letter * 24}.mp4" for letter in "ab")
    for path in (partial, stray):
        path.write_bytes(b"part")
    os.utime(stray, (time.time() - 2 * HOUR,) * 2)
    shared(tmp_path)
    assert partial.exists() and not stray.exists()


def test_a_logout_and_a_revoked_token_hold_on_all_servers(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"token": f"anna:{TOKEN}", "shared_folder": str(tmp_path / "shared")}
    with running(**settings) as first, running(**settings) as second:
        def login() -> str:
            _, headers, _ = ask(first, f"/?token={TOKEN}")
            return str(headers["Set-Cookie"]).split(";")[0]

        cookie, other = login(), login()
        assert ask(second, "/dreams", cookie=cookie)[0] == ask(first, "/dreams", cookie=cookie)[0] == 200
        ask(first, "/logout", method="POST", cookie=cookie)
        until(lambda: ask(second, "/dreams", cookie=cookie)[0] == 401, 10)
        assert ask(second, "/dreams", cookie=other)[0] == 200
        assert streamdream("web", "--revoke", "anna", "--shared-folder", tmp_path / "shared").returncode == 0
        until(lambda: ask(first, "/dreams", cookie=other)[0] == ask(second, "/dreams", cookie=other)[0] == 401, 10)


def test_a_logout_that_could_not_be_written_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Revocations(tmp_path / "list.json"), Revocations(tmp_path / "list.json")
    with monkeypatch.context() as full:
        full.setattr(Revocations, "_write", lambda self: Path("/nowhere").stat())
        first.end_session("id", "anna", now_ms())
    second.end_sessions("bob")
    first.refresh()
    assert first.is_session_revoked("id", "anna", now_ms()) and first.is_session_revoked("other", "bob", 0)
    first.end_sessions("carol")
    second.refresh()
    assert second.is_session_revoked("id", "anna", now_ms())


def test_revoke_names_a_folder_that_no_server_uses(tmp_path: Path) -> None:
    answer = streamdream("web", "--revoke", "anna", "--shared-folder", tmp_path / "typo")
    fails(answer, 2, "no server uses that folder")
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize(("options", "words"), [
    ({"token": "new"}, "give all the same one"),
    ({"token": "anna:new"}, "give all the same one"),
    ({"token": "anna:new , bob:a-secret-of-twenty"}, "give all the same one"),
    ({"share": True}, "give all the same one"),
    ({"keep_hours": 0.0}, "nothing is kept"),
    ({"keep_folder": "x"}, "give one of them"),
    ({"cluster": "nowhere"}, "such as ray://head:10001"),
])
def test_what_does_not_go_with_a_shared_folder_is_one_error_line(options: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        startup.check(WebSettings(**{"port": 0, "shared_folder": str(tmp_path / "shared"), **options}))


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").touch()
    with pytest.raises(UsageError, match="holds other files"):
        join_folder(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be used"):
        join_folder(tmp_path / "file" / "folder")


def test_one_folder_is_of_one_server_or_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_folder, "START_SECONDS", 0.1)
    lock = lock_folder(tmp_path / "kept")
    with pytest.raises(UsageError, match="stop that one, and start all with --shared-folder"):
        join_folder(tmp_path / "kept")
    lock.release()
    replica = join_folder(tmp_path / "kept")
    with pytest.raises(UsageError, match="is shared by other servers"):
        lock_folder(tmp_path / "kept")
    join_folder(tmp_path / "kept").close()
    replica.close()
    lock_folder(tmp_path / "kept").release()


def test_an_invented_owner_names_no_other_file(tmp_path: Path) -> None:
    join_folder(tmp_path / "shared").close()
    replica = Replica(tmp_path / "shared")
    with replica.taking_over("../../film") as is_gone:
        assert is_gone
    with replica.taking_over(replica.name) as is_gone:
        assert not is_gone
    replica.close()
    assert not list(tmp_path.rglob("film*"))
