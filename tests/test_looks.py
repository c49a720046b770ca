"""The looks that are shipped: each is complete, can be dreamed, and none is another's double."""
from __future__ import annotations

import io
from dataclasses import replace

import pytest
from PIL import Image
from streamdream_bench import look_sheets
from support.commands import fails, here

from streamdream import models, settings
from streamdream.ascent import objectives
from streamdream.automation.automation import parse_playlist

FAMILIES = {"strokes", "flora", "fauna", "stone", "light", "weave"}


def test_a_flag_wins_over_the_play_list_of_a_look(capsys: pytest.CaptureFixture[str]) -> None:
    printed = here(capsys, "render", "--print-config", "--preset", "look-garden", "--layers", "mixed3[5]").stdout
    assert 'layers = "mixed3[5]"' in printed and "mixed4[" not in printed
    fails(here(capsys, "render", "--print-config", "--journey", "60s", "--layers", "mixed3"), 2, "leave out --layers")


@pytest.mark.parametrize("name", settings.look_names())
def test_a_look_says_what_one_sees_and_has_a_picture(name: str) -> None:
    run = settings.resolve({}, {}, name)
    objectives.from_settings(run.dream, models.get("inception_v3"))  # raises where a layer or channel is missing
    for entry in parse_playlist(run.automation.playlist, 1):
        objectives.from_settings(replace(run.dream, **entry.values), models.get("inception_v3"))
    about = settings.about_preset(name)
    assert about.endswith(".") and len(about) <= 110
    assert settings.preset_family(name) in FAMILIES
    data = (look_sheets.THUMBNAILS / f"{name}.webp").read_bytes()
    assert len(data) <= look_sheets.MAX_BYTES and Image.open(io.BytesIO(data)).size == (200, 130)


def test_there_are_thirty_looks_and_no_two_are_alike() -> None:
    dreams = [settings.resolve({}, {}, name).dream for name in settings.look_names()]
    assert len(dreams) >= 30
    assert len({dream.layers for dream in dreams}) == len(dreams)
    assert len({settings.about_preset(name) for name in settings.look_names()}) == len(dreams)
    assert {settings.preset_family(name) for name in settings.look_names()} == FAMILIES
