"""What visitors are told has no commands and no flags in it, and is not cut within a word."""
from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import pytest
from streamdream_web.core.messages import MAX_CHARACTERS, visitor_message
from support.web_client import Running
from support.web_visitor import Page

from streamdream import models
from streamdream.dream.octaves import check_field
from streamdream.errors import FieldTooSmall, SettingsError, UnknownName
from streamdream.media.sample_files import PHOTO, sample_file
from streamdream.settings import DreamSettings

MODEL = models.get("inception_v3")


def unknown(layer: str) -> str:
    try:
        MODEL.resolve_tap(layer)
    except UnknownName as error:
        message: str = visitor_message(error)
        return message
    raise AssertionError


def test_an_unknown_layer_gets_near_names_or_examples() -> None:
    assert "mixed3" in unknown("mixed33") and "streamdream" not in unknown("mixed33")
    assert unknown("nose") == ("there is no layer 'nose'; choose one such as mixed0, mixed1, mixed2, mixed3, mixed4, "
                               "mixed5")


def test_flags_are_plain_words() -> None:
    try:
        check_field(MODEL, DreamSettings(layers="mixed5", octaves=6, octave_scale=2), (240, 320))
    except FieldTooSmall as error:
        assert "a larger field height or" in visitor_message(error)
    assert visitor_message(SettingsError("--step-size is 9, but must be 1")) == "step size is 9, but must be 1"
    assert visitor_message(SettingsError("a well--made x-y")) == "a well--made x-y"


def test_long_messages_end_with_a_word() -> None:
    message = visitor_message(SettingsError("word, " * 100))
    assert len(message) <= MAX_CHARACTERS and message.endswith("word…")


@pytest.fixture(scope="module")
def picture_tab(web: Running) -> Iterator[Page]:
    """The tab Picture with a picture in it."""
    page = Page(web)
    with closing(page.visitor):
        _, answer = page.visitor.upload("lion.jpg", sample_file(PHOTO).read_bytes())
        page.put("picture-drop", json.dumps({"token": answer["token"]}))
        yield page


@pytest.mark.parametrize(("values", "message"), [
    ({"steps": 500}, "Steps is 500, but here at most 40."), ({"model": "nonsense"}, "Unknown model"),
    ({"layers": "nose", "color": 0.5}, "choose one such as mixed0"), ({"color": 3}, "Color is 3, but must be 0..1."),
    ({"octaves": [1]}, "Octaves is no number"), ({"model": "bvlc_googlenet"}, "The server's owner can install them")],
    ids=["too many", "network", "layer", "range", "list", "weights"])
def test_settings_of_a_tab_that_cannot_be_are_refused_in_plain_words(
        picture_tab: Page, values: dict[str, object], message: str) -> None:
    start = picture_tab.event("picture-start", "click")
    usual = picture_tab.values.copy()
    picture_tab.set(values, start)
    told = picture_tab.send(start)
    picture_tab.values = usual
    assert '"success":false' in told and message in told and "--" not in told
