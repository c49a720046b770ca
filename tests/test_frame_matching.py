"""Frames that are matched ahead: the dream is the same as without."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.clips import Clip, make

from streamdream.automation.automation import Automation
from streamdream.automation.controls import Controls
from streamdream.automation.settings_track import SettingsEvent
from streamdream.backends import Backend
from streamdream.dream.dreamer import Dreamer, DreamState
from streamdream.dream.options import DreamOptions
from streamdream.media.frame import Frame
from streamdream.media.sinks.base import NullSink
from streamdream.media.sources.video import open_source
from streamdream.models import get
from streamdream.render import pipeline
from streamdream.render.pipeline import match_stream
from streamdream.settings import DreamSettings

SETTINGS = DreamSettings(layers="conv2d_4", octaves=2, warmup_steps=1)
Picture = NDArray[np.uint8]
TRACK = [
    SettingsEvent(0.2, {"trust": "photometric"}),
    SettingsEvent(0.35, {"stillness": 2.0}),
    SettingsEvent(0.5, {}, frozen=True),
    SettingsEvent(0.6, {}, frozen=False),
    SettingsEvent(0.7, {}, reset=True),
    SettingsEvent(0.8, {"flow": "farneback", "cut": 0.0}),
]


def film(lion: Picture) -> list[Picture]:
    """A pan, a cut to its mirror image upside down, and the pan on."""
    shots = [np.ascontiguousarray(lion[60:180, 2 * n:160 + 2 * n]) for n in range(30)]
    return shots[:10] + [np.ascontiguousarray(shot[::-1, ::-1]) for shot in shots[10:20]] + shots[20:]


@pytest.mark.parametrize("track", [pytest.param([], marks=pytest.mark.soak), TRACK], ids=["plain", "changing"])
def test_a_render_that_matches_ahead_is_the_same(
    track: list[SettingsEvent], eager: Backend, lion: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "a.mkv", Clip(30, size=(160, 120)), film(lion))
    dreams: dict[bool, list[Picture]] = {True: [], False: []}
    cuts = []
    for ahead, kept in dreams.items():
        class Keeps(NullSink):
            def write(self, image: Picture, frame: Frame, kept: list[Picture] = kept) -> None:
                kept.append(image)

        monkeypatch.setattr(pipeline, "matches_ahead", lambda dreamer, ahead=ahead: ahead)
        with open_source(str(tmp_path / "a.mkv")) as source:
            report = pipeline.render_video(source, Keeps(), Dreamer(get("inception_v3"), eager, 96),
                                     Automation(Controls(SETTINGS), track=track))
        cuts.append(report.cuts)
    assert cuts == [2, 2] if not track else cuts[0] == cuts[1] > 0
    assert len(dreams[True]) == 30
    for found, expected in zip(dreams[True], dreams[False], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_only_what_no_longer_holds_is_made_anew(dreamer: Dreamer, lion: Picture) -> None:
    """A match of this frame with the one before it is taken as it is; by other settings, its field is still good."""
    frames = [Frame(image, number / 30, number, (1, 30)) for number, image in enumerate(film(lion)[:3])]
    pairs = list(match_stream(frames, dreamer, lambda: SETTINGS))
    state = dreamer.advance(DreamState(), frames[0].image, SETTINGS, frame_match=pairs[0][1])
    known = pairs[1][1]
    assert dreamer.reuse_or_match(state, frames[1].image, SETTINGS, known) is known
    other = dreamer.reuse_or_match(state, frames[1].image, replace(SETTINGS, trust="full"), known)
    assert other.field is known.field and other.trust is not None and known.trust is not None
    assert other.trust.mean() > known.trust.mean()
    assert dreamer.reuse_or_match(state, frames[2].image, SETTINGS, known).image is frames[2].image
    assert dreamer.reuse_or_match(replace(state, residual=None), frames[1].image, SETTINGS, known).motion is None
    smaller = DreamOptions(field_height=64)
    assert dreamer.reuse_or_match(state, frames[1].image, SETTINGS, known, smaller).grey.shape[0] == 64
