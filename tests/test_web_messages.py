"""What visitors are told has no commands and no flags in it, and is not cut within a word."""
from __future__ import annotations

from streamdream_web.core.messages import MAX_CHARACTERS, visitor_message

from streamdream import models
from streamdream.dream.octaves import check_field
from streamdream.errors import FieldTooSmall, SettingsError, UnknownName
from streamdream.settings import DreamSettings

MODEL = models.get("inception_v3")


def unknown(layer: str) -> str:
    try:
        MODEL.resolve_tap(layer)
    except UnknownName as error:
        return visitor_message(error)
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
