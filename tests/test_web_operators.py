"""What operators see: log lines and metrics of logins, uploads, jobs and live dreams."""
from __future__ import annotations

import html
import io
import json
import logging
import re
import shutil
import socket
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamdream_web.core import assets
from streamdream_web.server import metrics
from streamdream_web.server.logs import JsonFormatter
from support.waiting import until
from support.web_client import Client, Running, ask, refusal, running

from streamdream import __version__

TOKEN = "a-token-for-the-tests"
BEARER: dict[str, Any] = {"Authorization": f"Bearer {TOKEN}"}
LOGGERS = ("streamdream", "streamdream_web")


def png() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(data, "PNG")
    return data.getvalue()


def run_job(web: Running, error: str = "") -> Any:
    def work(job: Any, device_slot: Any) -> None:
        if error:
            raise RuntimeError(error)

    job = web.jobs_service.start(web.jobs_service.stills, "session-hash", "holiday of anna.png", work)
    until(lambda: job.finished)
    return job


def act(web: Running) -> list[str]:
    """Do what visitors do; return the secrets of it, and the names of files."""
    assert ask(web, "/login", b"password=wrong-secret-wrong")[0] == 401
    assert ask(web, "/login", f"password={TOKEN}".encode())[0] == 303
    status, _, body = ask(web, "/uploads?name=holiday%20of%20anna.png", png(), **BEARER)
    assert status == 200
    assert ask(web, "/uploads?name=holiday%20of%20anna.png", b"no picture", **BEARER)[0] == 400
    done, failed = run_job(web), run_job(web, "out of memory")
    with Client(web, additional_headers=BEARER) as client:
        client.welcome()
        for _ in range(3):
            client.dream(np.zeros((96, 128, 3), np.uint8))
        session = client.token
    until(lambda: session not in web.waiting_room.sessions)
    return [TOKEN, "wrong-secret", "anna", "session-hash", json.loads(body)["token"], done.token, failed.token, session]


def test_the_log_has_a_line_of_each_login_upload_job_and_dream_and_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with running(token=TOKEN) as web:
        secrets = act(web)
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records
             if record.name.startswith(LOGGERS)]
    messages = [line["message"] for line in lines]
    for message, number in {"a login failed": 1, "login": 1, "an upload was accepted": 1, "an upload was refused": 1,
                            "a job waits": 2, "a job has ended": 2, "a live session began": 1,
                            "a live session ended": 1}.items():
        assert messages.count(message) == number, (message, messages)
    by_message = {line["message"]: line for line in lines}
    accepted = by_message["an upload was accepted"]
    assert accepted["address"] == "127.0.0.1" and accepted["type"] == ".png" and accepted["bytes"] > 0
    assert by_message["an upload was refused"]["error"]
    assert by_message["a job has ended"]["state"] == "failed" and by_message["a job has ended"]["queue"] == "stills"
    for secret in secrets:
        assert not any(secret in json.dumps(line) for line in lines), secret


def test_metrics_count_uploads_jobs_latency_and_say_what_runs() -> None:
    pytest.importorskip("prometheus_client")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running(token=TOKEN) as web:
        until(lambda: ask(web, "/readyz")[0] == 200)
        end = metrics.serve(port, web.app_state, web.waiting_room, web.jobs_service)
        try:
            act(web)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        finally:
            end()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    expected = {
        'uploads_total{outcome="accepted"}': 1, 'uploads_total{outcome="refused"}': 1,
        'jobs_total{queue="stills",state="done"}': 1, 'jobs_total{queue="stills",state="failed"}': 1,
        'jobs_now{queue="videos",state="running"}': 0, "ready": 1, 'refused_total{reason="wrong tokens"}': 1,
    }
    assert {name: float(values[f"streamdream_{name}"]) for name in expected} == expected
    latencies = [float(value) for name, value in values.items() if "frame_latency_seconds_bucket" in name]
    assert latencies == sorted(latencies) and latencies[-1] == float(values["streamdream_frames_total"]) >= 3
    assert 0 < float(values["streamdream_frame_latency_seconds_sum"]) < 60
    assert float(values['streamdream_job_seconds_count{queue="stills"}']) == 2
    assert float(values["streamdream_rss_megabytes"]) > 50
    assert any(name.startswith("streamdream_build_info{") and f'version="{__version__}"' in name for name in values)


def gathered(port: int, host: str = "127.0.0.1") -> dict[str, float]:
    """The metrics without labels, by name."""
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {line.split()[0].removeprefix("streamdream_"): float(line.split()[1]) for line in lines if line[0] != "#"
            and "{" not in line}


def test_metrics_tell_an_autoscaler_how_full_and_how_busy_the_server_is() -> None:
    pytest.importorskip("prometheus_client")
    host = "127.0.0.2"  # another address of this machine
    with socket.create_server((host, 0)) as free:
        port = free.getsockname()[1]
    with running(max_sessions=4) as web:
        until(lambda: ask(web, "/readyz")[0] == 200)
        end = metrics.serve(port, web.app_state, web.waiting_room, web.jobs_service, host)
        try:
            with pytest.raises(OSError, match="refused"):
                gathered(port)
            before = gathered(port, host)
            with Client(web) as client, web.app_state.device_slot("a long use"):
                client.welcome()
                until(lambda: gathered(port, host)["device_seconds_total"] >= before["device_seconds_total"] + 0.1)
                during = gathered(port, host)
            web.server.drain()
            until(lambda: gathered(port, host)["draining"] == 1)
        finally:
            end()
    names = "sessions", "max_sessions", "sessions_share", "waiting", "draining"
    assert [before[name] for name in names] == [0, 4, 0, 0, 0]
    assert [during[name] for name in names] == [1, 4, 0.25, 0, 0]


# --- what operators choose to show ------------------------------------------------------------------------------------

EVIL = "<script>alert(1)</script> ${alert(2)} {{alert(3)}} `&\\"


def test_the_tabs_that_are_named_are_there_in_their_order_and_routes_of_others_are_not() -> None:
    with running(tabs="layers,live") as web:
        components = json.loads(ask(web, "/config")[2])["components"]
        assert [part["props"]["label"] for part in components if part["type"] == "tabitem"] == ["Layers", "Live"]
        assert ask(web, "/uploads?name=a.png", png())[0] == 404
        assert ask(web, "/layers/inception_v3/1")[0] == ask(web, "/live/facts")[0] == 200
        with Client(web) as client:
            client.welcome()
    with running(tabs="picture") as web:
        assert refusal(web, web.url) in (403, 404)
        assert ask(web, "/uploads?name=a.png", png())[0] == 200


def test_banner_and_terms_are_text_not_code(tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text(EVIL)
    with running(banner=EVIL, terms=str(tmp_path / "terms.txt"), tabs="layers") as web:
        for _ in range(2):
            page = ask(web, "/")[2].decode()
            assert page.count("<script>alert(1)") == 0 and html.unescape(page).count(EVIL) == 2


def test_the_page_is_compressed_and_pictures_are_not(web: Running) -> None:
    _, headers, page = ask(web, "/", Accept_Encoding="gzip")
    assert headers["content-encoding"] == "gzip" and len(page) < len(ask(web, "/")[2]) / 4
    _, headers, sheet = ask(web, "/layers/inception_v3/sheet", Accept_Encoding="gzip")
    assert "content-encoding" not in headers and Image.open(io.BytesIO(sheet)).size[0] == 6 * 160


# --- assets -----------------------------------------------------------------------------------------------------------


def test_browsers_keep_assets_until_they_change(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with running(root_path="/dream") as web:
        config = ask(web, "/config")[2].decode() + ask(web, "/")[2].decode()
        named = set(re.findall(r"streamdream/([0-9a-f]{12}/)?([a-z_]+[.](?:js|css|svg))", config))
        assert {"app.css", "pages.css", "live.js", "frame.js", "icon.svg"} <= {name for _, name in named}
        assert {version for version, _ in named} == {f"{assets.version()}/"}
        for version, name in named:
            for prefix in ("", "/dream"):
                status, headers, body = ask(web, f"{prefix}/streamdream/{version}{name}")
                assert status == 200 and "immutable" in headers["cache-control"] and "max-age=31536000" in headers[
                    "cache-control"]
                if name in assets.BUNDLES:
                    assert re.findall(b"^(import|export) ", body, re.MULTILINE) == [b"export"]
                else:
                    assert body == (assets.ASSETS / name).read_bytes()
        for path in ("live.js", "0123456789ab/live.js"):  # an old page asks for an old version
            status, headers, _ = ask(web, f"/streamdream/{path}")
            assert (status, headers["cache-control"]) == (200, "no-cache")
        for path in (f"{assets.version()}/../../core/assets.py", f"{assets.version()}/none.js", "0123456789ab/"):
            assert ask(web, f"/streamdream/{path}")[0] == 404
    before = assets.version()
    shutil.copytree(assets.ASSETS, tmp_path / "assets")
    monkeypatch.setattr(assets, "ASSETS", tmp_path / "assets")
    assert assets.version.__wrapped__() == before
    with (tmp_path / "assets" / "scale.js").open("a") as file:
        file.write("// newer")
    assert assets.version.__wrapped__() != before
