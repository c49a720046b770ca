"""A live run goes on when a file vanishes, an octave does not fit, or the settings cannot be dreamed."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.commands import fails, here

from streamdream.automation.controls import Controls
from streamdream.backends import Backend
from streamdream.dream.dreamer import Dreamer, DreamState
from streamdream.errors import StreamdreamError
from streamdream.live.pipeline import Live
from streamdream.live.report import LiveReport
from streamdream.live.resolution import ResolutionController
from streamdream.media.frame import Frame
from streamdream.media.sinks.base import NullSink
from streamdream.media.sources.live import LiveSource, timestamped_frame
from streamdream.models import get
from streamdream.settings import DreamSettings

SETTINGS = DreamSettings(warmup_steps=0, layers="mixed0", octaves=1, flow="none")
UNREACHED_HZ = 1e6
"""No dream is so fast: the controller has no reason to enlarge the field."""
SMALL_FIELDS = {"160x96", "200x120", "240x144"}
DREAMS = 6


class Camera(LiveSource):
    """Still pictures, 60 a second. After every ``DREAMS`` dreams the next event happens; after the last it ends."""

    max_frames = 600
    """If there are fewer dreams meanwhile, it goes on after so many pictures."""

    def __init__(self, size: tuple[int, int], events: Sequence[Callable[[], object]]) -> None:
        super().__init__("camera")
        self.height, self.width, self.rate = *size, Fraction(60)
        self._events, self.dreams = events, 0

    def __iter__(self) -> Iterator[Frame]:
        number = 0
        for event in (*self._events, bool):
            until, latest = self.dreams + DREAMS, number + self.max_frames
            while self.dreams < until and number < latest:
                time.sleep(1 / 60)
                yield timestamped_frame(self.picture(), number / 60)
                number += 1
            event()

    def picture(self) -> NDArray[np.uint8]:
        coarse = np.random.default_rng(0).integers(40, 215, (self.height // 8, self.width // 8, 3), np.uint8)
        return np.ascontiguousarray(np.kron(coarse, np.ones((8, 8, 1), np.uint8)))


class Keeps(NullSink):
    """What the newest dream adds to its frame."""

    def write(self, image: NDArray[np.uint8], frame: Frame) -> None:
        self.added = np.abs(image.astype(int) - frame.image)


def run(
    eager: Backend,
    controls: Controls,
    *events: Callable[[], object],
    resolution: ResolutionController | None = None,
    size: tuple[int, int] = (96, 160),
    sink: NullSink | None = None,
    camera: Camera | None = None,
) -> LiveReport:
    resolution, camera = (
        resolution or ResolutionController(size[0], UNREACHED_HZ, fixed=True),
        camera or Camera(size, events),
    )
    dreamer = Dreamer(get("inception_v3"), eager, resolution.field_height)
    advance = dreamer.advance

    def counted(*args: Any, **options: Any) -> DreamState:
        state = advance(*args, **options)
        camera.dreams += 1
        return state

    dreamer.advance = counted  # type: ignore
    return Live(camera, sink or NullSink(), dreamer, resolution, controls).run()


def half_mask(path: Path, white: str) -> bytes:
    sides = [0, 255] if white == "right" else [255, 0]
    Image.fromarray(np.repeat(np.array(sides, np.uint8), 80)[None].repeat(96, 0)).save(path)
    return path.read_bytes()


# --- files ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("fault", ["removed", "half written"])
def test_a_mask_that_became_unreadable_keeps_its_last_picture(eager: Backend, tmp_path: Path, fault: str,
                                                             caplog: pytest.LogCaptureFixture) -> None:
    path, sink = tmp_path / "mask.png", Keeps()
    data = half_mask(path, "right")
    event = path.unlink if fault == "removed" else lambda: path.write_bytes(data[:len(data) // 2])
    report = run(eager, Controls(replace(SETTINGS, mask=str(path))), event, sink=sink)
    assert report.dreams >= 2 * DREAMS
    assert sink.added[:, :72].max() == 0 and sink.added[:, 88:].mean() > 0.5
    assert len([message for message in caplog.messages if "--mask" in message]) == 1


def test_a_mask_that_comes_back_is_read(eager: Backend, tmp_path: Path) -> None:
    path, sink = tmp_path / "mask.png", Keeps()
    half_mask(path, "right")
    run(eager, Controls(replace(SETTINGS, mask=str(path))), path.unlink, lambda: half_mask(path, "left"), sink=sink)
    assert sink.added[:, 88:].max() == 0 and sink.added[:, :72].mean() > 0.5


@pytest.mark.parametrize("role", [pytest.param("guide", marks=pytest.mark.soak), "style"])
def test_a_picture_that_is_removed_does_not_enlarge_the_field(eager: Backend, tmp_path: Path, role: str) -> None:
    path = tmp_path / "picture.png"
    half_mask(path, "right")
    request = replace(SETTINGS, style_weight=1.0, style_layers="mixed0", **{role: str(path)})  # type: ignore[arg-type]
    report = run(
        eager, Controls(request), path.unlink, resolution=ResolutionController(240, UNREACHED_HZ), size=(240, 400)
    )
    assert report.dreams >= 2 * DREAMS and set(report.fields) <= SMALL_FIELDS


@pytest.mark.parametrize("change", [{"guide": "nowhere.png"}, {"layers": "mixed99"},
                                    pytest.param({"style": "nowhere.png"}, marks=pytest.mark.soak)])
def test_settings_that_cannot_be_dreamed_are_reverted(eager: Backend, change: dict[str, str],
                                                        caplog: pytest.LogCaptureFixture) -> None:
    """And the field, which is not their fault, is not enlarged."""
    controls = Controls(SETTINGS)
    report = run(eager, controls, lambda: controls.change(change), resolution=ResolutionController(240, UNREACHED_HZ),
                 size=(240, 400))
    assert report.dreams >= 2 * DREAMS and set(report.fields) <= SMALL_FIELDS and controls.current() == SETTINGS
    assert len([message for message in caplog.messages if "goes on as before" in message]) == 1


def test_a_mask_that_is_not_there_leaves_the_dream_without_one(eager: Backend) -> None:
    controls, sink = Controls(SETTINGS), Keeps()
    report = run(eager, controls, lambda: controls.change({"mask": "nowhere.png"}), sink=sink)
    assert report.dreams >= 2 * DREAMS and sink.added.mean() > 0.5


def test_a_missing_mask_is_an_error_at_the_start(eager: Backend) -> None:
    with pytest.raises(StreamdreamError, match=r"--mask nowhere.png: No such file"):
        run(eager, Controls(replace(SETTINGS, mask="nowhere.png")))


# --- sizes ------------------------------------------------------------------------------------------------------------

def four_octaves() -> DreamSettings:
    return DreamSettings(layers="mixed3", octaves=4, octave_scale=1.7, warmup_steps=0, flow="none")


def controller_at(height: int) -> ResolutionController:
    return ResolutionController(240, UNREACHED_HZ, start_height=height)


def test_octaves_that_do_not_fit_do_not_enlarge_the_field(eager: Backend) -> None:
    """The look Aurora has four, of which 96 lines hold two."""
    report = run(eager, Controls(four_octaves()), resolution=controller_at(96), size=(240, 400))
    assert set(report.fields) == {"160x96"} and report.steps == report.dreams >= DREAMS


def test_a_slow_field_shrinks_whatever_octaves_fit(eager: Backend) -> None:
    resolution = controller_at(144)
    run(eager, Controls(four_octaves()), resolution=resolution, size=(240, 400))
    assert resolution.field_height == 96


def test_a_run_begins_with_the_octaves_that_fit(eager: Backend) -> None:
    report = run(eager, Controls(replace(SETTINGS, octaves=6, octave_scale=2.0, layers="mixed5")))
    assert report.dreams >= DREAMS


def test_a_field_shrinks_when_its_layer_is_gone(eager: Backend) -> None:
    resolution = ResolutionController(240, UNREACHED_HZ, heights=[32, 96], start_height=32)
    controls = Controls(replace(SETTINGS, layers="mixed3"))
    report = run(
        eager, controls, lambda: controls.change({"layers": "conv2d_1"}), resolution=resolution, size=(240, 400)
    )
    assert set(report.fields) == {"160x96", "54x32"} and resolution.field_height == 32


def test_pictures_too_small_for_a_layer_are_shown_without_a_new_dream(eager: Backend, monkeypatch: pytest.MonkeyPatch
                                                                      ) -> None:
    """As when a camera is turned, or another one takes over."""
    class Shrinks(Camera):
        max_frames = 120

        def picture(self) -> NDArray[np.uint8]:
            whole = super().picture()
            return np.ascontiguousarray(whole[:24, :40]) if self.dreams >= DREAMS else whole

    monkeypatch.setattr("streamdream.live.dream_worker.RESIZE_GRACE_SECONDS", 0.2)
    report = run(eager, Controls(replace(SETTINGS, layers="mixed3")), camera=Shrinks((96, 160), [bool]))
    assert report.dreams >= DREAMS and report.frames > 100


def test_a_run_of_no_time_has_no_rates(eager: Backend) -> None:
    report = replace(run(eager, Controls(SETTINGS)), seconds=0.0).as_json()
    assert report["fps"] == report["dream_fps"] == report["steps_per_s"] == report["seconds"] == 0.0


# --- before anything is opened ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("command", [["render", "CLIP", "-o", "OUT"], ["live", "--source", "CLIP", "--sink", "OUT"]])
def test_a_field_too_small_for_the_layers_leaves_no_output(command: list[str], tmp_path: Path, world: Path,
                                                           monkeypatch: pytest.MonkeyPatch,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused before the output is opened."""
    monkeypatch.setattr("streamdream.media.sinks.registry.open_sink", lambda *args, **options: pytest.fail("opened"))
    names = {"CLIP": str(world), "OUT": str(tmp_path / "out.mp4")}
    result = here(capsys, *[names.get(word, word) for word in command], "--field-height", "32", "--layers", "mixed3")
    fails(result, 2, "is too small for mixed3", "a larger --field-height")
    assert not list(tmp_path.iterdir())


def test_a_run_of_0_seconds_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    fails(here(capsys, "live", "--source", "lavfi:testsrc", "--sink", tmp_path / "a.mp4", "--seconds", "0"), 2,
          "--seconds is 0")
    assert not list(tmp_path.iterdir())
