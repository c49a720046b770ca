"""Renders through Ray's client, by ``ray://HOST:PORT``, from a machine that is no node of the cluster."""
from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.broadcast import free_port
from support.commands import PROGRAM_ENVIRONMENT
from support.planned_renders import SMALL, Frames, frames_of, make_shots
from support.waiting import until

from streamdream.render.work_folder import default_path, read_plan

pytestmark = [pytest.mark.alone, pytest.mark.soak]
SHOT_FRAMES = (90, 70, 50, 60)
SMALL_FLAGS = ("-c:v", "ffv1",
               *(word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", value)))
UNSHARED = ("import sys\nfrom streamdream import cli\nfrom streamdream.render import ray_cluster\n"
            "ray_cluster.describe_source = lambda path: {'bytes': -1}\nsys.exit(cli.run(sys.argv[1:]))\n")
"""The command on a machine whose files no node has."""
ENVIRONMENT = PROGRAM_ENVIRONMENT | {"RAY_AUTH_MODE": "disabled", "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "2",
                                     "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "45"}
"""The last one is how long Ray waits for the server of a client: when it starts, and when it is lost."""
CONNECTED_SECONDS = 150
"""After a server that did not come, too."""


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shots(tmp_path_factory.mktemp("client") / "film.mkv", SHOT_FRAMES)


@pytest.fixture(scope="module")
def by_one(film: Path) -> Frames:
    subprocess.run(command(film, film.with_name("one.mkv")), env=ENVIRONMENT, check=True)
    return frames_of(film.with_name("one.mkv"))


@dataclass(frozen=True)
class Head:
    """A cluster of one node, in processes of its own."""

    folder: str
    port: int
    """Of its directory service, which its processes name."""
    client_port: int

    @property
    def address(self) -> str:
        return f"ray://127.0.0.1:{self.client_port}"

    def processes(self, text: str = "") -> list[int]:
        """Its processes with that text in their command lines."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                line = (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                if text in line and (self.folder in line or f":{self.port} " in line):
                    found.append(int(folder.name))
        return found

    def kill(self, *texts: str) -> None:
        for number in {number for text in texts for number in self.processes(text)}:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


@pytest.fixture()
def head() -> Iterator[Head]:
    pytest.importorskip("ray", reason="no Ray here")
    # a longer path is too long for Ray's sockets
    found = Head(tempfile.mkdtemp(prefix="ray-"), free_port(), free_port())
    process = subprocess.Popen(
        (sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus", "1", "--port",
         str(found.port), "--ray-client-server-port", str(found.client_port), "--include-dashboard", "false",
         "--temp-dir", found.folder, "--object-store-memory", "100000000"),
        env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: can_connect(found.client_port), 60)
        yield found
    finally:
        process.terminate()
        process.wait(30)
        found.kill("")
        shutil.rmtree(found.folder, ignore_errors=True)


def can_connect(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def command(film: Path, output: Path, *flags: str, program: tuple[str, ...] = ("-m", "streamdream")) -> list[str]:
    return [sys.executable, *program, "render", str(film), "-o", str(output), *SMALL_FLAGS, *flags]


def started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def has_chunk(output: Path) -> bool:
    plan = read_plan(default_path(str(output), ""))
    return plan is not None and plan.frames_done > 0


def last_line(process: subprocess.Popen[str], code: int) -> str:
    """The last line of a process that ends with that code, whose lines are all our own."""
    _, errors = process.communicate(timeout=150)
    assert process.returncode == code, errors
    foreign = [line for line in errors.splitlines() if re.match(r"[\d-]{10} |\[\d|[IWE]\d{4} |\(|Traceback", line)]
    assert foreign == [], "Ray speaks to the user"
    return errors.splitlines()[-1]


@pytest.mark.parametrize("program", [("-m", "streamdream"), ("-c", UNSHARED)], ids=["shared storage", "handed over"])
def test_it_gives_the_frames_of_one_process(head: Head, film: Path, by_one: Frames, tmp_path: Path,
                                            program: tuple[str, ...]) -> None:
    process = started(*command(film, tmp_path / "out.mkv", "--cluster", head.address, program=program))
    last_line(process, 0)
    assert frames_of(tmp_path / "out.mkv") == by_one


def test_a_process_of_the_cluster_that_does_not_come_is_asked_for_again(head: Head, film: Path, by_one: Frames,
                                                                        tmp_path: Path) -> None:
    output = tmp_path / "out.mkv"
    process = started(*command(film, output, "--cluster", head.address))
    until(lambda: bool(head.processes("--mode=specific-server")), CONNECTED_SECONDS)
    head.kill("--mode=specific-server")
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0 and "has begun no process for this connection; trying again" in errors, errors
    assert frames_of(output) == by_one


@pytest.mark.parametrize("lost", ["the server of this client", "all of the client's servers", "the head"])
def test_a_lost_connection_is_one_line_and_the_same_command_goes_on(
        head: Head, film: Path, by_one: Frames, tmp_path: Path, lost: str) -> None:
    output = tmp_path / "out.mkv"
    process = started(*command(film, output, "--cluster", head.address))
    until(lambda: has_chunk(output) or process.poll() is not None, CONNECTED_SECONDS)
    head.kill(*{"the server of this client": ["--mode=specific-server"],
                "all of the client's servers": ["ray.util.client.server"],
                "the head": ["gcs_server", "raylet/raylet", "ray.util.client.server"]}[lost])
    line = last_line(process, 1)
    assert line.startswith("error: the connection to the cluster is lost") and "the same command resumes" in line
    if lost != "the server of this client":
        line = last_line(started(*command(film, output, "--cluster", head.address)), 2)
        assert f"--cluster {head.address}: nobody answers there" in line
    flags = ("--cluster", head.address) if lost == "the server of this client" else ()
    again = started(*command(film, output, *flags))
    _, errors = again.communicate(timeout=150)
    assert "resuming at" in errors and frames_of(output) == by_one


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(head: Head, film: Path, by_one: Frames, tmp_path: Path
                                                                ) -> None:
    output = tmp_path / "out.mkv"
    process = started(*command(film, output, "--cluster", head.address))
    until(lambda: has_chunk(output) or process.poll() is not None, CONNECTED_SECONDS)
    process.send_signal(signal.SIGINT)
    line = last_line(process, 130)
    assert line.startswith("error: interrupted; ") and line.endswith("are kept; the same command resumes")
    _, errors = started(*command(film, output, "--cluster", head.address)).communicate(timeout=150)
    assert "resuming at" in errors and frames_of(output) == by_one


def test_files_of_a_batch_are_rendered_at_the_same_time(head: Head, film: Path, by_one: Frames, tmp_path: Path) -> None:
    """A bad one stops none; with ``--json`` each is a line."""
    for name in "abc":
        shutil.copy(film, tmp_path / f"{name}.mkv")
    (tmp_path / "bad.mkv").write_text("Dear diary, this is no video.\n" * 40)
    flags = ("--cluster", head.address, "--json", "--progress", "pipe:2")
    process = started(*command(tmp_path, tmp_path / "dreams", *flags))
    said, errors = process.communicate(timeout=180)
    assert process.returncode == 1
    lines = {Path(line["input"]).name: line for line in map(json.loads, said.splitlines())}
    assert {name: line.get("frames") for name, line in lines.items()} == {
        "a.mkv": 270, "b.mkv": 270, "c.mkv": 270, "bad.mkv": None} and "not a video" in lines["bad.mkv"]["error"]
    assert all(frames_of(tmp_path / "dreams" / f"{name}.mkv") == by_one for name in "abc")
    order = re.findall(r"input=\S*/(\w)\.mkv\n(?:(?!progress).*\n)*progress=(\w+)", errors)
    ends = [name for name, state in order if state == "end"]
    begun = {name for name, _ in order[:order.index((ends[0], "end"))]}
    assert len(begun) > 1, "one began when the other had ended"
