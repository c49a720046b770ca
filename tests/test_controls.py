"""Controls: what may be changed while a dream runs, and that nothing is changed by half."""
from __future__ import annotations

import pytest

from streamdream.ascent.objectives import from_settings
from streamdream.automation.controls import Controls, DreamRequest
from streamdream.errors import StreamdreamError
from streamdream.models import get
from streamdream.settings import DreamSettings

SETTINGS = DreamSettings(warmup_steps=0)


def test_a_change_is_taken_whole_or_not_at_all() -> None:
    controls = Controls(SETTINGS)
    assert controls.change({"strength": 2, "octaves": 3.0, "layers": "mixed0", "keep": "0.5"}).strength == 2.0
    before = controls.current()
    assert (before.octaves, before.keep, type(before.octaves)) == (3, 0.5, int)
    for bad, words in (({"strength": 9}, "--strength is 9"), ({"octaves": 1.5}, "must be a whole number"),
                       ({"strenght": 1}, "did you mean strength"), ({"layers": 3}, "must be text"),
                       ({"original_colors": 1}, "must be true or false"), ({"steps": True}, "must be a whole number"),
                       ({"strength": float("nan")}, "--strength is nan"), ({"flow": "x"}, "unknown flow")):
        with pytest.raises(StreamdreamError, match=words):
            controls.change({"jitter": 3, **bad})
        assert controls.current() is before


def test_a_run_can_refuse_what_it_cannot_dream() -> None:
    def check(request: DreamRequest) -> None:
        from_settings(request.dream, get(request.model))

    controls = Controls(SETTINGS, check, "inception_v3")
    with pytest.raises(StreamdreamError, match="unknown layer"):
        controls.change({"layers": "mixed99"})
    assert controls.current() is SETTINGS
