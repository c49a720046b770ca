"""What is installed: the wheel, made of what the Dockerfile copies, has every package and serves the page by itself."""
from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tomllib
import urllib.request
import venv
import zipfile
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from support.waiting import until

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SETUPTOOLS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS = {"streamdream": "streamdream", **{folder: name for name, folder in SETUPTOOLS["package-dir"].items()}}
"""Folder in the repository -> package."""
NOT_INSTALLED = ("benchmarks/README.md", "benchmarks/results/*")
TOKEN = "a-token-for-this-test"
PATIENCE_SECONDS = 60


def copied(stage: str = "") -> list[str]:
    """What the Dockerfile copies from the repository, or that one stage of it."""
    text = DOCKERFILE.partition(f" AS {stage}\n")[2].partition("\nFROM ")[0] if stage else DOCKERFILE
    copies = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY ")]
    return sorted({source for sources in copies for source in sources if not source.startswith("--")})


def words(instruction: str) -> list[str]:
    """Of a Dockerfile's instruction in its JSON form."""
    [text] = re.findall(rf"^\s*{instruction} (\[.*\])$", DOCKERFILE, re.MULTILINE)
    return [str(word) for word in json.loads(text)]


def tracked() -> list[str]:
    """The files of all packages, relative to the repository."""
    listed = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git repository")
    files = [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]
    return [name for name in files if not any(fnmatch.fnmatch(name, pattern) for pattern in NOT_INSTALLED)]


def installed_name(name: str) -> str:
    folder, _, rest = name.partition("/")
    return f"{FOLDERS[folder]}/{rest}"


def test_pyproject_names_every_package_of_the_tree() -> None:
    """Setuptools' own search would install ``web`` and ``benchmarks`` under these names."""
    folders = {name.rpartition("/")[0] for name in tracked() if name.endswith(".py")}
    assert sorted(SETUPTOOLS["packages"]) == sorted(installed_name(f"{name}/").strip("/").replace("/", ".")
                                                    for name in folders)


def test_the_dockerfile_copies_what_is_there_and_let_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text()
    assert ignored.count("\n*\n") == 1  # everything else stays outside
    assert copied() == sorted(line[1:] for line in ignored.splitlines() if line.startswith("!"))
    assert [source for source in copied() if not (ROOT / source).exists()] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    (source := folder / "source").mkdir()
    for name in copied("wheel"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=lambda _, names: fnmatch.filter(names, "__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
                    "--no-build-isolation", "--wheel-dir", str(folder), str(source)], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The ``bin`` of an environment with the wheel, and the other packages of this one."""
    venv.create(wheel.parent / "venv", with_pip=False)
    base = {"base": str(wheel.parent / "venv"), "platbase": str(wheel.parent / "venv")}
    inside = Path(sysconfig.get_path("purelib", vars=base))
    (inside / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python",
                    str(wheel.parent / "venv"), "install", "--no-deps", "--no-index", "--ignore-installed",
                    "--no-compile", str(wheel)], check=True)
    return Path(sysconfig.get_path("scripts", vars=base))


@pytest.fixture()
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "HOME": str(tmp_path), "STREAMDREAM_CACHE": str(tmp_path / "cache")}


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    """Rooms, assets, presets, py.typed, the embedded network; and nothing else."""
    with zipfile.ZipFile(wheel) as file:
        inside = {name for name in file.namelist() if ".dist-info/" not in name}
    assert inside == {installed_name(name) for name in tracked()}


def test_an_installed_command_uses_its_own_packages_only(installed: Path, environment: dict[str, str], tmp_path: Path
                                                         ) -> None:
    places = subprocess.run([installed / "python", "-c", f"import {', '.join(FOLDERS.values())}; "
                             f"print(*(each.__file__ for each in ({', '.join(FOLDERS.values())})))"],
                            cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert len(places) == 3 and all(place.startswith(str(installed.parent)) for place in places)


def test_the_installed_command_serves_the_page_as_the_image_starts_and_checks_it(
        installed: Path, environment: dict[str, str], tmp_path: Path) -> None:
    name, *arguments = words("ENTRYPOINT")
    log = tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen([str(installed / name), *arguments, "--port", "0", "--token", TOKEN], cwd=tmp_path,
                                  env=environment, stdout=output, stderr=output)
    try:
        address = re.compile(r"https?://\S+?:(\d+)/\?token=")
        until(lambda: address.search(log.read_text()) or server.poll() is not None, PATIENCE_SECONDS)
        [port] = address.findall(log.read_text())
        python, *code = words("HEALTHCHECK .*\n +CMD")
        check = [str(installed / python), *(word.replace(":7860", f":{port}") for word in code)]
        until(lambda: not subprocess.run(check, capture_output=True, check=False).returncode, PATIENCE_SECONDS)
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        for path, content in ((f"?token={TOKEN}", b"streamdream"), ("streamdream/pages.css", b".sw-drop"),
                              ("streamdream/app.css", b".sd-head")):
            answer: HTTPResponse
            with opener.open(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
                assert answer.status == 200 and content in answer.read()
        server.send_signal(signal.SIGTERM)  # as `docker stop` does
        assert server.wait(PATIENCE_SECONDS) in (0, 143) and "Traceback" not in log.read_text()
    finally:
        server.kill()
        server.wait()


@pytest.mark.soak
@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_docker_builds_the_image(target: str) -> None:
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker here")
    subprocess.run(["docker", "build", "--target", target, "--tag", f"streamdream-test:{target}", str(ROOT)],
                   check=True)
