"""Fetching against a server on this machine that stalls, cuts off, lies and fails."""
from __future__ import annotations

import contextlib
import hashlib
import io
import signal
import socket
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from safetensors.torch import save
from support.unruly_server import Server, running_server

from streamdream import cli, models
from streamdream.cli import signals
from streamdream.errors import ModelError, UsageError
from streamdream.models import Model, WeightSource, download, fetch
from streamdream.models.download import DownloadError, Limits
from streamdream.models.weights.random import random_weights

QUICK = Limits(stall_seconds=1.0, attempts=3)
TABLE = models.get("bvlc_googlenet").nodes()[:8]  # the stem: small files, the same code
WEIGHTS = save(random_weights(TABLE))
DIGEST = "sha256:" + hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture()
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running_server() as state:
        yield state


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def stem(*sources: WeightSource) -> Model:
    """A network of the first layers of GoogLeNet; its last block is what they end with."""
    from streamdream.models.nodes import Concat

    table = [*TABLE, Concat("stem", (TABLE[-1].name,))]
    return replace(models.get("bvlc_googlenet"), name="stem", nodes=lambda: table, sources=sources)


def run(model: Model, limits: Limits = QUICK) -> tuple[Path, list[str], list[tuple[int, int]]]:
    said: list[str] = []
    steps: list[tuple[int, int]] = []
    return fetch.fetch(model, said.append, lambda done, total: steps.append((done, total)), limits), said, steps


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_a_file_is_fetched_checked_and_kept(server: Server, cache: Path) -> None:
    server.files["/w.safetensors"] = WEIGHTS
    path, said, steps = run(stem(WeightSource(f"{server.url}/w.safetensors", DIGEST, len(WEIGHTS))))
    assert path == cache / "stem.safetensors" and path.read_bytes() == WEIGHTS
    assert names(cache) == ["stem.safetensors"]
    assert said == [f"from {server.url}/w.safetensors (0 MB)"]
    assert steps[-1] == (len(WEIGHTS), len(WEIGHTS)) and steps == sorted(steps)
    assert fetch.find("stem") == path


@pytest.mark.parametrize("manner", ["cuts", "cuts, no ranges", "stalls", "changes", "cuts, wrong part"])
def test_a_transfer_that_breaks_off_once_goes_on(manner: str, server: Server, cache: Path) -> None:
    server.files |= {"/w.safetensors": WEIGHTS, "/mirror.safetensors": WEIGHTS}
    server.manners["/w.safetensors"] = manner
    path, _, _ = run(stem(WeightSource(f"{server.url}/w.safetensors", DIGEST),
                          WeightSource(f"{server.url}/mirror.safetensors", DIGEST)))
    assert path.read_bytes() == WEIGHTS and names(cache) == ["stem.safetensors"]
    half = f"bytes={len(WEIGHTS) // 2}-"
    assert server.asked("/w.safetensors") == ["", half]
    # what one mirror began, the next one ends: the digest is the same
    assert server.asked("/mirror.safetensors") == ([half] if "wrong part" in manner else [])


def test_a_second_run_goes_on_where_the_first_was_cut_off(server: Server, cache: Path) -> None:
    server.files["/w.safetensors"] = WEIGHTS
    server.manners["/w.safetensors"] = "always cuts"
    model = stem(WeightSource(f"{server.url}/w.safetensors", DIGEST))
    with pytest.raises(ModelError, match=r"stem could not be fetched: 127.0.0.1 broke off after \d+ of \d+ bytes\. If"):
        run(model)
    (part,) = names(cache)
    kept = (cache / part).stat().st_size
    assert part.endswith(".part") and kept == 60_000 and fetch.find("stem") is None
    server.manners.clear()
    server.requests.clear()
    path, _, _ = run(model)
    assert server.asked("/w.safetensors") == [f"bytes={kept}-"]
    assert path.read_bytes() == WEIGHTS and names(cache) == ["stem.safetensors"]


@pytest.mark.parametrize("content", [WEIGHTS, b"x" * 1000, WEIGHTS + b"more than there is"])
def test_a_part_that_is_whole_or_bad_is_found_out(content: bytes, server: Server, cache: Path) -> None:
    """Whole but not renamed: the machine went down in between. Bad: from a server that lied."""
    server.files["/w.safetensors"] = WEIGHTS
    model = stem(WeightSource(f"{server.url}/w.safetensors", DIGEST))
    server.manners["/w.safetensors"] = "always cuts"
    with pytest.raises(ModelError):
        run(model)
    server.manners.clear()
    (cache / names(cache)[0]).write_bytes(content)
    assert run(model)[0].read_bytes() == WEIGHTS


def test_without_a_digest_nothing_old_is_built_upon(server: Server, cache: Path) -> None:
    server.files["/w.safetensors"] = WEIGHTS
    server.manners["/w.safetensors"] = "always cuts"
    model = stem(WeightSource(f"{server.url}/w.safetensors"))
    with pytest.raises(ModelError):
        run(model)
    server.manners.clear()
    server.requests.clear()
    _, said, _ = run(model)
    assert server.asked("/w.safetensors") == [""]
    assert "no digest of it was published" in said[0]


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
    path, _, _ = run(stem(source))
    assert path == cache / "stem.safetensors" and path.read_bytes() == WEIGHTS
    assert names(cache) == ["stem.safetensors"]
    assert [path.name for path in tmp_path.rglob("*") if "evil" in path.name or "readme" in path.name] == []

    server.files[f"/net.{kind}"] = packed.getvalue()[:-len(packed.getvalue()) // 3]
    with pytest.raises(ModelError, match=r"net\.\S+ (is damaged or truncated|holds no w.safetensors)"):
        run(stem(source))
    with pytest.raises(ModelError, match=r"holds no other\.pb"):
        server.files[f"/net.{kind}"] = packed.getvalue()
        run(stem(replace(source, member="other.pb")))
    assert names(cache) == ["stem.safetensors"]  # the one from before is still there


# --- what goes wrong --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("manner", "reason"), [
    ("404", "answered 404"), ("500", "answered 500"), ("503", "answered 503"), ("html", "a web page instead"),
    ("always cuts", "broke off after"), ("always stalls", "sent nothing for 1 s"),
    ("always stalls, at once", "sent nothing for 1 s"), ("long", ""), ("trickles", "bytes in 1 s"),
    ("to file:///etc/passwd", "is not followed"), ("to ftp://127.0.0.1/w", "is not followed"),
    ("wrong bytes", "not the file that was published: sha256"),
])
def test_the_next_mirror_is_tried(manner: str, reason: str, server: Server, cache: Path) -> None:
    server.files |= {"/bad.safetensors": WEIGHTS, "/good.safetensors": WEIGHTS}
    if manner == "wrong bytes":
        server.files["/bad.safetensors"] = WEIGHTS[:-1] + b"?"
    server.manners["/bad.safetensors"] = manner
    path, said, _ = run(
        stem(
            WeightSource(f"{server.url}/bad.safetensors", DIGEST),
            WeightSource(f"{server.url}/good.safetensors", "sha1:" + hashlib.sha1(WEIGHTS).hexdigest()),
        )
    )
    assert path.read_bytes() == WEIGHTS and names(cache) == ["stem.safetensors"]
    if reason:
        assert len(said) == 3 and said[1].startswith("that failed: ") and reason in said[1]
        assert server.asked("/good.safetensors") == [""]


def test_when_every_source_fails_each_reason_is_named_in_one_line(server: Server, cache: Path) -> None:
    server.manners |= {"/a.pth": "404", "/b.pth": "500"}
    with pytest.raises(ModelError) as caught:
        run(stem(WeightSource(f"{server.url}/a.pth", DIGEST), WeightSource(f"{server.url}/b.pth", DIGEST),
                 WeightSource("ftp://127.0.0.1/c.pth", DIGEST)))
    text = str(caught.value)
    assert "answered 404 Not Found; 127.0.0.1 answered 500" in text and "neither http nor https" in text
    assert "streamdream fetch stem --from FILE" in text and "\n" not in text
    assert names(cache) == []


def test_weights_of_another_network_do_not_stay(server: Server, cache: Path) -> None:
    other = save({"conv1/7x7_s2.weight": random_weights(TABLE)["conv1/7x7_s2.weight"][:, :2].contiguous(),
                  "conv1/7x7_s2.bias": random_weights(TABLE)["conv1/7x7_s2.bias"]})
    server.files["/w.safetensors"] = other
    with pytest.raises(ModelError, match=r"w.safetensors does not fit: conv1/7x7_s2.weight is 64x2x7x7, not 64x3x7x7"):
        run(stem(WeightSource(f"{server.url}/w.safetensors")))
    assert names(cache) == []


def test_without_a_network_the_error_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    line = (r"^bvlc_googlenet could not be fetched: no connection to dl\.caffe\S+, www\S+, github\.com\. "
            r"If you have its file: streamdream fetch bvlc_googlenet --from FILE \(the embedded inception_v3 .*\)$")
    with pytest.raises(ModelError, match=line):
        run(models.get("bvlc_googlenet"))
    assert names(cache) == []
    assert models.get("inception_v3").available() == (True, "embedded")
    assert models.get("inception_v3").load_weights()


def test_a_server_that_announces_too_much_is_not_waited_for(server: Server) -> None:
    server.files["/w.pth"] = WEIGHTS
    with pytest.raises(ModelError, match=rf"wants to send {len(WEIGHTS)} bytes"):
        run(stem(WeightSource(f"{server.url}/w.pth", DIGEST)), replace(QUICK, max_bytes=1000))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"file/weights: Not a directory; STREAMDREAM_CACHE names another folder"):
        run(stem(WeightSource("http://127.0.0.1/w.pth")))


def test_a_full_disk_is_not_the_server_s_fault(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object, chunk: bytes) -> None:
        raise ModelError("stem.part: No space left on device; what has arrived is kept")

    server.files |= {"/a.safetensors": WEIGHTS, "/b.safetensors": WEIGHTS}
    monkeypatch.setattr(download, "_write", full)
    with pytest.raises(ModelError, match="No space left on device"):
        run(
            stem(
                WeightSource(f"{server.url}/a.safetensors", DIGEST), WeightSource(f"{server.url}/b.safetensors", DIGEST)
            )
        )
    assert server.asked("/b.safetensors") == []


def test_two_at_once_do_not_write_into_each_other(server: Server, cache: Path) -> None:
    server.files["/w.safetensors"] = WEIGHTS
    model = stem(WeightSource(f"{server.url}/w.safetensors", DIGEST))
    with fetch._lock(), pytest.raises(ModelError, match="another streamdream is fetching"):
        run(model)
    assert run(model)[0].is_file()


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
    assert run(model)[0].read_bytes() == WEIGHTS


@pytest.mark.parametrize(("kind", "value"), [
    ("sha256", hashlib.sha256(b"abc").hexdigest()), ("sha256", hashlib.sha256(b"abc").hexdigest()[:8]),
    ("sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"), ("md5", "900150983cd24fb0d6963f7d28e17f72"),
    ("git", "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f"),  # printf abc | git hash-object --stdin
])
def test_every_kind_of_digest(kind: str, value: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert fetch.digest_mismatch(tmp_path / "f", f"{kind}:{value}") == ""
    assert f"{kind} {value[:8]}" in fetch.digest_mismatch(tmp_path / "f", f"{kind}:0{value[1:]}")


def test_a_download_takes_only_http_and_https(tmp_path: Path) -> None:
    for url in ("file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "nonsense"):
        with pytest.raises(DownloadError, match="neither http nor https"):
            download.download(url, tmp_path / "part", lambda done, total: None)


def test_a_redirect_never_leaves_https() -> None:
    start = httpx.URL("https://127.0.0.1/w")
    assert download.redirect_target(start, "https://127.0.0.2/w").host == "127.0.0.2"
    assert str(download.redirect_target(start, "/x")) == "https://127.0.0.1/x"
    with pytest.raises(DownloadError, match=r"redirects to http://127\.0\.0\.2/w, which is not followed"):
        download.redirect_target(start, "http://127.0.0.2/w")


def test_a_redirect_is_followed_and_a_circle_of_them_is_not(server: Server, cache: Path) -> None:
    server.files["/w.safetensors"] = WEIGHTS
    server.manners |= {"/old.safetensors": "to /w.safetensors", "/circle.safetensors": "to /circle.safetensors"}
    path, said, _ = run(stem(WeightSource(f"{server.url}/circle.safetensors", DIGEST),
                             WeightSource(f"{server.url}/old.safetensors", DIGEST)))
    assert path.read_bytes() == WEIGHTS and "redirects more than 10 times" in said[1]


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "nonsense://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_is_named(proxy: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ModelError, match="the proxy of the environment cannot be used"):
        run(stem(WeightSource("http://192.0.2.1/w.safetensors", DIGEST)))


# --- a file of the user's ---------------------------------------------------------------------------------------------

def packed_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("LICENSE", "Apache")
        archive.writestr("any.safetensors", WEIGHTS)


@pytest.mark.parametrize(("name", "write"), [
    ("mine.safetensors", lambda path: path.write_bytes(WEIGHTS)), ("mine.zip", packed_zip)])
def test_a_file_is_adopted(name: str, write: Callable[[Path], object], cache: Path, tmp_path: Path) -> None:
    given = tmp_path / name
    write(given)
    before = given.read_bytes()
    path, published = fetch.import_file(stem(WeightSource("http://127.0.0.1/w.safetensors", DIGEST)), given)
    assert path == cache / "stem.safetensors" and path.read_bytes() == WEIGHTS
    assert published == (name == "mine.safetensors")
    assert given.read_bytes() == before and names(cache) == ["stem.safetensors"]


def test_a_file_that_does_not_fit_changes_nothing(cache: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.pth"
    good.write_bytes(WEIGHTS)
    model = stem(WeightSource("http://127.0.0.1/w.pth"))
    fetch.import_file(model, good)
    bad.write_bytes(b"<html>")
    with pytest.raises(ModelError, match=r"^bad.pth is a web page"):
        fetch.import_file(model, bad)
    with pytest.raises(UsageError, match=r"picture.png: weights are read from .safetensors, .caffemodel, "):
        fetch.import_file(model, tmp_path / "picture.png")
    with pytest.raises(ModelError, match=r"none.pth: No such file"):
        fetch.import_file(model, tmp_path / "none.pth")
    with pytest.raises(UsageError, match="inception_v3 is embedded"):
        fetch.import_file(models.get("inception_v3"), good)
    assert names(cache) == ["stem.safetensors"] and (cache / "stem.safetensors").read_bytes() == WEIGHTS


# --- the command ------------------------------------------------------------------------------------------------------

@pytest.fixture()
def row(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a network in the registry whose weights the server has."""
    handler = signal.getsignal(signal.SIGTERM)
    server.files["/w.safetensors"] = WEIGHTS
    model = stem(WeightSource(f"{server.url}/w.safetensors", DIGEST, 1_500_000))
    monkeypatch.setitem(models.MODELS, "stem", replace(model, load_weights=models._fetched_weights("stem")))
    yield "stem"
    signal.signal(signal.SIGTERM, handler)  # the command line sets its own


def test_fetch_shows_licence_and_size_before_it_begins(row: str, server: Server, cache: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["fetch", row]) == 0
    out, err = capsys.readouterr()
    assert out == f"stem: {cache / 'stem.safetensors'}\n"
    assert err.splitlines()[1:3] == ["licence: unrestricted use", f"from {server.url}/w.safetensors (2 MB)"]
    assert cli.run(["fetch", row]) == 0  # it is here
    assert len(server.requests) == 1
    assert cli.run(["fetch", row, "--again"]) == 0
    (cache / "stem.safetensors").write_bytes(b"half")
    assert cli.run(["fetch", row]) == 0  # what is here is broken
    assert len(server.requests) == 3
    assert "damaged or truncated" in capsys.readouterr().err
    assert (cache / "stem.safetensors").read_bytes() == WEIGHTS


def test_fetch_from_a_file(row: str, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = tmp_path / "mine.safetensors"
    given.write_bytes(WEIGHTS)
    assert cli.run(["fetch", row, "--from", str(given)]) == 0
    assert "mine.safetensors fits and is the published file" in capsys.readouterr().err
    given.write_bytes(WEIGHTS[:1000])
    assert cli.run(["fetch", row, "--from", str(given)]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: mine.safetensors is damaged or truncated")
    assert cli.run(["fetch", row, "--from", str(tmp_path)]) == 2


def test_fetch_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["fetch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and any("cars_googlenet" in line and "non-commercial" in line for line in lines)
    assert cli.run(["fetch", "bvlc_googlnet"]) == 2
    assert "did you mean bvlc_googlenet" in capsys.readouterr().err
    assert cli.run(["fetch", "inception_v3"]) == 2
    assert "embedded" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"),
                                                     (signal.SIGTERM, 143, "terminated")])
def test_a_signal_says_that_what_has_come_is_kept(number: signal.Signals, code: int, word: str, row: str,
                                                  monkeypatch: pytest.MonkeyPatch,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*arguments: object) -> None:
        raise signals.SignalReceived(number)

    monkeypatch.setattr(fetch, "fetch", interrupted)
    assert cli.run(["fetch", row]) == code
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {word}; what was downloaded is kept; the same command continues from there")


def test_layers_are_listed_without_weights(capsys: pytest.CaptureFixture[str]) -> None:
    for name in models.MODELS:
        assert cli.run(["layers", name, "--json"]) == 0
    assert '"name": "Mixed_7c", "channels": 2048, "stride": 32' in capsys.readouterr().out
