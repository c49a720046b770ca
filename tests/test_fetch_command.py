"""``streamdream fetch``, and weights from a file of the user's."""
from __future__ import annotations

import signal
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.unruly_server import Server
from support.weight_server import DIGEST, WEIGHTS, file_names, stem

from streamdream import cli, models
from streamdream.cli import signals
from streamdream.errors import ModelError, UsageError
from streamdream.models import WeightSource, fetch, registry

pytestmark = pytest.mark.usefixtures("cache")


def packed_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("LICENSE", "Apache")
        archive.writestr("any.safetensors", WEIGHTS)


@pytest.mark.parametrize(("name", "write"), [
    ("mine.safetensors", lambda path: path.write_bytes(WEIGHTS)), ("mine.zip", packed_zip)])
def test_a_file_is_imported(name: str, write: Callable[[Path], object], cache: Path, tmp_path: Path) -> None:
    given = tmp_path / name
    write(given)
    before = given.read_bytes()
    path, published = fetch.import_file(stem(WeightSource("http://127.0.0.1/w.safetensors", DIGEST)), given)
    assert path == cache / "stem.safetensors" and path.read_bytes() == WEIGHTS
    assert published == (name == "mine.safetensors")
    assert given.read_bytes() == before and file_names(cache) == ["stem.safetensors"]


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
    assert file_names(cache) == ["stem.safetensors"] and (cache / "stem.safetensors").read_bytes() == WEIGHTS


@pytest.fixture()
def row(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a network in the registry whose weights the server has."""
    handler = signal.getsignal(signal.SIGTERM)
    server.files["/w.safetensors"] = WEIGHTS
    model = stem(WeightSource(f"{server.url}/w.safetensors", DIGEST, 1_500_000))
    monkeypatch.setitem(models.MODELS, "stem", replace(model, load_weights=registry.fetched_weights("stem")))
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
