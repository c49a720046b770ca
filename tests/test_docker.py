"""The Dockerfile's steps without Docker: what it copies and installs is there, and what it starts serves the page."""
from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import tomllib
import urllib.request
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from pathlib import Path

import pytest

parser = pytest.importorskip("dockerfile_parse", reason="no dockerfile-parse here")
ROOT = Path(__file__).parents[1]
TARGETS = {"cpu": "openvino", "cuda": "tensorrt"}
"""Target -> the extra that makes it fast."""
TOKEN = "a-token-for-this-test"
PATIENCE_SECONDS = 60

Step = tuple[str, str]


def stages() -> dict[str, list[Step]]:
    """Name -> its instructions, those of the stages that it builds on first."""
    found: dict[str, list[Step]] = {}
    name = ""
    with (ROOT / "Dockerfile").open("rb") as file:
        structure = parser.DockerfileParser(fileobj=file).structure
    for item in structure:
        kind, value = item["instruction"], item["value"]
        if kind == "FROM":
            image, _, name = value.split()
            found[name] = list(found.get(image, [("FROM", image)]))
        elif kind != "COMMENT":
            found[name].append((kind, value))
    return found


STAGES = stages()


def values(stage: str, kind: str) -> list[str]:
    return [value for found, value in STAGES[stage] if found == kind]


def commands(stage: str) -> list[list[str]]:
    """Of all RUN instructions, word by word, without what belongs to RUN itself."""
    return [[word for word in shlex.split(part) if not word.startswith("--mount=")]
            for value in values(stage, "RUN") for part in value.split("&&")]


def copied() -> list[tuple[str, str]]:
    """(source, destination) of what comes from the repository."""
    pairs = []
    for stage in STAGES:
        for value in values(stage, "COPY"):
            *sources, target = value.split()
            pairs += [(source, target) for source in sources if not source.startswith("--")]
    return sorted(set(pairs))


def test_it_makes_what_is_promised() -> None:
    assert set(TARGETS) < set(STAGES) and list(STAGES)[-1] == "cpu"
    for target in TARGETS:
        assert values(target, "USER") == ["1000"] and STAGES[target][-1] == ("USER", "1000")
        assert any("useradd --uid 1000" in run for run in values(target, "RUN"))
        assert values(target, "EXPOSE") == ["7860"] and values(target, "VOLUME") == ["/cache"]
        assert "/healthz" in values(target, "HEALTHCHECK")[0]
        assert "STREAMDREAM_CACHE=/cache" in values(target, "ENV")[1]
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video" in " ".join(values("cuda", "ENV"))


def test_all_that_is_copied_is_there_and_let_through() -> None:
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert (ROOT / ".dockerignore").read_text().count("\n*\n") == 1  # everything else stays outside
    for source, _ in copied():
        assert (ROOT / source).exists() and source in let_through, source
    assert {source for source, _ in copied()} == set(let_through)


def test_debian_knows_the_packages() -> None:
    names = [word for command in commands("run") if command[:2] == ["apt-get", "install"]
             for word in command[2:] if not word.startswith("-")]
    assert names
    if not shutil.which("apt-cache"):
        pytest.skip("no apt-cache here")
    answer = subprocess.run(["apt-cache", "policy", *names], capture_output=True, text=True, check=True).stdout
    if answer.count("Candidate:") == 0 and "(none)" not in answer:
        pytest.skip("apt has no lists here; apt-get update brings them")
    for name in names:
        assert re.search(rf"^{re.escape(name)}:\n.*\n\s+Candidate: (?!\(none\))", answer, re.MULTILINE), name


def test_pip_knows_the_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    constraints = (ROOT / "constraints.txt").read_text()
    wanted = {"torch": re.search(r"^torch==(.+)$", constraints, re.MULTILINE)}
    for target, extra in TARGETS.items():
        installs = [command for command in commands(target) if command[:2] == ["pip", "install"]]
        assert any(command[-1].endswith(f"[{extra}]") for command in installs)
        assert all("/tmp/constraints.txt" in command for command in installs)
        for requirement in project["optional-dependencies"][extra]:
            wanted[re.split(r"[<>=\[ ]", requirement)[0]] = None
    with ThreadPoolExecutor() as pool:
        known, *found = pool.map(_versions, ["pip", *wanted])
    if not known:
        pytest.skip("pip reaches no packages here")
    for (name, pinned), versions in zip(wanted.items(), found, strict=True):
        assert versions and (pinned is None or pinned[1] in versions), name


def _versions(name: str) -> list[str]:
    done = subprocess.run([sys.executable, "-m", "pip", "index", "versions", "--disable-pip-version-check", name],
                          capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    found = re.search(r"^Available versions: (.+)$", done.stdout, re.MULTILINE)
    return found[1].split(", ") if found else []


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment with the wheel of what the Dockerfile copies, and the packages of this one."""
    folder = tmp_path_factory.mktemp("docker")
    source = folder / "source"
    source.mkdir()
    for name in (name for name, target in copied() if not target.startswith("/tmp")):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=lambda _, names: fnmatch.filter(names, "__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = next(command for command in commands("wheel") if command[:2] == ["pip", "wheel"])
    wheel = [*wheel[1:], "--no-build-isolation"] if _has_setuptools() else wheel[1:]
    subprocess.run([*pip, *(str(folder) if word == "/wheels" else word for word in wheel)], cwd=source, check=True)
    venv.create(folder / "venv", with_pip=False)
    inside = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv"), "platbase": str(folder / "venv")}))
    (inside / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([*pip, "--python", str(folder / "venv"), "install", "--no-deps", "--no-index", "--ignore-installed",
                    str(next(folder.glob("*.whl")))], check=True)
    return folder / "venv" / ("Scripts" if os.name == "nt" else "bin")


def _has_setuptools() -> bool:
    """New enough for pyproject.toml; if not, pip fetches one."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return int(version("setuptools").partition(".")[0]) >= 77
    except PackageNotFoundError:
        return False


@pytest.fixture()
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "HOME": str(tmp_path), "STREAMDREAM_CACHE": str(tmp_path / "cache")}


def entry(installed: Path) -> list[str]:
    name, *rest = json.loads(values("cpu", "ENTRYPOINT")[0])
    return [str(installed / name), *rest]


def test_it_runs_from_its_own_package_only(installed: Path, environment: dict[str, str], tmp_path: Path) -> None:
    places = subprocess.run([installed / "python", "-c", "import streamdream, streamdream_web, streamdream_bench as b; "
                             "print(streamdream.__file__, streamdream_web.__file__, b.__file__)"],
                            cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert len(places) == 3 and all(place.startswith(str(installed.parent)) for place in places)


def test_the_entry_point_serves_the_page(installed: Path, environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen([*entry(installed), "--port", "0", "--token", TOKEN], cwd=tmp_path, env=environment,
                                  stdout=output, stderr=output)
    try:
        port = _port(log, server)
        check = values("cpu", "HEALTHCHECK")[0].partition("CMD ")[2]
        _, *code = json.loads(check.replace(":7860", f":{port}"))
        until = time.monotonic() + PATIENCE_SECONDS
        while subprocess.run([sys.executable, *code], capture_output=True, check=False).returncode:
            assert time.monotonic() < until and server.poll() is None, log.read_text()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        for path, words in ((f"?token={TOKEN}", b"streamdream"), ("streamdream/pages.css", b".sw-drop"),
                            ("streamdream/app.css", b".sd-head")):
            answer: HTTPResponse
            with opener.open(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
                assert answer.status == 200 and words in answer.read()
        server.send_signal(signal.SIGTERM)  # as `docker stop` does
        assert server.wait(PATIENCE_SECONDS) in (0, 143) and "Traceback" not in log.read_text()
    finally:
        server.kill()
        server.wait()


def _port(log: Path, server: subprocess.Popen[bytes]) -> int:
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until and server.poll() is None:
        if found := re.search(r"https?://\S+?:(\d+)/\?token=", log.read_text()):
            return int(found[1])
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_it_opens_to_nobody_by_itself(installed: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """Without a token for others it does not start; by default the image makes one."""
    done = subprocess.run([*entry(installed), "--port", "0"], cwd=tmp_path, env=environment, capture_output=True,
                          text=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 2 and "--token new" in done.stderr
    assert json.loads(values("cpu", "CMD")[0]) == ["--token", "new"]


@pytest.fixture(autouse=True)
def _nothing_is_left_in_the_source() -> Iterator[None]:
    before = set(ROOT.iterdir())
    yield
    assert not {path.name for path in set(ROOT.iterdir()) - before} & {"build", "streamdream.egg-info"}
