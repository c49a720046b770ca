"""What several tests share: real material, a network, a dreamer."""
from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamdream.system import process_tuning

# A script that runs in the background ignores SIGINT, nohup ignores SIGHUP, and children inherit that. They do
# not inherit a handler: with one here, they begin with the default signals.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for name in ("SIGHUP", "SIGTERM", "SIGQUIT"):
    if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, name), lambda number, frame: None)

if "PYTEST_XDIST_WORKER" in os.environ:  # two workers on two cores: a second thread each would wait, not compute
    os.environ.setdefault("OMP_NUM_THREADS", "1")
process_tuning.tune_process()  # as the program does, before torch is loaded
if "STREAMDREAM_CACHE" not in os.environ:  # the user's own stays as it is
    os.environ["STREAMDREAM_CACHE"] = tempfile.mkdtemp(prefix="streamdream-tests-")
    atexit.register(shutil.rmtree, os.environ["STREAMDREAM_CACHE"], ignore_errors=True)

pytest.register_assert_rewrite("support")  # its asserts, too, say what they compared

from support.clips import Clip, make
from support.commands import preserved_process

from streamdream import backends, models
from streamdream.backends import Backend
from streamdream.dream.dreamer import Dreamer
from streamdream.media.images import read_image
from streamdream.media.opencv import cv2
from streamdream.media.sample_files import CLIP, PHOTO, sample_file

if TYPE_CHECKING:
    from streamdream_web.jobs.uploads import Uploads
    from support.source_watcher import Watcher
    from support.unruly_server import Server
    from support.web_client import Running


def pytest_collection_finish() -> None:
    """What is loaded by now, PyTorch and the tests themselves, no collection need look at again."""
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _swept() -> Iterator[None]:
    """What Gradio and Playwright leave open goes at the end of the module that used them, not amid the next one. What
    is still there, such as a library that was loaded, no later sweep looks at.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _preserved_process() -> Iterator[None]:
    """What commands set that a module's tests run in this process is not set in the next module."""
    with preserved_process():
        yield


@pytest.fixture(scope="session")
def lion() -> NDArray[np.uint8]:
    """A photograph, RGB [256, 256, 3]."""
    return read_image(str(sample_file(PHOTO)))


@pytest.fixture(scope="session")
def world() -> Path:
    """A real clip with sound: 480x270, 30 frames a second, 30 s."""
    return sample_file(CLIP)


@pytest.fixture(scope="session")
def eager() -> Backend:
    return backends.create("eager", models.get("inception_v3"), "cpu", "fp32")


@pytest.fixture()
def dreamer(eager: Backend) -> Dreamer:
    """Dreams on a small field, in fp32, so that results can be compared exactly."""
    return Dreamer(models.get("inception_v3"), eager, field_height=96)


@pytest.fixture()
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that engines go to."""
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For clips that several tests of a module read."""
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def clip(folder: Path) -> str:
    """20 silent frames of 64x48 at 25/s."""
    return make(folder / "clip.mp4", Clip(20, rate=Fraction(25), time_base=Fraction(1, 25)))


@pytest.fixture()
def no_thread_is_left() -> Iterator[None]:
    """Threads of earlier tests, as of an engine that is timed for a while, do not count."""
    before = threading.enumerate()
    yield
    new = [thread.name for thread in threading.enumerate() if thread not in before]
    assert [name for name in new if name.startswith("streamdream")] == []


@pytest.fixture(scope="module")
def web() -> Iterator[Running]:
    """A server of the browser app with the usual settings."""
    from support.web_client import running  # loads Gradio

    with running() as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, lion: NDArray[np.uint8]) -> Iterator[Any]:
    """Chromium before a camera that shows the photograph, which goes up."""
    from support.browser import chromium
    from support.live_page import moving_lion

    with chromium(moving_lion(tmp_path_factory.mktemp("camera"), lion)) as started:
        yield started


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cert.pem and key.pem of localhost."""
    from support.proxies import make_certificate

    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture()
def page(browser: Any, web: Running) -> Iterator[Any]:
    """The page of ``web`` in that browser."""
    from support.live_page import opened

    with opened(browser, web) as loaded:
        yield loaded


@pytest.fixture()
def uploads(tmp_path: Path) -> Iterator[Uploads]:
    """An empty store of visitors' files."""
    from streamdream_web.jobs.file_inspection import InspectionLimits
    from streamdream_web.jobs.uploads import Uploads

    opened = Uploads(tmp_path / "uploads", InspectionLimits(50, 60, 10**6))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def small(lion: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The photograph, RGB [120, 160, 3], smooth: JPEG changes it little."""
    image: NDArray[np.uint8] = cv2().GaussianBlur(cv2().resize(lion, (160, 120)), (0, 0), 1.5)
    return image


@pytest.fixture()
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of files that stalls, cuts off, lies and fails when it is told to."""
    from support.unruly_server import running_server

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running_server() as state:
        yield state


@pytest.fixture()
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that weights go to."""
    monkeypatch.setenv("STREAMDREAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture()
def watch() -> Iterator[Callable[[Any], Watcher]]:
    """Begin to read a live source; at the end of the test it is closed."""
    from support.source_watcher import Watcher

    watchers: list[Watcher] = []

    def begin(source: Any) -> Watcher:
        watchers.append(Watcher(source))
        return watchers[-1]

    yield begin
    for watcher in watchers:
        watcher.end()
    assert not [thread for thread in threading.enumerate() if thread.name == "streamdream-read"]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """On small pictures a second thread gains little, and on a busy machine it costs much."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def stalls(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """No dream is too slow to wait for, however busy this machine is, unless the test says so."""
    def after(seconds: float) -> None:
        monkeypatch.setattr("streamdream.live.dreams_in_flight.STALL_SECONDS", seconds)

    after(60.0)
    return after
