"""Weights are fetched: whole, resumed, out of an archive, checked by their digest."""
from __future__ import annotations

import contextlib
import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from support.unruly_server import Server
from support.weight_server import DIGEST, IMPATIENT, QUICK, WEIGHTS, file_names, run_fetch, stem

from streamdream.errors import ModelError
from streamdream.models import WeightSource, fetch

pytestmark = pytest.mark.usefixtures("cache")


def test_a_file_is_fetched_checked_and_kept(server: Server, cache: Path) -> None:
    server.files["/w.safetensors"] = WEIGHTS
    path, messages, steps = run_fetch(stem(WeightSource(f"{server.url}/w.safetensors", DIGEST, len(WEIGHTS))))
    assert path == cache / "stem.safetensors" and path.read_bytes() == WEIGHTS
    assert file_names(cache) == ["stem.safetensors"]
    assert messages == [f"from {server.url}/w.safetensors (0 MB)"]
    assert steps[-1] == (len(WEIGHTS), len(WEIGHTS)) and steps == sorted(steps)
    assert fetch.find("stem") == path


@pytest.mark.parametrize("manner", ["cuts", "cuts, no ranges", "stalls", "changes", "cuts, wrong part"])
def test_a_broken_transfer_is_resumed(manner: str, server: Server, cache: Path) -> None:
    server.files |= {"/w.safetensors": WEIGHTS, "/mirror.safetensors": WEIGHTS}
    server.manners["/w.safetensors"] = manner
    path, _, _ = run_fetch(stem(WeightSource(f"{server.url}/w.safetensors", DIGEST),
                                WeightSource(f"{server.url}/mirror.safetensors", DIGEST)),
                           IMPATIENT if manner == "stalls" else QUICK)
    assert path.read_bytes() == WEIGHTS and file_names(cache) == ["stem.safetensors"]
    half = f"bytes={len(WEIGHTS) // 2}-"
    assert server.asked("/w.safetensors") == ["", half]
    # what one mirror began, the next one ends: the digest is the same
    assert server.asked("/mirror.safetensors") == ([half] if "wrong part" in manner else [])


def test_a_second_run_goes_on_where_the_first_was_cut_off(server: Server, cache: Path) -> None:
    server.files["/w.safetensors"] = WEIGHTS
    server.manners["/w.safetensors"] = "always cuts"
    model = stem(WeightSource(f"{server.url}/w.safetensors", DIGEST))
    with pytest.raises(ModelError, match=r"stem could not be fetched: 127.0.0.1 broke off after \d+ of \d+ bytes\. If"):
        run_fetch(model)
    (part,) = file_names(cache)
    kept = (cache / part).stat().st_size
    assert part.endswith(".part") and kept == 60_000 and fetch.find("stem") is None
    server.manners.clear()
    server.requests.clear()
    path, _, _ = run_fetch(model)
    assert server.asked("/w.safetensors") == [f"bytes={kept}-"]
    assert path.read_bytes() == WEIGHTS and file_names(cache) == ["stem.safetensors"]


@pytest.mark.parametrize("content", [WEIGHTS, b"x" * 1000, WEIGHTS + b"more than there is"])
def test_a_complete_or_damaged_part_is_detected(content: bytes, server: Server, cache: Path) -> None:
    """Whole but not renamed: the machine went down in between. Bad: from a server that lied."""
    server.files["/w.safetensors"] = WEIGHTS
    model = stem(WeightSource(f"{server.url}/w.safetensors", DIGEST))
    server.manners["/w.safetensors"] = "always cuts"
    with pytest.raises(ModelError):
        run_fetch(model)
    server.manners.clear()
    (cache / file_names(cache)[0]).write_bytes(content)
    assert run_fetch(model)[0].read_bytes() == WEIGHTS


def test_without_a_digest_no_part_is_resumed(server: Server, cache: Path) -> None:
    server.files["/w.safetensors"] = WEIGHTS
    server.manners["/w.safetensors"] = "always cuts"
    model = stem(WeightSource(f"{server.url}/w.safetensors"))
    with pytest.raises(ModelError):
        run_fetch(model)
    server.manners.clear()
    server.requests.clear()
    _, messages, _ = run_fetch(model)
    assert server.asked("/w.safetensors") == [""]
    assert "no digest of it was published" in messages[0]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_only_the_named_member_of_an_archive_is_taken(kind: str, server: Server, cache: Path, tmp_path: Path) -> None:
    members = {"../../evil.safetensors": b"evil", "net/readme.txt": b"hello", "net/w.safetensors": WEIGHTS}
    packed = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(packed, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
            link = tarfile.TarInfo("w.safetensors")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    server.files[f"/net.{kind}"] = packed.getvalue()
    source = WeightSource(f"{server.url}/net.{kind}", member="w.safetensors")
    path, _, _ = run_fetch(stem(source))
    assert path == cache / "stem.safetensors" and path.read_bytes() == WEIGHTS
    assert file_names(cache) == ["stem.safetensors"]
    assert [path.name for path in tmp_path.rglob("*") if "evil" in path.name or "readme" in path.name] == []

    server.files[f"/net.{kind}"] = packed.getvalue()[:-len(packed.getvalue()) // 3]
    with pytest.raises(ModelError, match=r"net\.\S+ (is damaged or truncated|holds no w.safetensors)"):
        run_fetch(stem(source))
    with pytest.raises(ModelError, match=r"holds no other\.pb"):
        server.files[f"/net.{kind}"] = packed.getvalue()
        run_fetch(stem(replace(source, member="other.pb")))
    assert file_names(cache) == ["stem.safetensors"]  # the one from before is still there


def test_two_fetches_at_once_exclude_each_other(server: Server, cache: Path) -> None:
    server.files["/w.safetensors"] = WEIGHTS
    model = stem(WeightSource(f"{server.url}/w.safetensors", DIGEST))
    with fetch._lock(), pytest.raises(ModelError, match="another streamdream is fetching"):
        run_fetch(model)
    assert run_fetch(model)[0].is_file()


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_an_interrupted_fetch_leaves_no_half_file_under_the_final_name(stop: int, server: Server, cache: Path) -> None:
    server.files["/w.safetensors"] = WEIGHTS
    server.manners["/w.safetensors"] = "always cuts"  # several chunks
    model = stem(WeightSource(f"{server.url}/w.safetensors", DIGEST))
    seen = 0

    def interrupt(done: int, total: int) -> None:
        nonlocal seen
        seen += 1
        if seen == stop:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt, ModelError):
        fetch.fetch(model, lambda line: None, interrupt, QUICK)
    assert fetch.find("stem") is None
    server.manners.clear()
    assert run_fetch(model)[0].read_bytes() == WEIGHTS


@pytest.mark.parametrize(("kind", "value"), [
    ("sha256", hashlib.sha256(b"abc").hexdigest()), ("sha256", hashlib.sha256(b"abc").hexdigest()[:8]),
    ("sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"), ("md5", "900150983cd24fb0d6963f7d28e17f72"),
    ("git", "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f"),  # printf abc | git hash-object --stdin
])
def test_every_kind_of_digest(kind: str, value: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert fetch.digest_mismatch(tmp_path / "f", f"{kind}:{value}") == ""
    assert f"{kind} {value[:8]}" in fetch.digest_mismatch(tmp_path / "f", f"{kind}:0{value[1:]}")
