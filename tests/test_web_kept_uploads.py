"""Files in a folder that is kept: the next server knows them, and nothing else that lies there."""
from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from streamdream_web.jobs import examples
from streamdream_web.jobs.uploads import Upload, Uploads
from support.web_uploads import LIMITS, clip, send

HOUR = 3600


def kept(folder: Path, **more: Any) -> Uploads:
    return Uploads(folder / "uploads", LIMITS, keep_seconds=HOUR, keeps=True, **more)


def give(uploads: Uploads, name: str, visitor: str, address: str = "") -> Upload:
    """A visitor takes that example, which needs no inspection."""
    example = examples.find(name)
    assert example is not None
    return uploads.copy(example.path, example.file_name, example.facts, address, visitor)


def rest(folder: Path) -> set[str]:
    return {path.name for path in (folder / "uploads").iterdir()}


def test_the_next_server_has_the_files_of_visitors(tmp_path: Path) -> None:
    before = kept(tmp_path)
    mine = send(before, clip(tmp_path), "holiday.mp4", visitor="me")
    hers = give(before, "cat", "her")
    unclaimed = before.claim(give(before, "dahlia", "").token, "me")
    before.close()
    after = kept(tmp_path)
    found = after.find(mine.token, "me")
    assert found is not None and (found.name, found.facts, found.size_bytes) == ("holiday.mp4", mine.facts,
                                                                                 mine.size_bytes)
    with found.open() as source:
        assert len(list(source)) == mine.facts.frames
    assert after.find(hers.token, "her") and after.find(unclaimed.token, "me") and not after.find(hers.token, "me")
    after.drop(mine.token)
    assert rest(tmp_path) == {f"{upload.token}{suffix}" for upload in (hers, unclaimed) for suffix in (".jpg", ".json")}


def damage(record: Path, **values: Any) -> None:
    record.write_text(json.dumps({**json.loads(record.read_text()), **values}))


@pytest.mark.parametrize("case", [
    "a damaged record", "a record with another suffix", "a record of another size", "a link as the file",
    "a link as the record", "a huge record", "a record without a file", "a file without a record"])
def test_what_is_no_file_of_ours_is_removed(tmp_path: Path, case: str) -> None:
    before = kept(tmp_path)
    mine = give(before, "cat", "me")
    record, secret = mine.path.with_suffix(".json"), tmp_path / "secret.jpg"
    secret.write_bytes(mine.path.read_bytes())
    match case:
        case "a damaged record":
            record.write_bytes(record.read_bytes()[:-5])
        case "a record with another suffix":
            damage(record, facts={**json.loads(record.read_text())["facts"], "suffix": "/../../secret.jpg"})
        case "a record of another size":
            damage(record, size_bytes=7)
        case "a link as the file":
            mine.path.unlink()
            mine.path.symlink_to(secret)
        case "a link as the record":
            record.rename(tmp_path / "record.json")
            record.symlink_to(tmp_path / "record.json")
        case "a huge record":
            damage(record, more="x" * 200_000)
        case "a record without a file":
            mine.path.unlink()
        case "a file without a record":
            record.unlink()
    after = kept(tmp_path)
    assert after.find(mine.token, "me") is None and not rest(tmp_path) and secret.exists()


def test_a_part_of_a_file_is_not_taken_for_the_file(tmp_path: Path) -> None:
    """What a server that was killed had received so far."""
    before = kept(tmp_path)
    (before.folder / f"{'x' * 24}.mp4").write_bytes(b"half of it")
    (before.folder / f"{'x' * 24}.json.new").write_bytes(b"{")
    kept(tmp_path)
    assert not rest(tmp_path)


def test_files_expire_also_while_no_server_runs(tmp_path: Path) -> None:
    before = kept(tmp_path)
    gone, here = give(before, "cat", "gone"), give(before, "dahlia", "here")
    before.close()
    for upload, seconds in ((gone, HOUR + 60), (here, HOUR - 60)):
        then = time.time() - seconds
        os.utime(upload.path.with_suffix(".json"), (then, then))
    after = kept(tmp_path)
    assert after.find(here.token, "here") and not after.find(gone.token, "gone")
    assert rest(tmp_path) == {here.path.name, here.path.with_suffix(".json").name}


def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    before = kept(tmp_path)
    names = ("cat", "dahlia", "pavilion")
    files = [give(before, name, "me", f"203.0.113.{number}") for number, name in enumerate(names)]
    before.close()
    after = kept(tmp_path, max_bytes=files[1].size_bytes + files[2].size_bytes)
    assert [after.find(upload.token, "me") is not None for upload in files].count(True) == 2
