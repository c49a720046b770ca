"""What can go wrong with a fetch: servers, redirects, proxies, disks. The next mirror or one error line follows."""
from __future__ import annotations

import hashlib
import socket
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from safetensors.torch import save
from support.unruly_server import Server
from support.weight_server import DIGEST, IMPATIENT, QUICK, TABLE, WEIGHTS, file_names, run_fetch, stem

from streamdream import models
from streamdream.errors import ModelError
from streamdream.models import WeightSource, download
from streamdream.models.download import DownloadError
from streamdream.models.weights.random import random_weights

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.parametrize(("manner", "reason"), [
    ("404", "answered 404"), ("500", "answered 500"), ("503", "answered 503"), ("html", "a web page instead"),
    ("always cuts", "broke off after"), ("always stalls", "sent nothing for 0.3 s"),
    ("always stalls, at once", "sent nothing for 0.3 s"), ("long", ""), ("trickles", "bytes in 0.3 s"),
    ("to file:///etc/passwd", "is not followed"), ("to ftp://127.0.0.1/w", "is not followed"),
    ("wrong bytes", "not the file that was published: sha256"),
])
def test_the_next_mirror_is_tried(manner: str, reason: str, server: Server, cache: Path) -> None:
    server.files |= {"/bad.safetensors": WEIGHTS, "/good.safetensors": WEIGHTS}
    if manner == "wrong bytes":
        server.files["/bad.safetensors"] = WEIGHTS[:-1] + b"?"
    server.manners["/bad.safetensors"] = manner
    sources = (WeightSource(f"{server.url}/bad.safetensors", DIGEST),
               WeightSource(f"{server.url}/good.safetensors", "sha1:" + hashlib.sha1(WEIGHTS).hexdigest()))
    path, messages, _ = run_fetch(stem(*sources), IMPATIENT if "0.3 s" in reason else QUICK)
    assert path.read_bytes() == WEIGHTS and file_names(cache) == ["stem.safetensors"]
    if reason:
        assert len(messages) == 3 and messages[1].startswith("that failed: ") and reason in messages[1]
        assert server.asked("/good.safetensors") == [""]


def test_when_every_source_fails_each_reason_is_named_in_one_line(server: Server, cache: Path) -> None:
    server.manners |= {"/a.pth": "404", "/b.pth": "500"}
    with pytest.raises(ModelError) as caught:
        run_fetch(stem(WeightSource(f"{server.url}/a.pth", DIGEST), WeightSource(f"{server.url}/b.pth", DIGEST),
                       WeightSource("ftp://127.0.0.1/c.pth", DIGEST)))
    text = str(caught.value)
    assert "answered 404 Not Found; 127.0.0.1 answered 500" in text and "neither http nor https" in text
    assert "streamdream fetch stem --from FILE" in text and "\n" not in text
    assert file_names(cache) == []


def test_weights_of_another_network_do_not_stay(server: Server, cache: Path) -> None:
    other = save({"conv1/7x7_s2.weight": random_weights(TABLE)["conv1/7x7_s2.weight"][:, :2].contiguous(),
                  "conv1/7x7_s2.bias": random_weights(TABLE)["conv1/7x7_s2.bias"]})
    server.files["/w.safetensors"] = other
    with pytest.raises(ModelError, match=r"w.safetensors does not fit: conv1/7x7_s2.weight is 64x2x7x7, not 64x3x7x7"):
        run_fetch(stem(WeightSource(f"{server.url}/w.safetensors")))
    assert file_names(cache) == []


def test_without_a_network_the_error_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    line = (r"^bvlc_googlenet could not be fetched: no connection to dl\.caffe\S+, www\S+, github\.com\. "
            r"If you have its file: streamdream fetch bvlc_googlenet --from FILE \(the embedded inception_v3 .*\)$")
    with pytest.raises(ModelError, match=line):
        run_fetch(models.get("bvlc_googlenet"))
    assert file_names(cache) == []
    assert models.get("inception_v3").available() == (True, "embedded")
    assert models.get("inception_v3").load_weights()


def test_a_file_that_is_announced_as_too_large_is_refused(server: Server) -> None:
    server.files["/w.pth"] = WEIGHTS
    with pytest.raises(ModelError, match=rf"wants to send {len(WEIGHTS)} bytes"):
        run_fetch(stem(WeightSource(f"{server.url}/w.pth", DIGEST)), replace(QUICK, max_bytes=1000))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"file/weights: Not a directory; STREAMDREAM_CACHE names another folder"):
        run_fetch(stem(WeightSource("http://127.0.0.1/w.pth")))


def test_a_full_disk_tries_no_other_mirror(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object, chunk: bytes) -> None:
        raise ModelError("stem.part: No space left on device; what has arrived is kept")

    server.files |= {"/a.safetensors": WEIGHTS, "/b.safetensors": WEIGHTS}
    monkeypatch.setattr(download, "_write", full)
    with pytest.raises(ModelError, match="No space left on device"):
        run_fetch(stem(*(WeightSource(f"{server.url}/{name}.safetensors", DIGEST) for name in "ab")))
    assert server.asked("/b.safetensors") == []


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
    path, messages, _ = run_fetch(stem(WeightSource(f"{server.url}/circle.safetensors", DIGEST),
                                       WeightSource(f"{server.url}/old.safetensors", DIGEST)))
    assert path.read_bytes() == WEIGHTS and "redirects more than 10 times" in messages[1]


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "nonsense://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_is_named(proxy: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ModelError, match="the proxy of the environment cannot be used"):
        run_fetch(stem(WeightSource("http://192.0.2.1/w.safetensors", DIGEST)))
