"""How the server starts and stops: what is checked first, how it is told to stop, and what it leaves behind."""
from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from streamdream_web.core.dream_health import DreamHealth
from streamdream_web.core.scheduler import FairScheduler
from streamdream_web.core.state import AppState
from streamdream_web.server import startup
from support.waiting import until
from support.web_client import ask, running
from support.web_process import server

from streamdream.errors import UsageError
from streamdream.settings import DreamSettings, StreamSettings, WebSettings

RUN_WITHOUT_LOADING = """
import json, sys
for name in ("torch", "gradio", "fastapi", "uvicorn"):
    sys.modules[name] = None  # so that its import fails
from streamdream import cli
for arguments in json.loads(sys.argv[1]):
    print(cli.run(["web", *arguments]), file=sys.stderr)
"""


def test_mistakes_are_reported_before_torch_and_gradio_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("hello")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        mistakes = {
            ("--host", "0.0.0.0"): "--token new",
            ("--auth", "anna"): "--hash",
            ("--ssl-certfile", str(tmp_path / "no.pem"), "--ssl-keyfile", "x"): "no such file",
            ("--ssl-certfile", str(tmp_path / "cert.pem"), "--ssl-keyfile", str(tmp_path / "cert.pem")): "PEM",
            ("--port", port): "cannot listen",
            ("--port", "0", "--metrics-port", port): "cannot listen on --metrics-port",
            ("--port", "0", "--metrics-port", "9100", "--metrics-host", "192.0.2.1"): "--metrics-host 192.0.2.1",
            ("--port", "7860", "--metrics-port", "7860"): "two different ports",
            ("--root-path", "dream"): "begins with /",
            ("--frame-ancestors", "x; script-src *"): "no site",
            ("--tabs", "live,nonsense"): "known: live, video, picture, dreams, layers",
            ("--tabs", "live,live"): "each tab once",
            ("--terms", str(tmp_path / "no.txt")): "--terms",
            ("--preset", "nonsense"): "unknown preset",
            ("--model", "nonsense"): "unknown model",
            ("--layers", "nonsense"): "unknown layer",
            ("--layers", "mixed5[99999]"): "has the channels 0..",
            ("--model", "bvlc_googlenet"): "streamdream fetch bvlc_googlenet",
            ("--trusted-proxies", "nobody"): "--trusted-proxies nobody",
        }
        made = subprocess.run([sys.executable, "-c", RUN_WITHOUT_LOADING, json.dumps(list(mistakes))], text=True,
                              capture_output=True, timeout=60, check=False, env=os.environ | {
                                  "TMPDIR": str(tmp_path), "STREAMDREAM_CACHE": str(tmp_path / "cache")})
    lines = made.stderr.splitlines()
    assert lines[1::2] == ["2"] * len(mistakes), made.stderr
    for line, words in zip(lines[::2], mistakes.values(), strict=True):
        assert line.startswith("error: ") and words in line
    assert not list(tmp_path.glob("streamdream-web-*"))  # no folder is left


def test_a_cache_folder_that_cannot_be_written_is_reported_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    made = subprocess.run([sys.executable, "-c", RUN_WITHOUT_LOADING, '[["--port", "0"]]'], text=True, check=False,
                          capture_output=True, timeout=60, env=os.environ | {
                              "STREAMDREAM_CACHE": str(tmp_path / "file" / "cache")})
    line, code = made.stderr.splitlines()
    assert code == "2" and line.startswith("error: the cache folder") and "STREAMDREAM_CACHE" in line


ASK_FOR_GPU = """
import sys
from streamdream import cli
print(cli.run(["web", "--port", "0", "--device", "cuda"]), "torch" in sys.modules, "gradio" in sys.modules)
"""


@pytest.mark.skipif("+cpu" not in importlib.metadata.version("torch"), reason="this PyTorch may have CUDA")
def test_a_gpu_that_pytorch_was_built_without_is_refused_before_it_is_loaded() -> None:
    made = subprocess.run([sys.executable, "-c", ASK_FOR_GPU], text=True, capture_output=True, timeout=60, check=False)
    assert made.stdout.strip() == "2 False False" and "built without CUDA" in made.stderr


CREATE_WITHOUT_TORCH = """
import pathlib, sys
sys.modules["torch"] = None  # so that its import fails
read, seen = pathlib.Path.read_text, []
pathlib.Path.read_text = lambda path, *options, **named: (seen.append(str(path)), read(path, *options, **named))[1]
from streamdream.settings import WebSettings
from streamdream_web.server import app
app.create_app(WebSettings()).app_state.close()
print([path for path in seen if "gradio/components" in path])
"""


def test_the_page_answers_before_torch_is_loaded_and_gradio_writes_no_stubs() -> None:
    made = subprocess.run([sys.executable, "-c", CREATE_WITHOUT_TORCH], text=True, capture_output=True, timeout=120,
                          check=False)
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() == "[]"


def folders(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob("streamdream-web-*"))


def test_every_line_of_a_json_log_is_json_and_two_ctrl_c_are_no_error(tmp_path: Path) -> None:
    with server(tmp_path, "--log", "json", "--backend", "eager") as (process, log):
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert process.wait(20) == 130
        entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["message"] for entry in entries if entry["level"] == "error"] == []
    assert "starting" in entries[0]["message"] and entries[-1]["message"].startswith("interrupted")
    assert not folders(tmp_path)


KILLED = """
import os, signal
from streamdream_web.core.private_folder import PrivateFolder
(PrivateFolder().path / "upload").write_text("private")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_server_removes_the_folder_of_one_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first = AppState(WebSettings(), DreamSettings(), StreamSettings())
    subprocess.run([sys.executable, "-c", KILLED], env=os.environ | {"TMPDIR": str(tmp_path)}, check=False, timeout=60)
    (tmp_path / "streamdream-web-of-another-program").mkdir()
    assert len(folders(tmp_path)) == 3
    second = AppState(WebSettings(), DreamSettings(), StreamSettings())
    left = {first.folder, second.folder, tmp_path / "streamdream-web-of-another-program"}
    assert set(folders(tmp_path)) == left  # what a server uses stays
    first.close()
    second.close()


def test_health_is_503_when_the_first_dream_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(app_state: AppState) -> None:
        raise UsageError("no memory")

    monkeypatch.setattr(AppState, "warm_up", fail)
    gc.disable()  # as the command does before it loads the app
    with running() as web:
        until(lambda: ask(web, "/healthz")[0] == 503)
        assert json.loads(ask(web, "/healthz")[2])["status"] == "failed"
        assert gc.isenabled()


def ready(web: Any) -> tuple[int, str]:
    status, _, body = ask(web, "/readyz")
    return status, json.loads(body)["status"]


def fail_job(web: Any) -> None:
    """A job that fails for a reason that is none of its visitor."""
    def work(job: Any, device_slot: Any) -> None:
        with device_slot():
            raise RuntimeError("CUDA error")

    job = web.jobs_service.start(web.jobs_service.stills, "visitor", "picture", work)
    until(lambda: job.finished)


def test_it_is_not_ready_while_it_loads_and_when_dreams_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = threading.Event()
    monkeypatch.setattr(AppState, "warm_up", lambda app_state: loaded.wait(20))
    with running(token=TOKEN) as web:
        assert ready(web) == (503, "loading") and ask(web, "/healthz")[0] == 200
        assert not web.app_state.counts["refused 503"]
        loaded.set()
        until(lambda: ready(web) == (200, "ready"))
        for _ in range(3):
            assert ready(web)[0] == 200
            fail_job(web)
        assert ready(web) == (503, "failed") and ask(web, "/healthz")[0] == 200
        job = web.jobs_service.start(web.jobs_service.stills, "visitor", "picture", lambda job, device_slot: None)
        until(lambda: job.finished)
        assert ready(web) == (200, "ready")


def test_it_is_ready_again_a_minute_after_failures_and_not_ready_while_the_device_stands_still() -> None:
    now = [100.0]
    health, scheduler = DreamHealth(lambda: now[0]), FairScheduler(lambda: now[0])
    health.is_loaded = True
    for _ in range(3):
        health.failed()
    assert health.status(scheduler.stalled_seconds) == "failed"
    now[0] += 61
    assert health.status(scheduler.stalled_seconds) == "ready"
    with scheduler.device_slot("one"):
        now[0] += 121
        assert health.status(scheduler.stalled_seconds) == "stalled"
    now[0] += 1000  # nobody waits
    assert health.status(scheduler.stalled_seconds) == "ready"


# --- behind a proxy, in a frame ---------------------------------------------------------------------------------------

TOKEN = "a-token-for-the-tests"


def test_the_app_works_under_a_root_path() -> None:
    """Whether the proxy removes the prefix from the path or leaves it there."""
    bearer: dict[str, Any] = {"Authorization": f"Bearer {TOKEN}"}
    with running(token=TOKEN, root_path="/dream") as web:
        for prefix in ("", "/dream"):
            assert json.loads(ask(web, prefix + "/config", **bearer)[2])["root"] == f"{web.url}/dream"
            assert ask(web, prefix + "/theme.css", **bearer)[0] == 200
            assert ask(web, prefix + "/live/facts", **bearer)[0] == 200
            assert ask(web, prefix + "/streamdream/app.css", **bearer)[0] == 200
            status, headers, _ = ask(web, f"{prefix}/?token={TOKEN}")
            assert (status, headers["location"]) == (303, "/dream/") and "Path=/dream;" in headers["set-cookie"]
            status, headers, _ = ask(web, prefix + "/login", f"password={TOKEN}".encode())
            assert (status, headers["location"]) == (303, "/dream/")
            assert b'action="/dream/login"' in ask(web, prefix + "/", Accept="text/html")[2]
        assert ask(web, "/dreamer/config", **bearer)[0] == 404


def test_only_the_sites_that_are_named_may_show_the_app_in_a_frame() -> None:
    with running(frame_ancestors="https://blog.example, https://*.example.org") as web:
        headers = ask(web, "/")[1]
        assert "frame-ancestors https://blog.example https://*.example.org" in headers["content-security-policy"]
        assert "x-frame-options" not in headers
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("text", ["x; script-src *", "https://", "none\r\nX: y", "javascript:alert(1)", "*"])
def test_what_is_no_site_is_no_frame_ancestor(text: str) -> None:
    with pytest.raises(UsageError, match="no site"):
        startup.check(WebSettings(frame_ancestors=text))


def test_a_login_in_a_frame_has_a_cookie_that_browsers_send_there() -> None:
    with running(token=TOKEN, frame_ancestors="https://blog.example") as web:
        over_tls = ask(web, f"/?token={TOKEN}", X_Forwarded_Proto="https")[1]["set-cookie"]
        assert "SameSite=None; Partitioned; Secure" in over_tls
        assert "SameSite=Lax" in ask(web, f"/?token={TOKEN}")[1]["set-cookie"]
