"""Controls come from the settings' metadata, and give back what the settings take."""
from __future__ import annotations

import dataclasses

import gradio as gr
import pytest
from streamdream_web.pages import setting_controls
from support.web_client import building

from streamdream.errors import SettingsError, UnknownName
from streamdream.settings import DreamSettings, StreamSettings


def test_every_field_but_pictures_has_a_control() -> None:
    names = [row["name"] for row in setting_controls.describe()]
    assert set(names) == {item.name for item in dataclasses.fields(DreamSettings)} - {"guide", "style", "mask"}
    assert names[0] == "layers" and names.index("keep") < names.index("flow")  # what is used most comes first


def test_ranges_have_round_steps_that_reach_their_ends() -> None:
    for row in setting_controls.describe() + setting_controls.describe(StreamSettings):
        if row["kind"] != "range":
            continue
        assert row["low"] <= row["default"] <= row["high"] and row["help"]
        notches = (row["high"] - row["low"]) / row["step"]
        assert notches >= 9 and (row["whole"] or float(f"{row['step']:.0e}") == row["step"])
    lowered = {row["name"]: row for row in setting_controls.describe(highest={"steps": 6})}
    assert lowered["steps"]["high"] == 6 and lowered["octaves"]["high"] == 12


def test_a_form_gives_back_settings() -> None:
    with building(), gr.Blocks():
        form = setting_controls.build(values={"steps": 3}, choices={"layers": ["mixed0", "mixed3"]})
    values = [component.value for component in form.inputs]
    assert DreamSettings(**form.read(values)) == DreamSettings(steps=3)
    place = form.names.index("keep")
    for wrong, error in ((1.5, SettingsError), ("much", SettingsError), (float("nan"), SettingsError)):
        with pytest.raises(error):
            form.read([wrong if number == place else value for number, value in enumerate(values)])
    flow = form.names.index("flow")
    with pytest.raises(UnknownName):
        form.read(["sideways" if number == flow else value for number, value in enumerate(values)])
    shown = form.show({"keep": 0.5})
    assert len(shown) == len(form.inputs) and shown[place]["value"] == 0.5
