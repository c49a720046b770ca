"""Controls come from the settings' metadata, and give back what the settings take."""
from __future__ import annotations

import dataclasses

import pytest
from streamdream_web.pages import intensity, layer_words, setting_controls, settings_panel

from streamdream import models
from streamdream.errors import SettingsError, UnknownName, UsageError
from streamdream.settings import DreamSettings, StreamSettings

NOT_IN_TABS = [item.name for item in dataclasses.fields(StreamSettings) if item.name != "field_height"]


def test_every_field_but_pictures_has_a_control() -> None:
    names = [row["name"] for row in setting_controls.describe()]
    assert set(names) == {item.name for item in dataclasses.fields(DreamSettings)} - {"guide", "style", "mask"}
    assert names[0] == "layers" and names.index("keep") < names.index("flow")  # what is used most comes first


def test_ranges_have_round_steps_that_reach_their_ends() -> None:
    for row in setting_controls.describe() + setting_controls.describe(StreamSettings, NOT_IN_TABS):
        if row["kind"] != "range":
            continue
        assert row["low"] <= row["default"] <= row["high"] and row["help"]
        notches = (row["high"] - row["low"]) / row["step"]
        assert notches >= 9 and (row["whole"] or float(f"{row['step']:.0e}") == row["step"])
    lowered = {row["name"]: row for row in setting_controls.describe(highest={"steps": 6})}
    assert lowered["steps"]["high"] == 6 and lowered["octaves"]["high"] == 12


def test_every_control_has_words_and_its_technical_name() -> None:
    rows = setting_controls.describe() + setting_controls.describe(StreamSettings, NOT_IN_TABS)
    assert len({row["label"] for row in rows}) == len(rows)
    for row in rows:
        assert row["help"].endswith(".") and row["technical"].split(":")[0] == row["name"]
        assert row["name"].replace("_", " ") != row["label"].lower() or row["name"] == "layers"  # says what one sees


def test_values_of_the_page_are_read_as_settings() -> None:
    values = {"steps": 3, "keep": 0.5, "original_colors": True, "layers": "mixed3"}
    assert setting_controls.read(DreamSettings, {**values, "nonsense": 1}) == values
    assert setting_controls.read(DreamSettings, values, without=["keep"]).keys() == values.keys() - {"keep"}
    assert setting_controls.read(DreamSettings, {"keep": 0, "steps": 2.0}) == {"keep": 0.0, "steps": 2}
    refused: list[dict[str, object]] = [{"keep": 1.5}, {"keep": "much"}, {"keep": float("nan")}, {"keep": None},
                                        {"steps": [1]}, {"layers": "x" * 1001}, {"layers": {}}]
    for wrong in refused:
        with pytest.raises(SettingsError):
            setting_controls.read(DreamSettings, wrong)
    with pytest.raises(UnknownName):
        setting_controls.read(DreamSettings, {"flow": "sideways"})


def test_files_of_the_server_are_no_values_of_the_page() -> None:
    assert setting_controls.read(DreamSettings, {"guide": "/etc/passwd", "mask": "x", "style": "y"}) == {}


@pytest.mark.parametrize("value", ["[1]", "1", "{", "[" * 100_000, '{"a": "' + "x" * 30_000 + '"}', '"text"'])
def test_a_value_of_the_panel_that_is_no_object_is_one_line(value: str) -> None:
    with pytest.raises(UsageError, match="reload"):
        settings_panel.parse_value(value)
    assert settings_panel.parse_value("") == settings_panel.parse_value(None) == {}


def test_intensity_is_the_original_at_0_the_look_in_the_middle_and_rises() -> None:
    strengths = [intensity.factor("strength", position) for position in range(101)]
    sizes = [intensity.factor("step_size", position) for position in range(101)]
    assert strengths[0] == 0 and strengths[50] == sizes[50] == 1
    assert strengths == sorted(set(strengths)) and sizes == sorted(sizes)


def test_each_layer_of_each_network_has_words() -> None:
    for name, model in models.MODELS.items():
        words = layer_words.words(name)
        assert words.keys() == model.taps().keys() and all(1 < len(text) < 30 for text in words.values())
    blocks = models.get("inception_v3").blocks(pools=True)
    assert len({layer_words.words("inception_v3")[name] for name in blocks}) == len(blocks)
